//! The compiler for `wasm32-unknown-unknown`.
//!
//! Normally rustup's. Where rustup cannot reach its server (offline mirrors often carry crates and Debian packages but no
//! rustup components), Debian's `rustc-web` is downloaded and unpacked under `target/toolchain` without being installed;
//! cargo then builds the standard library itself (`-Zbuild-std`), since Debian ships it only as source for this target.
//! `DOPPLER_WASM_TOOLCHAIN=rustup` or `=debian` forces one of the two.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::process::{Screen, capture, entries, on_path, output, run, step};

/// The target all modules are compiled for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// rustup without a reachable server may hang; a download over a slow line takes less.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// What Debian calls the compiler, its host library and the library's source.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];

/// A way to compile for [`TARGET`].
pub(crate) struct Toolchain {
    /// Folder of the Rust toolchain in use.
    sysroot: PathBuf,
    /// Debian's compiler, when it is the one that compiles for wasm.
    debian: Option<DebianRustc>,
}

/// Debian's compiler, unpacked.
struct DebianRustc {
    rustc: PathBuf,
    libraries: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds a compiler for [`TARGET`] or installs one.
    ///
    /// # Errors
    /// When there is none and none can be had; the message says what to run.
    pub(crate) fn ensure(root: &Path) -> Result<Self> {
        let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
        let unpacked = root.join("target/toolchain");
        let forced = std::env::var("DOPPLER_WASM_TOOLCHAIN").ok();
        let debian = match forced.as_deref() {
            Some("rustup") => {
                add_target()?;
                None
            }
            Some("debian") => Some(DebianRustc::ensure(&unpacked, &sysroot)?),
            Some(other) => bail!("DOPPLER_WASM_TOOLCHAIN is `{other}`: use `rustup` or `debian`"),
            None if sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir() => None,
            None if DebianRustc::is_complete(&unpacked) => Some(DebianRustc::ensure(&unpacked, &sysroot)?),
            None => match add_target() {
                Ok(()) => None,
                Err(error) if apt::available() => {
                    eprintln!("  {error:#}; using Debian's compiler instead");
                    Some(DebianRustc::ensure(&unpacked, &sysroot)?)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self { sysroot, debian })
    }

    /// Cargo's `build` for [`TARGET`] with this toolchain, to be given packages and profile.
    pub(crate) fn cargo_build(&self) -> Command {
        // The binary itself and not rustup's shim, which would put its own compiler first.
        let cargo = self.sysroot.join("bin").join(format!("cargo{}", std::env::consts::EXE_SUFFIX));
        let mut command = if cargo.is_file() { Command::new(cargo) } else { Command::new("cargo") };
        command.args(["build", "--target", TARGET]);
        if let Some(debian) = &self.debian {
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", &debian.rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", &debian.libraries)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &debian.linker);
        }
        command
    }
}

/// Adds [`TARGET`] to rustup's toolchain.
fn add_target() -> Result<()> {
    let command_line = format!("rustup target add {TARGET}");
    if on_path("rustup").is_none() {
        bail!("this Rust has no {TARGET}: install rustup, then run `{command_line}`");
    }
    step(&format!("Adding {TARGET} to Rust"), || {
        let done = capture(Command::new("rustup").args(["target", "add", TARGET]), RUSTUP_LIMIT, Screen::Shown)?;
        if !done.success {
            let why = if done.timed_out { "took too long" } else { "failed" };
            bail!("`{command_line}` {why}");
        }
        Ok(())
    })
}

impl DebianRustc {
    /// Whether `folder` holds a finished unpacking.
    fn is_complete(folder: &Path) -> bool {
        folder.join("complete").is_file()
    }

    /// The compiler in `folder`, downloaded and unpacked if it is not there yet.
    fn ensure(folder: &Path, sysroot: &Path) -> Result<Self> {
        if !Self::is_complete(folder) {
            if !apt::available() {
                bail!("Debian's Rust compiler needs `apt-get`; elsewhere run `rustup target add {TARGET}`");
            }
            step("Downloading and unpacking Debian's Rust compiler", || unpack(folder))?;
        }
        let libraries =
            entries(&folder.join("root/usr/lib"), "", "-linux-gnu").pop().context("Debian's compiler came without its libraries")?;
        let host = output(Command::new("rustc").arg("-vV"))?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
        let linker = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
        if !linker.is_file() {
            bail!("{} is missing: install Rust with rustup", linker.display());
        }
        Ok(Self { rustc: folder.join("root/usr/bin/rustc"), libraries, linker })
    }
}

/// Downloads [`DEBIAN_PACKAGES`] and what they need that this system lacks, and unpacks them to `folder/root`.
fn unpack(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let downloads = folder.join("downloads");
    std::fs::create_dir_all(&downloads)?;
    let packages = apt::with_fresh_lists(|| {
        // A simulated installation resolves versions and dependencies for us, whatever the release's numbers are.
        let mut simulate = apt::apt_get(&["install", "--simulate", "--reinstall", "--no-install-recommends"]);
        let plan = output(simulate.args(DEBIAN_PACKAGES))?;
        let packages = packages_in(&plan);
        let mut download = apt::apt_get(&["download", "-q"]);
        run(download.args(&packages).current_dir(&downloads))?;
        Ok(packages)
    })?;
    for archive in entries(&downloads, "", ".deb") {
        run(Command::new("dpkg").arg("-x").arg(&archive).arg(folder.join("root")))?;
    }
    std::fs::remove_dir_all(&downloads)?;
    std::fs::write(folder.join("complete"), packages.join("\n"))?;
    Ok(())
}

/// The packages that a simulated `apt-get install` would install: the second words of its `Inst` lines.
fn packages_in(plan: &str) -> Vec<String> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::packages_in;

    #[test]
    fn apt_simulation_lists_packages() {
        let plan = "NOTE: This is only a simulation!\n\
            Inst libllvm22 (1:22.1.8-1~deb12u1 Debian-Security:12 [amd64])\n\
            Inst rustc-web [1.85] (1.96.0 Debian-Security:12 [amd64])\n\
            Conf rustc-web (1.96.0 Debian-Security:12 [amd64])\n";
        assert_eq!(packages_in(plan), ["libllvm22", "rustc-web"]);
    }
}
