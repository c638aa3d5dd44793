//! Every check and test of the repository. Two things keep the cores busy that one step leaves idle: the extension is built beside the checks,
//! and the browser tests run beside the native ones, which yield to them. A failing step does not keep the next from running.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::process::{Background, Captured, Screen, capture, describe, entries, on_path, output, run as run_command, step};
use crate::report::{Counts, Finished, Runner, Verdict, summary};
use crate::vulkan::Adapter;
use crate::{browser, npm};

/// What `--only` chooses.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Formatting, lints, documentation, licences and Rust tests, native.
    Rust,
    /// Types and unit tests of the JavaScript modules.
    Js,
    /// The extension in a real browser.
    E2e,
}

/// A check compiles at most.
const CHECK_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Native tests run kernels on a CPU, and yield to a browser.
const RUST_LIMIT: Duration = Duration::from_secs(40 * 60);
/// Browser tests run a model on a CPU.
const BROWSER_LIMIT: Duration = Duration::from_secs(30 * 60);

const BROWSER_TESTS: &str = "browser tests";

/// Where native tests append a line `name: reason` when they return early for want of a GPU feature.
const SKIP_LOG: &str = "DOPPLER_SKIP_LOG";

/// The build tool is tested by itself, so that its dependencies, already built for it to run, are not built again with the
/// features that other members ask for.
const OTHERS: [&str; 3] = ["--workspace", "--exclude", "xtask"];

/// Runs the tests and prints the summary; whether nothing failed.
///
/// # Errors
/// When a step's output cannot be understood or files cannot be written; failing steps are no error.
pub(crate) fn run(root: &Path, filter: Option<&str>, only: Option<Group>) -> Result<bool> {
    let mut suite = Suite { root, filter, finished: Vec::new() };
    let wants = |group| only.is_none_or(|only| only == group);
    let extension = (wants(Group::Js) || wants(Group::E2e)).then(|| build_extension(root)).transpose()?;
    if wants(Group::Rust) && filter.is_none() {
        suite.rust_checks()?;
    }
    let built = extension.map(|beside| suite.join(beside)).transpose()?.is_some_and(|build| build.success);
    // Alone they are shown as they run.
    let screen = if wants(Group::Rust) { Screen::Hidden } else { Screen::Shown };
    let browser = if wants(Group::E2e) { suite.begin_browser_tests(built, screen) } else { None };
    if wants(Group::Rust) {
        suite.rust_tests()?;
    }
    if wants(Group::Js) {
        suite.js()?;
    }
    if let Some((chrome, beside)) = browser {
        // After a time limit modules are missing from the list of those that failed.
        if !suite.join(beside)?.timed_out {
            suite.browser_tests_again(&chrome)?;
        }
    }
    println!("{}", summary(&suite.finished));
    Ok(!suite.finished.iter().any(|step| matches!(step.verdict, Verdict::Failed(_))))
}

/// A step that runs beside others; what it writes is shown when it has ended, unless it was shown before. Dropping it ends it.
struct Beside {
    name: &'static str,
    runner: Runner,
    screen: Screen,
    running: Background,
}

/// Begins to build the extension, in a target folder of its own. Linking and optimizing it keeps one core busy, the checks have the other.
fn build_extension(root: &Path) -> Result<Beside> {
    let mut build = Command::new(std::env::current_exe()?);
    build.arg("build").current_dir(root);
    Ok(Beside::begin("extension build", Runner::Check, build, CHECK_LIMIT, Screen::Hidden))
}

impl Beside {
    fn begin(name: &'static str, runner: Runner, command: Command, limit: Duration, screen: Screen) -> Self {
        Self { name, runner, screen, running: Background::begin(command, limit, screen) }
    }
}

struct Suite<'a> {
    root: &'a Path,
    filter: Option<&'a str>,
    finished: Vec<Finished>,
}

