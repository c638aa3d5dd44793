//! A Chromium that loads unpacked extensions.
//!
//! Branded Google Chrome is not looked for: since version 137 it ignores `--load-extension`. `CHROME_PATH` names any other
//! browser of the family.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process::{on_path, output, run, step};
use crate::{apt, npm};

/// The browser to start, installed first where that is possible.
///
/// # Errors
/// When there is none; the message says what to run.
pub(crate) fn ensure(root: &Path) -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("CHROME_PATH") {
        let chosen = PathBuf::from(chosen);
        if !chosen.is_file() {
            bail!("CHROME_PATH names {}, which is not a file", chosen.display());
        }
        return Ok(chosen);
    }
    npm::ensure(root)?;
    if let Some(found) = find(root) {
        return Ok(found);
    }
    if apt::may_install() && !apt::is_ubuntu() {
        apt::install(&["chromium", "mesa-vulkan-drivers", "fonts-dejavu-core"])?;
    } else if apt::may_install() {
        step("Installing Chromium", || {
            let playwright = npm::file(root, "playwright-core/cli.js");
            run(npm::node(root).arg(playwright).args(["install", "--with-deps", "chromium"]))
        })?;
    }
    match find(root) {
        Some(found) => Ok(found),
        None => bail!(
            "no Chromium found: run `npx --prefix tests playwright-core install --with-deps chromium`, \
             or set CHROME_PATH to a Chromium or Chrome for Testing"
        ),
    }
}

/// A Chromium of the system, or the one Playwright installed.
fn find(root: &Path) -> Option<PathBuf> {
    // Ubuntu's /usr/bin/chromium-browser is a script that asks for a snap, so that name is not tried.
    on_path("chromium").or_else(|| {
        let ask = "import('playwright-core').then((p) => console.log(p.chromium.executablePath()))";
        let mut node = npm::node(root);
        node.current_dir(root.join("tests")).args(["--eval", ask]);
        let path = PathBuf::from(output(&mut node).ok()?.trim());
        path.is_file().then_some(path)
    })
}
