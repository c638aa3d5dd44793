//! Counting tests from what their runners print, and the summary of a run.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use regex_lite::Regex;

/// Who printed a text, hence how tests are counted in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// No tests: the command as a whole passes or fails and counts as one.
    Check,
    /// `cargo test`.
    Cargo,
    /// `cargo nextest run`.
    Nextest,
    /// `node --test` with the `spec` reporter.
    Node,
}

/// Numbers of tests, and which were skipped and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    pub(crate) skips: Vec<String>,
}

impl Counts {
    /// Counts the tests in `text`; `None` for a check. With `filtered`, tests that the filter left out, which nextest calls skipped, do not
    /// count.
    ///
    /// # Errors
    /// When one of the patterns does not compile, which a test excludes.
    pub(crate) fn parse(runner: Runner, text: &str, filtered: bool) -> Result<Option<Self>> {
        // The lines with numbers, the pairs of number and word in them, and the lines that name a skipped test.
        let (lines, pairs, skips) = match runner {
            Runner::Check => return Ok(None),
            Runner::Cargo => (
                r"(?m)^test result: .*$",
                r"(?P<number>\d+) (?P<word>passed|failed|ignored)",
                r"(?m)^test (.+?) \.\.\. ignored(?:, (.*))?$",
            ),
            Runner::Nextest => (
                r"(?m)^\s*Summary \[.*$",
                r"(?P<number>\d+) (?P<word>passed|failed|timed out|exec failed|skipped)",
                r"(?m)^\s*SKIP \[.*?\](?:\s*\([^)]*\))?\s+(.+)$",
            ),
            Runner::Node => {
                (r"(?m)^ℹ .*$", r"(?P<word>pass|fail|cancelled|skipped|todo) (?P<number>\d+)", r"(?m)^\s*﹣ (.+?) \([\d.]+ms\) # (.*)$")
            }
        };
        let pairs = Regex::new(pairs)?;
        let mut counts = Self::default();
        for line in Regex::new(lines)?.find_iter(text) {
            for pair in pairs.captures_iter(line.as_str()) {
                let number: usize = pair["number"].parse()?;
                match &pair["word"] {
                    "passed" | "pass" => counts.passed += number,
                    "ignored" | "skipped" | "todo" => counts.skipped += number,
                    _ => counts.failed += number,
                }
            }
        }
        if runner == Runner::Nextest && filtered {
            counts.skipped = 0;
            return Ok(Some(counts));
        }
        for found in Regex::new(skips)?.captures_iter(text) {
            let reason = found.get(2).map_or("", |reason| reason.as_str());
            counts.skips.push(named(&found[1], reason));
        }
        Ok(Some(counts))
    }

    /// Moves tests that returned early for want of a GPU feature from passed to skipped: `log` has a line
    /// `name: reason` for each.
    pub(crate) fn move_skipped(&mut self, log: &str) {
        for line in log.lines().filter(|line| !line.trim().is_empty()) {
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
            self.skips.push(line.to_owned());
        }
    }
}

fn named(name: &str, reason: &str) -> String {
    if reason.is_empty() { name.to_owned() } else { format!("{name}: {reason}") }
}

/// How a step ended.
#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A step of the run, finished.
pub(crate) struct Finished {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// Its tests; `None` when it has none because it is a check.
    pub(crate) tests: Option<Counts>,
    pub(crate) elapsed: Duration,
    /// What failed at first and passed when it was run again.
    pub(crate) late: Vec<String>,
}

impl Finished {
    /// Everything passed in the end; `late` only when it was run again.
    pub(crate) fn pass_late(&mut self, late: impl Iterator<Item = String>) {
        self.verdict = Verdict::Passed;
        self.late.extend(late);
        if let Some(tests) = &mut self.tests {
            tests.passed += std::mem::take(&mut tests.failed);
        }
    }

    /// Passed, failed and skipped tests. A check counts as one, and so does a step that did not get to its tests.
    fn totals(&self) -> [usize; 3] {
        let [passed, failed, skipped] = match &self.tests {
            Some(counts) => [counts.passed, counts.failed, counts.skipped],
            None => [usize::from(self.verdict == Verdict::Passed), 0, 0],
        };
        match self.verdict {
            Verdict::Passed => [passed, failed, skipped],
            Verdict::Failed(_) => [passed, failed.max(1), skipped],
            Verdict::Skipped(_) => [passed, failed, skipped.max(1)],
        }
    }
}

