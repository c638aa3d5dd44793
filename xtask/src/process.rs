//! Running other programs: with their output shown, captured or both, and with a time limit.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Announces `what`, does it and says how long it took.
///
/// # Errors
/// What `work` returns.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("→ {what} …");
    let start = Instant::now();
    let result = work();
    let sign = if result.is_ok() { '✓' } else { '✗' };
    eprintln!("{sign} {what} ({:.1} s)", start.elapsed().as_secs_f32());
    result
}

/// The command line of `command`, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs `command` with its output shown.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the message carries its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", describe(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How a command with a time limit ended, and all it wrote (standard output and error in order of arrival).
pub(crate) struct Captured {
    pub(crate) text: String,
    pub(crate) success: bool,
    pub(crate) timed_out: bool,
    pub(crate) elapsed: Duration,
}

/// Whether what a captured command writes is shown as it comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Shown,
    Hidden,
}

/// Runs `command` with its output captured, and ends it when it takes longer than `limit`. Time in which cargo waits for another cargo does
/// not count.
///
/// In a terminal the command stays in our process group, so that Ctrl-C reaches it. Elsewhere it leads a group of its own,
/// so that the limit ends its children too.
///
/// # Errors
/// When it cannot be started or waited for.
pub(crate) fn capture(command: &mut Command, limit: Duration, screen: Screen) -> Result<Captured> {
    capture_unless(&AtomicBool::new(false), command, limit, screen)
}

/// A captured command that runs beside other work. Dropping this ends the command.
pub(crate) struct Background {
    cancelled: Arc<AtomicBool>,
    running: Option<JoinHandle<Result<Captured>>>,
}

impl Background {
    /// Begins what [`capture`] does.
    pub(crate) fn begin(mut command: Command, limit: Duration, screen: Screen) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&cancelled);
        Self { cancelled, running: Some(thread::spawn(move || capture_unless(&until, &mut command, limit, screen))) }
    }

    /// Waits for the command's end.
    ///
    /// # Errors
    /// As [`capture`].
    pub(crate) fn join(mut self) -> Result<Captured> {
        let running = self.running.take().context("the command was joined before")?;
        running.join().map_err(|_| anyhow!("its thread ended in a panic"))?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.cancelled.store(true, Ordering::Relaxed);
            let _ = running.join();
        }
    }
}

/// [`capture`], but `cancelled` ends the command as its limit does.
fn capture_unless(cancelled: &AtomicBool, command: &mut Command, limit: Duration, screen: Screen) -> Result<Captured> {
    let start = Instant::now();
    let own_group = !std::io::stdin().is_terminal();
    #[cfg(unix)]
    if own_group {
        std::os::unix::process::CommandExt::process_group(command, 0);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    let text = Arc::new(Mutex::new(Vec::new()));
    let copies = [
        child.stdout.take().map(|pipe| copy(pipe, &text, (screen == Screen::Shown).then(std::io::stdout))),
        child.stderr.take().map(|pipe| copy(pipe, &text, (screen == Screen::Shown).then(std::io::stderr))),
    ];
    let is_free = || text.lock().is_ok_and(|text| waits_for_lock(&text));
    let status = wait(&mut child, limit, is_free, || cancelled.load(Ordering::Relaxed))?;
    if status.is_none() {
        end(&mut child, own_group)?;
    }
    // A grandchild that outlives its parent keeps the pipes open: after the end the copies get a moment, not forever.
    let deadline = Instant::now() + Duration::from_secs(5);
    while copies.iter().flatten().any(|copy| !copy.is_finished()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let text = text.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |text| text.clone());
    Ok(Captured {
        text: String::from_utf8_lossy(&text).into_owned(),
        success: status.is_some_and(|status| status.success()),
        timed_out: status.is_none(),
        elapsed: start.elapsed(),
    })
}

/// Copies `pipe` to `text`, and to `screen` if there is one, until it ends.
fn copy(
    mut pipe: impl Read + Send + 'static,
    text: &Arc<Mutex<Vec<u8>>>,
    mut screen: Option<impl Write + Send + 'static>,
) -> JoinHandle<()> {
    let text = Arc::clone(text);
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if let Some(screen) = &mut screen {
                // A closed terminal must not end the run that is being captured.
                let _ = screen.write_all(&buffer[..count]).and_then(|()| screen.flush());
            }
            if let Ok(mut text) = text.lock() {
                text.extend_from_slice(&buffer[..count]);
            }
        }
    })
}

