//! The demonstration: a browser with the extension, a page that asks, the popup that converses.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::process::{run, step};
use crate::{browser, npm, wasm};

/// Builds the extension and runs `tests/e2e/demo.mjs`, which writes to `target/demo/`.
///
/// # Errors
/// When the build, the browser or the demonstration fails.
pub(crate) fn start(root: &Path, headless: bool) -> Result<()> {
    let chrome = browser::ensure(root)?;
    wasm::build(root, wasm::Profile::Release)?;
    let headless = headless || !has_display();
    let output = root.join("target/demo");
    fs::create_dir_all(&output)?;
    let mut node = npm::node(root);
    node.arg(root.join("tests/e2e/demo.mjs"))
        .env("CHROME", chrome)
        .env("HEADLESS", if headless { "1" } else { "0" })
        .env("DOPPLER_ROOT", root)
        .env("DOPPLER_OUT", output);
    step("Running the demonstration", || run(&mut node))
}

/// Whether a window can be shown; says so when not.
fn has_display() -> bool {
    let shown = !cfg!(target_os = "linux") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if !shown {
        eprintln!("  no display: running without a window, as with --headless");
    }
    shown
}
