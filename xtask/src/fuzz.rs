//! Fuzzing of everything that reads files, messages and requests: `tests/fuzz`, by cargo-fuzz.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{entries, output, run};

/// The targets, and the largest single allocation in MiB that an input of [`MAX_INPUT`] may lead to. A chat template has fuel for
/// some 256 MB of text.
const TARGETS: [(&str, u32); 8] = [
    ("gguf", 64),
    ("split_gguf", 64),
    ("safetensors", 64),
    ("tokenizer", 64),
    ("tokenizer_json", 64),
    ("template", 320),
    ("host_messages", 64),
    ("host_http", 64),
];

/// Longest input in bytes.
const MAX_INPUT: u32 = 1 << 16;

/// Fuzzes `target`, or each target in turn, for some minutes; findings are left in `tests/fuzz/artifacts`.
///
/// # Errors
/// When a tool is missing, the build fails, or something was found.
pub(crate) fn start(root: &Path, target: Option<&str>, minutes: u32) -> Result<()> {
    if output(Command::new("cargo").args(["fuzz", "--version"])).is_err() {
        bail!("cargo-fuzz is missing: run `cargo install --locked cargo-fuzz`");
    }
    if output(Command::new("cargo").args(["+nightly", "--version"])).is_err() {
        bail!("fuzzing needs a nightly compiler: run `rustup toolchain install nightly --profile minimal`");
    }
    let folder = root.join("tests/fuzz");
    // The versions that ship.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let names = || TARGETS.map(|(name, _)| name);
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, _)| target.is_none_or(|target| target == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no such target; there are {}", names().join(", "));
    }
    for (name, allocation) in chosen {
        let corpus = folder.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        for seed in entries(&folder.join("seeds"), &format!("{name}-"), "") {
            let file = seed.file_name().context("a seed without name")?;
            std::fs::copy(&seed, corpus.join(file))?;
        }
        let mut fuzz = Command::new("cargo");
        fuzz.current_dir(root).args(["+nightly", "fuzz", "run", "--fuzz-dir", "tests/fuzz", "--target-dir", "target/fuzz", name]);
        // What threads have that are just beginning or ending looks like leaks.
        fuzz.env("ASAN_OPTIONS", "detect_leaks=0");
        fuzz.arg("--").args([
            format!("-max_total_time={}", 60 * minutes),
            format!("-max_len={MAX_INPUT}"),
            format!("-malloc_limit_mb={allocation}"),
            "-rss_limit_mb=2048".to_owned(),
            "-timeout=20".to_owned(),
            "-print_final_stats=1".to_owned(),
        ]);
        run(&mut fuzz)?;
    }
    Ok(())
}
