//! The build tool of DOPPLER: `cargo xtask build | protocol | package | demo | test | bench | soak | fuzz`.
//!
//! Every command first makes sure that what it needs is there (wasm target, node packages, browser, software Vulkan) and
//! installs it where it may (Debian or Ubuntu as root); elsewhere it stops with the exact command to run. All of it is
//! idempotent: a second run does only what changed.

mod apt;
mod bench;
mod browser;
mod demo;
mod fuzz;
mod npm;
mod package;
mod process;
mod protocol;
mod references;
mod report;
mod soak;
mod test;
mod toolchain;
mod vulkan;
mod wasm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tests, shows and packages DOPPLER.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the wasm modules; afterwards the repository root loads as an unpacked extension.
    Build {
        /// Compile quickly: less optimized, function names kept, no size limit.
        #[arg(long)]
        dev: bool,
    },
    /// Write `extension/shared/protocol.d.ts`, the types of messages for the JavaScript modules.
    Protocol,
    /// Build, then write the store zip `target/doppler-<version>.zip` with only what ships.
    Package,
    /// Build, start a browser with the extension, ask a question in a page and in the popup.
    Demo {
        /// Show no window; print the answers and write screenshots to `target/demo/`.
        #[arg(long)]
        headless: bool,
    },
    /// Run every check and test; with FILTER only the tests whose name contains it.
    ///
    /// Native GPU tests run on Mesa's software adapter unless `DOPPLER_ADAPTER` names (part of) another adapter's name.
    Test {
        /// Part of the names of the tests to run.
        filter: Option<String>,
        /// Run one group only.
        #[arg(long, value_enum)]
        only: Option<test::Group>,
    },
    /// Build, then time a model in a browser. `DOPPLER_CHROME_FLAGS` are further flags for it.
    Bench(Box<bench::Options>),
    /// Build, then let tabs ask in a browser while parts of it are killed; prints a report, and fails if an answer is missing or wrong or memory
    /// grows. `DOPPLER_CHROME_FLAGS` are further flags for it.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// The same number makes the same choices.
        #[arg(long, default_value_t = 1)]
        seed: u32,
    },
    /// Feed made-up files to everything that reads files; findings are left in `tests/fuzz/artifacts`.
    Fuzz {
        /// The target; all of them one after the other without.
        target: Option<String>,
        /// Minutes for each.
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
}

/// The repository root.
fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

fn run(task: &Task) -> Result<bool> {
    let root = repository();
    match task {
        Task::Build { dev } => {
            let profile = if *dev { wasm::Profile::Dev } else { wasm::Profile::Release };
            wasm::build(&root, profile)?;
            println!("load it unpacked from {}", root.display());
        }
        Task::Protocol => protocol::write(&root)?,
        Task::Package => {
            wasm::build(&root, wasm::Profile::Release)?;
            let zip = package::write(&root)?;
            println!("{}", zip.display());
        }
        Task::Demo { headless } => demo::start(&root, *headless)?,
        Task::Bench(options) => bench::start(&root, options)?,
        Task::Soak { minutes, seed } => soak::start(&root, *minutes, *seed)?,
        Task::Fuzz { target, minutes } => fuzz::start(&root, target.as_deref(), *minutes)?,
        Task::Test { filter, only } => return test::run(&root, filter.as_deref(), *only),
    }
    Ok(true)
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