/// The table of `steps`, the skipped tests by name, and the totals as the last line.
pub(crate) fn summary(steps: &[Finished]) -> String {
    let mut text = String::from("\n");
    let mut totals = [0; 3];
    for step in steps {
        let (word, why) = match &step.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Failed(why) => ("FAILED", why.as_str()),
            Verdict::Skipped(why) => ("skipped", why.as_str()),
        };
        let numbers = step.totals();
        for (total, number) in totals.iter_mut().zip(numbers) {
            *total += number;
        }
        let seconds = step.elapsed.as_secs_f32();
        let [passed, failed, skipped] = numbers;
        let tests = format!("{passed} passed, {failed} failed, {skipped} skipped");
        let _ = writeln!(text, "{:<16} {word:<8} {seconds:>7.1} s  {tests:<36} {why}", step.name);
    }
    for step in steps {
        for skip in step.tests.iter().flat_map(|counts| &counts.skips) {
            let _ = writeln!(text, "skipped in {}: {skip}", step.name);
        }
        for late in &step.late {
            let _ = writeln!(text, "failed first and passed when run again in {}: {late}", step.name);
        }
    }
    let [passed, failed, skipped] = totals;
    let _ = write!(text, "{passed} passed, {failed} failed, {skipped} skipped");
    text
}

#[cfg(test)]
mod tests {
    use super::{Counts, Finished, Runner, Verdict, summary};
    use std::time::Duration;

    fn counts(runner: Runner, text: &str) -> (usize, usize, usize, Vec<String>) {
        let counts = Counts::parse(runner, text, false).expect("patterns compile").expect("has tests");
        (counts.passed, counts.failed, counts.skipped, counts.skips)
    }

    #[test]
    fn cargo_test_counts_sum_over_binaries() {
        let text = "test a ... ok\ntest slow::b ... ignored, takes an hour\n\
            test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n\
            test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(counts(Runner::Cargo, text), (7, 4, 1, vec!["slow::b: takes an hour".to_owned()]));
    }

    #[test]
    fn nextest_counts_come_from_summary() {
        let text = "        SKIP [         ] (6/7) doppler-engine gpu::big\n\
            \x20    Summary [   1.234s] 6 tests run: 3 passed (1 slow), 2 failed, 1 timed out, 1 skipped\n";
        let (passed, failed, skipped, skips) = counts(Runner::Nextest, text);
        assert_eq!((passed, failed, skipped), (3, 3, 1));
        assert_eq!(skips, ["doppler-engine gpu::big"]);
        let filtered = Counts::parse(Runner::Nextest, text, true).expect("patterns compile").expect("has tests");
        assert_eq!(filtered.skipped, 0);
    }

    #[test]
    fn node_counts_come_from_last_lines() {
        let text = "✔ streams (12.3ms)\n﹣ popup (0.1ms) # no display\nℹ tests 9\nℹ suites 0\nℹ pass 4\nℹ fail 2\n\
            ℹ cancelled 1\nℹ skipped 1\nℹ todo 1\nℹ duration_ms 99\n";
        assert_eq!(counts(Runner::Node, text), (4, 3, 2, vec!["popup: no display".to_owned()]));
    }

    #[test]
    fn tests_lacking_a_feature_count_as_skipped() {
        let mut counts = Counts { passed: 3, ..Counts::default() };
        counts.move_skipped("matvec+half: no shader-f16\n");
        assert_eq!((counts.passed, counts.skipped), (2, 1));
    }

    #[test]
    fn tests_passing_on_second_run_are_named() {
        let tests = Some(Counts { passed: 3, failed: 2, ..Counts::default() });
        let verdict = Verdict::Failed(String::new());
        let mut step = Finished { name: "a".to_owned(), verdict, tests, elapsed: Duration::ZERO, late: Vec::new() };
        step.pass_late(std::iter::once("b.test.mjs".to_owned()));
        let text = summary(&[step]);
        assert!(text.contains("failed first and passed when run again in a: b.test.mjs"));
        assert_eq!(text.lines().last(), Some("5 passed, 0 failed, 0 skipped"));
    }

    #[test]
    fn summary_last_line_has_totals() {
        let step = |verdict, tests| Finished { name: "a".to_owned(), verdict, tests, elapsed: Duration::ZERO, late: Vec::new() };
        let text = summary(&[
            step(Verdict::Passed, Some(Counts { passed: 7, ..Counts::default() })),
            step(Verdict::Passed, Some(Counts::default())),
            step(Verdict::Passed, None),
            step(Verdict::Failed(String::new()), Some(Counts::default())),
            step(Verdict::Failed(String::new()), None),
            step(Verdict::Skipped("not installed".to_owned()), None),
        ]);
        assert_eq!(text.lines().last(), Some("8 passed, 2 failed, 1 skipped"));
    }
}