impl Suite<'_> {
    fn rust_tests(&mut self) -> Result<()> {
        self.workspace_tests()?;
        let mut own = self.yielding(&["test", "--package", "xtask"]);
        own.args(self.filter);
        self.step("build tool tests", Runner::Cargo, &mut own, RUST_LIMIT)?;
        let mut examples = self.yielding(&["test", "--doc", "--no-fail-fast"]);
        examples.args(OTHERS);
        examples.args(self.filter);
        self.step("doc tests", Runner::Cargo, &mut examples, RUST_LIMIT)
    }

    fn rust_checks(&mut self) -> Result<()> {
        let mut format = self.cargo(&["fmt", "--all", "--check"]);
        self.step("formatting", Runner::Check, &mut format, CHECK_LIMIT)?;
        let mut lints = self.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        self.step("lints", Runner::Check, &mut lints, CHECK_LIMIT)?;
        // For those who work on this code, private items and links to them included: nothing is published as a library.
        let mut docs = self.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
        docs.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        self.step("documentation", Runner::Check, &mut docs, CHECK_LIMIT)?;
        if self.has_subcommand("deny") {
            let mut deny = self.cargo(&["deny", "check"]);
            self.step("licences", Runner::Check, &mut deny, CHECK_LIMIT)
        } else {
            self.skip("licences", "cargo-deny is not installed: `cargo install --locked cargo-deny`");
            Ok(())
        }
    }

    /// Unit and integration tests, on the chosen adapter.
    fn workspace_tests(&mut self) -> Result<()> {
        let adapter = match Adapter::ensure() {
            Ok(adapter) => adapter,
            Err(error) => {
                self.push("rust tests", Verdict::Failed(format!("{error:#}")), Duration::ZERO);
                return Ok(());
            }
        };
        let log = self.log_file("skipped")?;
        std::fs::write(&log, "")?;
        let nextest = self.has_subcommand("nextest");
        let (runner, kind, options): (_, &[&str], &[&str]) = if nextest {
            (Runner::Nextest, &["nextest", "run"], &["--no-fail-fast", "--no-tests=pass"])
        } else {
            (Runner::Cargo, &["test", "--lib", "--bins", "--tests"], &["--no-fail-fast"])
        };
        let mut build = self.yielding(kind);
        build.args(OTHERS).arg("--no-run");
        self.step("rust test build", Runner::Check, &mut build, CHECK_LIMIT)?;
        let mut tests = self.yielding(kind);
        tests.args(options).args(OTHERS).args(self.filter).env(SKIP_LOG, &log);
        if nextest && self.filter.is_none() {
            tests.arg("--status-level=skip");
        }
        adapter.apply(&mut tests);
        println!("native tests on {}", adapter.describe());
        self.step("rust tests", runner, &mut tests, RUST_LIMIT)?;
        if let Some(tests) = self.finished.last_mut().and_then(|step| step.tests.as_mut()) {
            tests.move_skipped(&std::fs::read_to_string(&log)?);
        }
        Ok(())
    }

    fn js(&mut self) -> Result<()> {
        if self.filter.is_none() {
            let mut types = npm::node(self.root);
            types.arg(npm::file(self.root, "typescript/bin/tsc")).args(["--project", "tests/tsconfig.json"]);
            self.step("types", Runner::Check, &mut types, CHECK_LIMIT)?;
        }
        let Some(mut node) = self.node(&entries(&self.root.join("tests/unit"), "", ".test.mjs")) else { return Ok(()) };
        self.step("js tests", Runner::Node, &mut node, CHECK_LIMIT)
    }

    /// Begins the browser tests, and says with which browser; `None` where they cannot run.
    fn begin_browser_tests(&mut self, built: bool, screen: Screen) -> Option<(PathBuf, Beside)> {
        let mut chrome = None;
        let root = self.root;
        self.prepare("browser", || {
            chrome = Some(browser::ensure(root)?);
            Ok(())
        });
        // The browser starts it for the tests of local models. With the features of all members, as the native tests have it.
        let mut build = self.cargo(&["build", "--bin", "doppler-host", "--target-dir"]);
        build.arg(root.join("target")).args(OTHERS);
        let host = self.prepare("native host", || step("Compiling the native host", || run_command(&mut build)));
        let (Some(chrome), true, true) = (chrome, built, host) else {
            self.skip(BROWSER_TESTS, "no extension, native host or browser");
            return None;
        };
        let mut node = self.node(&self.browser_modules())?;
        self.configure(&mut node, &chrome);
        Some((chrome, Beside::begin(BROWSER_TESTS, Runner::Node, node, BROWSER_LIMIT, screen)))
    }

    fn browser_modules(&self) -> Vec<PathBuf> {
        entries(&self.root.join("tests/e2e"), "", ".test.mjs")
    }

    /// Tells browser tests where the browser and the extension are.
    fn configure(&self, node: &mut Command, chrome: &Path) {
        node.env("CHROME", chrome).env("DOPPLER_ROOT", self.root);
    }

    /// Runs the browser tests' modules that failed once more: a browser on a busy machine is not always in time. What passes then is named
    /// in the summary; what fails twice has failed.
    fn browser_tests_again(&mut self, chrome: &Path) -> Result<()> {
        let Some(first) = self.finished.last().filter(|step| matches!(step.verdict, Verdict::Failed(_))) else { return Ok(()) };
        let text = std::fs::read_to_string(self.log_file(&first.name)?)?;
        let failed: Vec<PathBuf> = self.browser_modules().into_iter().filter(|file| failed_in(file, &text)).collect();
        let Some(mut node) = self.node(&failed) else { return Ok(()) };
        self.configure(&mut node, chrome);
        self.step(&format!("{BROWSER_TESTS}, again"), Runner::Node, &mut node, BROWSER_LIMIT)?;
        if let [.., first, again] = self.finished.as_mut_slice()
            && again.verdict == Verdict::Passed
        {
            first.pass_late(failed.iter().map(|file| file.display().to_string()));
            again.tests = Some(Counts::default());
        }
        Ok(())
    }

    /// What runs modules of tests one after the other; `None` where there are none.
    fn node(&self, files: &[PathBuf]) -> Option<Command> {
        if files.is_empty() {
            return None;
        }
        let mut node = npm::node(self.root);
        node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]);
        if let Some(filter) = self.filter {
            node.arg(format!("--test-name-pattern={filter}"));
        }
        node.args(files);
        Some(node)
    }

    /// Cargo for what runs beside the browser tests and yields to them: a browser must answer in time.
    fn yielding(&self, arguments: &[&str]) -> Command {
        if on_path("nice").is_none() {
            return self.cargo(arguments);
        }
        let mut command = Command::new("nice");
        command.args(["-n", "10", "cargo"]).args(arguments).current_dir(self.root);
        command
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(self.root);
        command
    }

    fn has_subcommand(&self, name: &str) -> bool {
        output(self.cargo(&[name]).arg("--version")).is_ok()
    }

    /// Does what tests need first and notes only its failure; whether it succeeded.
    fn prepare(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        let start = Instant::now();
        let verdict = match work() {
            Ok(()) => Verdict::Passed,
            Err(error) => {
                eprintln!("error: {error:#}");
                Verdict::Failed("see its error above".to_owned())
            }
        };
        let passed = verdict == Verdict::Passed;
        self.push(name, verdict, start.elapsed());
        passed
    }

    /// Runs `command`, counts its tests and keeps its output in `target/test/<name>.log`.
    fn step(&mut self, name: &str, runner: Runner, command: &mut Command, limit: Duration) -> Result<()> {
        println!("\n→ {name}: {}", describe(command));
        let captured = capture(command, limit, Screen::Shown)?;
        self.conclude(name, runner, &captured)
    }

    /// Waits for what runs beside, and shows what it wrote.
    fn join(&mut self, Beside { name, runner, screen, running }: Beside) -> Result<Captured> {
        let captured = running.join().context(name)?;
        if screen == Screen::Hidden {
            println!("\n→ {name}, beside the above\n{}", captured.text);
        }
        self.conclude(name, runner, &captured)?;
        Ok(captured)
    }

    /// Notes how a step ended, and keeps what it wrote.
    fn conclude(&mut self, name: &str, runner: Runner, captured: &Captured) -> Result<()> {
        let log = self.log_file(name)?;
        std::fs::write(&log, &captured.text)?;
        let verdict = if captured.success {
            Verdict::Passed
        } else if captured.timed_out {
            Verdict::Failed(format!("ended after {} minutes; see {}", captured.elapsed.as_secs() / 60, log.display()))
        } else {
            Verdict::Failed(format!("see {}", log.display()))
        };
        self.push(name, verdict, captured.elapsed);
        if let Some(step) = self.finished.last_mut() {
            step.tests = Counts::parse(runner, &captured.text, self.filter.is_some())?;
        }
        Ok(())
    }

    fn skip(&mut self, name: &str, why: &str) {
        println!("\n→ {name}: skipped, {why}");
        self.push(name, Verdict::Skipped(why.to_owned()), Duration::ZERO);
    }

    fn push(&mut self, name: &str, verdict: Verdict, elapsed: Duration) {
        self.finished.push(Finished { name: name.to_owned(), verdict, tests: None, elapsed, late: Vec::new() });
    }

    fn log_file(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join("target/test");
        std::fs::create_dir_all(&folder)?;
        Ok(folder.join(format!("{}.log", name.replace(' ', "-"))))
    }
}

/// Whether `node --test` named a failing test of this module in what it printed.
fn failed_in(file: &Path, text: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    text.lines().any(|line| line.starts_with("test at ") && line.contains(&format!("/{name}:")))
}

#[cfg(test)]
mod tests {
    use super::failed_in;
    use std::path::Path;

    #[test]
    fn failed_modules_are_found_in_output() {
        let text = "✔ a (1ms)\n✖ failing tests:\n\ntest at tests/e2e/popup.test.mjs:170:1\n✖ it opens (9ms)\n";
        assert!(failed_in(Path::new("/root/tests/e2e/popup.test.mjs"), text));
        assert!(!failed_in(Path::new("/root/tests/e2e/spark.test.mjs"), text));
    }
}
