//! The soak: tabs ask for a long time while the parts under them are killed.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::process::{run, step};
use crate::{browser, npm, wasm};

/// Builds the extension and runs `tests/soak/soak.mjs`, which prints a report as JSON.
///
/// # Errors
/// When the build or the browser fails, a request was neither answered nor clearly refused, an answer was wrong, or memory grew.
pub(crate) fn start(root: &Path, minutes: f64, seed: u32) -> Result<()> {
    let chrome = browser::ensure(root)?;
    wasm::build(root, wasm::Profile::Release)?;
    let mut node = npm::node(root);
    node.arg(root.join("tests/soak/soak.mjs")).arg(json!({ "minutes": minutes, "seed": seed }).to_string());
    node.env("CHROME", chrome);
    step("Soaking", || run(&mut node))
}
