//! Concurrent requests: their total rate, and whether each gets the same answer as alone.

use std::rc::Rc;
use std::time::Duration;

use futures::future::try_join_all;
use serde::Serialize;

use super::{BenchOptions, median, prompt};
use crate::engine::{Client, Trace};
use crate::error::EngineError;

/// Measurements of concurrent requests with different prompts. Rates are medians over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct StreamsReport {
    /// Requests.
    pub streams: u32,
    /// Requests that are served concurrently; the others wait for a slot.
    pub places: u32,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens of each answer.
    pub tokens: u32,
    /// Tokens of all answers in a second, from the last first token to the first last one; `None`: they are never all answered at a time.
    pub together_tokens_per_second: Option<f64>,
    /// Tokens of all answers in a second, from the request to the last token.
    pub tokens_per_second: f64,
    /// Of one answer, the median of all: tokens after the first over the time from the first to the last.
    pub each_tokens_per_second: f64,
    /// Milliseconds to the first token, the median of all.
    pub first_token_ms: f64,
    /// Milliseconds until the last of them has its first token.
    pub last_first_token_ms: f64,
    /// Answers that differ, in any run, from the answer that the same prompt got alone.
    pub differing: u32,
}

/// Measures every number of streams that `options` asks for, with the first of its lengths of prompts.
pub(super) async fn measure(client: &Client, places: u32, options: &BenchOptions) -> Result<Vec<StreamsReport>, Rc<EngineError>> {
    let (Some(&most), Some(&length)) = (options.streams.iter().max(), options.prompts.first()) else { return Ok(Vec::new()) };
    let ask = |number: u32| client.trace(prompt(length, number), options.tokens, 0);
    let mut alone = Vec::new();
    for number in 0..most {
        alone.push(ask(number).await?.tokens);
    }
    let mut reports = Vec::new();
    for &streams in &options.streams {
        let mut runs = Vec::new();
        for _ in 0..=options.runs {
            runs.push(try_join_all((0..streams).map(ask)).await?);
        }
        let differs = |number: &u32| runs.iter().any(|run| run[*number as usize].tokens != alone[*number as usize]);
        let differing = (0..streams).filter(differs).count() as u32;
        // The first run pays for pipelines and memory.
        let figures: Vec<Figures> = runs[1..].iter().map(|run| Figures::of(run)).collect();
        let middle = |figure: fn(&Figures) -> f64| median(figures.iter().map(figure).collect());
        reports.push(StreamsReport {
            streams,
            places: streams.min(places),
            prompt_tokens: length,
            tokens: options.tokens,
            together_tokens_per_second: (streams <= places).then(|| middle(|run| run.together)),
            tokens_per_second: middle(|run| run.wall),
            each_tokens_per_second: middle(|run| run.each),
            first_token_ms: middle(|run| run.first),
            last_first_token_ms: middle(|run| run.last_first),
            differing,
        });
    }
    Ok(reports)
}

/// Figures of one run: tokens a second, and milliseconds.
struct Figures {
    together: f64,
    wall: f64,
    each: f64,
    first: f64,
    last_first: f64,
}

impl Figures {
    /// Of answers to requests that were made at the same time.
    fn of(run: &[Trace]) -> Self {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        let ends =
            |trace: &Trace| (trace.arrivals.first().copied().unwrap_or_default(), trace.arrivals.last().copied().unwrap_or_default());
        let (firsts, lasts): (Vec<_>, Vec<_>) = run.iter().map(ends).unzip();
        let last_first = firsts.iter().copied().max().unwrap_or_default();
        let first_last = lasts.iter().copied().min().unwrap_or_default();
        let arrivals = || run.iter().flat_map(|trace| &trace.arrivals);
        let meanwhile = arrivals().filter(|at| **at > last_first && **at <= first_last).count();
        let each = |trace: &Trace| {
            let (first, last) = ends(trace);
            rate(trace.arrivals.len().saturating_sub(1), last.saturating_sub(first))
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            together: rate(meanwhile, first_last.saturating_sub(last_first)),
            wall: rate(arrivals().count(), lasts.into_iter().max().unwrap_or_default()),
            each: median(run.iter().map(each).collect()),
            first: median(firsts.into_iter().map(ms).collect()),
            last_first: ms(last_first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_rate_counts_only_common_time() {
        let trace = |ms: &[u64]| Trace { arrivals: ms.iter().map(|ms| Duration::from_millis(*ms)).collect(), ..Trace::default() };
        let run = [trace(&[10, 20, 30, 40, 50]), trace(&[30, 40, 50, 60, 70])];
        let Figures { together, wall, each, first, last_first } = Figures::of(&run);
        // From 30 to 50 ms two tokens of each.
        let rounded = [together, wall, each, first, last_first].map(|figure| figure.round() as u32);
        assert_eq!(rounded, [200, 143, 100, 30, 30]);
        let apart = [trace(&[10, 20]), trace(&[30, 40])];
        assert!(Figures::of(&apart).together < 1e-9);
    }
}
