//! The types of messages for the JavaScript modules, which a test of the crate that describes them writes.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::run;

/// Writes `extension/shared/protocol.d.ts`.
///
/// # Errors
/// When `extension/protocol` does not compile or the file cannot be written.
pub(crate) fn write(root: &Path) -> Result<()> {
    let mut test = Command::new("cargo");
    test.current_dir(root).args(["test", "--package", "doppler-protocol", "--lib", "declarations"]);
    run(test.env("DOPPLER_WRITE_PROTOCOL", "1"))
}