/// Whether the last that cargo said is that it waits for another cargo.
fn waits_for_lock(text: &[u8]) -> bool {
    let last = text.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    last.trim_ascii_start().starts_with(b"Blocking waiting for file lock")
}

/// Waits for `child`, `limit` at most, in which time that is `free` does not count, or until it is `cancelled`; `None` when it still runs
/// then.
fn wait(child: &mut Child, limit: Duration, free: impl Fn() -> bool, cancelled: impl Fn() -> bool) -> Result<Option<ExitStatus>> {
    let mut left = limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if left.is_zero() || cancelled() {
            return Ok(None);
        }
        let start = Instant::now();
        thread::sleep(left.min(Duration::from_millis(50)));
        if !free() {
            left = left.saturating_sub(start.elapsed());
        }
    }
}

/// Ends `child` (and its group): asked first, so that browsers close, then forced.
fn end(child: &mut Child, group: bool) -> Result<()> {
    if cfg!(unix) {
        let target = if group { format!("-{}", child.id()) } else { child.id().to_string() };
        for signal in ["-TERM", "-KILL"] {
            let _ = Command::new("kill").args([signal, "--", &target]).status();
            if signal == "-TERM" {
                wait(child, Duration::from_secs(10), || false, || false)?;
            }
        }
    } else {
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}

/// The path of program `name` on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&file)).find(|path| path.is_file())
}

/// The entries of folder `path` whose names start and end so, sorted; none when there is no such folder.
pub(crate) fn entries(path: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(all(test, unix))]
mod tests {
    use super::{Background, Captured, Screen, capture, entries};
    use std::process::Command;
    use std::time::{Duration, Instant};

    fn captured(script: &str, limit: Duration) -> Captured {
        capture(Command::new("sh").args(["-c", script]), limit, Screen::Shown).expect("sh starts")
    }

    #[test]
    fn command_output_is_captured_whole() {
        let done = captured("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert!(!done.success && !done.timed_out);
        assert!(done.text.contains("out\n") && done.text.contains("err\n"));
    }

    #[test]
    fn command_over_limit_is_killed_with_children() {
        let start = Instant::now();
        let done = captured("echo begun; sleep 60 & sleep 60", Duration::from_millis(500));
        assert!(done.timed_out && !done.success);
        assert_eq!(done.text, "begun\n");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn command_limit_excludes_waiting_for_lock() {
        let script = "echo '    Blocking waiting for file lock on build directory' >&2; sleep 2; echo '   Compiling' >&2; sleep 60";
        let done = captured(script, Duration::from_secs(1));
        assert!(done.timed_out && done.text.contains("Compiling"));
        assert!(done.elapsed < Duration::from_secs(30));
    }

    #[test]
    fn background_command_dropped_is_ended() {
        let folder = std::env::temp_dir().join(format!("doppler-background-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let [begun, ended] = ["begun", "ended"].map(|name| folder.join(name));
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'touch ended; exit' TERM; touch begun; sleep 60 & wait"]).current_dir(&folder);
        let background = Background::begin(command, Duration::from_secs(60), Screen::Hidden);
        while !begun.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(background);
        assert!(ended.exists());
        std::fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn entries_match_prefix_and_suffix() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let found = entries(sources.as_ref(), "proc", ".rs");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("process.rs"));
        assert!(entries("/no/such/folder".as_ref(), "", "").is_empty());
    }
}
