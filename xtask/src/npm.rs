//! The node packages of `tests/package.json`: wasm-opt, the type checker and the browser driver; and those of `tests/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{on_path, output, run, step};

/// Oldest Node.js whose test runner and module loader we use.
const OLDEST_NODE: u32 = 20;

/// Installs the locked packages when they are missing or the lock changed.
///
/// # Errors
/// When Node.js is missing or too old, or npm fails.
pub(crate) fn ensure(root: &Path) -> Result<()> {
    install(&root.join("tests"), &[])
}

/// The same for the packages of `tests/peers`: the engines that ours is compared with. `all`: also those that need more than a
/// GGUF file.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_peers(root: &Path, all: bool) -> Result<()> {
    // What is only for Node, and fetched by scripts while installing, is not wanted.
    let ignored: &[&str] = if all { &["--ignore-scripts"] } else { &["--ignore-scripts", "--omit=optional"] };
    install(&root.join("tests/peers"), ignored)
}

fn install(folder: &Path, options: &[&str]) -> Result<()> {
    let wanted = format!("{options:?} {}", std::fs::read_to_string(folder.join("package-lock.json"))?);
    let stamp = folder.join("node_modules/.installed-lock.json");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    check_node()?;
    step("Installing the node packages", || {
        let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
        let mut install = Command::new(npm);
        install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).args(options);
        run(install.current_dir(folder).env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1"))?;
        Ok(std::fs::write(stamp, &wanted)?)
    })
}

/// The file at `path` inside the installed packages, to be run with [`node`].
pub(crate) fn file(root: &Path, path: &str) -> PathBuf {
    root.join("tests/node_modules").join(path)
}

/// Node.js, running in the repository root.
pub(crate) fn node(root: &Path) -> Command {
    let mut command = Command::new("node");
    command.current_dir(root);
    command
}

fn check_node() -> Result<()> {
    let wanted = format!("install Node.js {OLDEST_NODE} or newer (nodejs.org, or your system's packages `nodejs npm`)");
    if on_path("node").is_none() {
        bail!("Node.js is missing: {wanted}");
    }
    let version = output(Command::new("node").arg("--version"))?;
    let major = version.trim().trim_start_matches('v').split('.').next();
    match major.and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major >= OLDEST_NODE => Ok(()),
        _ => bail!("Node.js is {}: {wanted}", version.trim()),
    }
}
