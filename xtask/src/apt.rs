//! Debian's and Ubuntu's package manager, used where it is there and we are root.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{on_path, output, run, step};

/// Whether packages may be installed without asking: `apt-get` is there and we are root.
pub(crate) fn may_install() -> bool {
    available() && output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Whether this system has `apt-get`.
pub(crate) fn available() -> bool {
    on_path("apt-get").is_some()
}

/// Whether this is Ubuntu, whose `chromium` package is only a pointer to a snap.
pub(crate) fn is_ubuntu() -> bool {
    std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=ubuntu"))
}

/// `apt-get` with `arguments`, never asking.
pub(crate) fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs `work`; when it fails, brings the package lists up to date and tries once more.
///
/// # Errors
/// What `work` returns the second time, or the first when the lists cannot be brought up to date.
pub(crate) fn with_fresh_lists<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    work().or_else(|error| {
        if !may_install() {
            return Err(error.context("if the package lists are old, run `sudo apt-get update`"));
        }
        step("Updating the package lists", || run(&mut apt_get(&["update", "-q"]))).context(error)?;
        work()
    })
}

/// Installs `packages`.
///
/// # Errors
/// When `apt-get` cannot.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(packages);
    step(&format!("Installing {}", packages.join(", ")), || with_fresh_lists(|| run(&mut apt_get(&arguments))))
}
