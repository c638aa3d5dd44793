//! Compiles every shader variant at build time: WESL to WGSL, checked by naga, reflected into Rust.
//!
//! `shaders/variants.toml` says which variants there are. Any error stops the build and names file, variant and place.

// The engine's table of weight formats.
#[allow(dead_code, unreachable_pub, reason = "the engine uses the rest")]
#[path = "../src/dtype/mod.rs"]
mod dtype;

mod compile;
mod formats;
mod generate;
mod reflect;
mod repeat;
mod variants;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use compile::Compiler;
use reflect::{KernelInterface, Reflection};
use variants::{KernelAxes, Table};

/// Past this many bytes of distinct WGSL the build warns: it all ends up in the wasm file.
const SIZE_LIMIT: usize = 1 << 19;

/// One kernel with all its variants compiled.
struct Kernel<'a> {
    name: &'a str,
    axes: &'a KernelAxes,
    interface: KernelInterface,
    variants: Vec<Variant>,
}

/// One compiled variant.
struct Variant {
    name: String,
    wgsl: String,
    reflection: Reflection,
}

fn main() -> ExitCode {
    let shaders = Path::new(&env("CARGO_MANIFEST_DIR")).with_file_name("shaders");
    let out = PathBuf::from(env("OUT_DIR"));
    match build(&shaders, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build(shaders: &Path, out: &Path) -> Result<(), String> {
    let path = shaders.join("variants.toml");
    println!("cargo::rerun-if-changed={}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let table = Table::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;

    // Chromium wants `enable subgroups;`, naga 30 has subgroups without it and refuses the line.
    let browser = env("CARGO_CFG_TARGET_ARCH") == "wasm32";
    let compiler = Compiler::new(shaders, &table, browser);
    let mut sources = BTreeSet::new();
    let mut kernels = Vec::new();
    let mut errors = Vec::new();
    for (name, axes) in table.iter() {
        match kernel(&compiler, name, axes, &mut sources) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => errors.push(error),
        }
    }
    for source in sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }

    share_bindings(&mut kernels)?;
    let size = generate::write(&kernels, out).map_err(|e| format!("{}: {e}", out.display()))?;
    dump(&kernels, &out.join("wgsl")).map_err(|e| format!("{}: {e}", out.display()))?;
    if size > SIZE_LIMIT {
        println!("cargo::warning=the shaders have {size} bytes of WGSL; fewer variants would make the wasm file smaller");
    }
    Ok(())
}

/// Writes each variant as a file, for reading only.
fn dump(kernels: &[Kernel<'_>], folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for kernel in kernels {
        for variant in &kernel.variants {
            let name = format!("{}-{}.wgsl", kernel.name, variant.name).replace("-.", ".");
            std::fs::write(folder.join(name), &variant.wgsl)?;
        }
    }
    Ok(())
}

/// Compiles all variants of a kernel; stops at the first that fails.
fn kernel<'a>(compiler: &Compiler, name: &'a str, axes: &'a KernelAxes, sources: &mut BTreeSet<PathBuf>) -> Result<Kernel<'a>, String> {
    // Before compiling, so that a kernel which fails is built again when it is corrected.
    sources.insert(compiler.path(name));
    let mut interface = KernelInterface::default();
    let mut variants = Vec::new();
    for features in axes.expand() {
        let variant = features.join("+");
        let fail = |message: String| format!("shaders/{name}.wesl [{variant}]: {message}");
        let (wgsl, reflection) = compiler.compile(name, &features, sources).map_err(fail)?;
        interface.merge(&reflection).map_err(fail)?;
        variants.push(Variant { name: variant, wgsl, reflection });
    }
    interface.set_optional(&axes.optional).map_err(|message| format!("shaders/{name}.wesl: {message}"))?;
    Ok(Kernel { name, axes, interface, variants })
}

/// Gives kernels the bindings of those that share theirs.
fn share_bindings(kernels: &mut [Kernel<'_>]) -> Result<(), String> {
    for i in 0..kernels.len() {
        let Some(owner) = kernels[i].axes.bindings_of.as_deref().and_then(|owner| kernels.iter().position(|k| k.name == owner)) else {
            continue;
        };
        let bindings = std::mem::take(&mut kernels[i].interface.bindings);
        for binding in &bindings {
            kernels[owner].interface.add(binding).map_err(|message| format!("shaders/{}.wesl: {message}", kernels[i].name))?;
        }
    }
    Ok(())
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
