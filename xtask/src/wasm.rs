//! From the wasm crates to what the extension loads: cargo, then wasm-bindgen, then wasm-opt; and what it loads of others.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use wasm_bindgen_cli_support::Bindgen;

use crate::npm;
use crate::process::{run, step};
use crate::toolchain::{TARGET, Toolchain};

/// How the modules are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What ships: optimized for size, no names.
    Release,
    /// Quick to compile, names kept.
    Dev,
}

impl Profile {
    /// The cargo profile in the root manifest.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "wasm",
            Self::Dev => "wasm-dev",
        }
    }
}

/// A crate that becomes a wasm module of the extension.
struct Module {
    package: &'static str,
    /// Stem of the files, which is the crate's name.
    stem: &'static str,
    /// Folder under `extension/pkg`.
    folder: &'static str,
    /// The most bytes it may have before compression.
    limit: Option<usize>,
}

/// A third of the popup's is the parser of formulas (pulldown-latex) with its tables of symbols.
const MODULES: [Module; 2] = [
    Module { package: "doppler-worker", stem: "doppler_worker", folder: "worker", limit: Some(6_000_000) },
    Module { package: "doppler-ui", stem: "doppler_ui", folder: "ui", limit: Some(720_000) },
];

/// What rustc lets LLVM use for this target and every browser with WebGPU has; SIMD for crates that ask for it.
/// Not `--all-features`: that also lets wasm-opt write encodings that browsers reject.
const WASM_OPT: [&str; 11] = [
    "-Os",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-call-indirect-overlong",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
    "--strip-producers",
];

/// Builds every module into `extension/pkg`.
///
/// # Errors
/// When a tool is missing or fails, or a module is over its size limit.
pub(crate) fn build(root: &Path, profile: Profile) -> Result<()> {
    let toolchain = Toolchain::ensure(root)?;
    npm::ensure(root)?;
    let target = root.join("target/wasm");
    let mut cargo = toolchain.cargo_build();
    cargo.current_dir(root).args(["--lib", "--profile", profile.name(), "--target-dir"]).arg(&target);
    for module in &MODULES {
        cargo.args(["--package", module.package]);
    }
    step("Compiling the wasm modules", || run(&mut cargo))?;
    for module in &MODULES {
        module.finish(root, &target, profile)?;
    }
    copy_suffixes(root)
}

/// Copies the Public Suffix List, in the form of the package `tldts`, to where the extension's pages load it: with its licence, as
/// that asks for, and without types and the source map.
fn copy_suffixes(root: &Path) -> Result<()> {
    let package = npm::file(root, "tldts");
    let read = |path: &str| fs::read_to_string(package.join(path)).with_context(|| format!("the node package tldts has no {path}"));
    let program = read("dist/index.esm.min.js")?;
    let program: Vec<&str> = program.lines().filter(|line| !line.starts_with("//# sourceMappingURL=")).collect();
    let data = "The Public Suffix List in it, https://publicsuffix.org/list/, is under the Mozilla Public License 2.0.";
    let text = format!("// @ts-nocheck\n/*!\n{}\n{data}\n*/\n{}\n", read("LICENSE")?, program.join("\n"));
    fs::write(root.join("extension/pkg/tldts.js"), text).context("cannot write extension/pkg/tldts.js")
}

impl Module {
    /// Makes `extension/pkg/<folder>` from what cargo left in `target`, unless it is made from just that already.
    fn finish(&self, root: &Path, target: &Path, profile: Profile) -> Result<()> {
        let compiled = target.join(TARGET).join(profile.name()).join(format!("{}.wasm", self.stem));
        let output = root.join("extension/pkg").join(self.folder);
        let wasm = output.join(format!("{}_bg.wasm", self.stem));
        let stamp_file = target.join(format!("{}.stamp", self.stem));
        let stamp = stamp(root, &compiled, profile)?;
        let current = wasm.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|made_from| made_from == stamp);
        if !current {
            let fresh = root.join("extension/pkg").join(format!("{}.new", self.folder));
            remove_folder(&fresh)?;
            step(&format!("Binding {} to JavaScript", self.stem), || bind(&compiled, &fresh, self.stem, profile))?;
            if profile == Profile::Release {
                let wasm = fresh.join(format!("{}_bg.wasm", self.stem));
                step(&format!("Optimizing {}", self.stem), || optimize(root, &wasm))?;
            }
            remove_folder(&output)?;
            fs::rename(&fresh, &output)?;
            fs::write(&stamp_file, stamp)?;
        }
        self.weigh(&wasm, profile)
    }

    /// Prints the module's size and holds it to its limit.
    fn weigh(&self, wasm: &Path, profile: Profile) -> Result<()> {
        let bytes = fs::read(wasm).with_context(|| format!("cannot read {}", wasm.display()))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&bytes)?;
        let zipped = gzip.finish()?.len();
        eprintln!("{:<15} {:>9} bytes, {:>9} gzipped", self.stem, bytes.len(), zipped);
        match self.limit {
            Some(limit) if profile == Profile::Release && bytes.len() > limit => bail!(
                "{} has {} bytes, more than its limit of {limit}: look for a heavy dependency or feature that came in, \
                 with `cargo tree --package {} --target {TARGET} --edges normal`",
                wasm.display(),
                bytes.len(),
                self.package
            ),
            _ => Ok(()),
        }
    }
}

/// What the output of [`Module::finish`] depends on, as a line of text: input, profile, the tools' versions and options.
fn stamp(root: &Path, compiled: &Path, profile: Profile) -> Result<String> {
    let bytes = fs::read(compiled).with_context(|| format!("cargo left no {}", compiled.display()))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    include_str!("wasm.rs").hash(&mut hasher);
    fs::read(root.join("tests/package-lock.json"))?.hash(&mut hasher);
    fs::read(root.join("Cargo.lock"))?.hash(&mut hasher);
    Ok(format!("{} {} {:016x}", profile.name(), bytes.len(), hasher.finish()))
}

/// Runs wasm-bindgen on `compiled`, writing module, glue and types to `folder`.
fn bind(compiled: &Path, folder: &Path, stem: &str, profile: Profile) -> Result<()> {
    Bindgen::new()
        .input_path(compiled)
        .out_name(stem)
        .web(true)?
        .typescript(true)
        .omit_default_module_path(false)
        .remove_name_section(profile == Profile::Release)
        .remove_producers_section(true)
        .generate(folder)
        .with_context(|| format!("wasm-bindgen failed on {}", compiled.display()))
}

/// Replaces `wasm` by its optimized form.
fn optimize(root: &Path, wasm: &Path) -> Result<()> {
    let optimized: PathBuf = wasm.with_extension("opt");
    let mut wasm_opt = npm::node(root);
    wasm_opt.arg(npm::file(root, "binaryen/bin/wasm-opt"));
    run(wasm_opt.args(WASM_OPT).arg(wasm).arg("-o").arg(&optimized))?;
    Ok(fs::rename(&optimized, wasm)?)
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
