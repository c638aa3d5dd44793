//! Prompts that arrive: beside answers that are decoded, and behind a beginning that is cached.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select, try_join_all};
use serde::Serialize;
use web_time::Instant;

use super::{BenchOptions, median, prompt};
use crate::engine::Client;
use crate::error::EngineError;

/// Answers that are decoded when the prompt arrives.
pub(super) const STREAMS: u32 = 4;

/// A prompt that arrives while answers are decoded. Medians over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct ArrivalReport {
    /// Tokens of the prompt that arrives.
    pub prompt_tokens: u32,
    /// Answers that are decoded.
    pub streams: u32,
    /// Of each answer, before the prompt arrives.
    pub each_tokens_per_second_before: f64,
    /// Of each answer, from the arrival to the first token of the prompt's answer.
    pub each_tokens_per_second_meanwhile: f64,
    /// The longest time without a token of any answer from the arrival to the first token, in milliseconds.
    pub longest_pause_ms: f64,
    /// Milliseconds to the first token.
    pub first_token_ms: f64,
    /// The same while nothing else is decoded.
    pub first_token_alone_ms: f64,
}

/// A prompt whose beginning is in the prefix cache. Medians over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct CachedReport {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, how many are in the cache.
    pub cached_tokens: u32,
    /// Milliseconds to the first token with an empty cache.
    pub cold_first_token_ms: f64,
    /// Milliseconds to the first token.
    pub first_token_ms: f64,
}

/// Measures a prompt of so many tokens that arrives while [`STREAMS`] answers to prompts of the first length are decoded.
pub(super) async fn arrival(client: &Client, options: &BenchOptions, prompt_tokens: u32) -> Result<ArrivalReport, Rc<EngineError>> {
    let mut runs = Vec::new();
    for number in 0..=options.runs {
        let alone = first_token(client, prompt(prompt_tokens, STREAMS + number)).await?.0;
        runs.push(Meeting { alone, ..meet(client, options, prompt(prompt_tokens, STREAMS + options.runs + 1 + number)).await? });
    }
    // The first run pays for pipelines and memory.
    let runs = &runs[1..];
    let middle = |figure: fn(&Meeting) -> f64| median(runs.iter().map(figure).collect());
    Ok(ArrivalReport {
        prompt_tokens,
        streams: STREAMS,
        each_tokens_per_second_before: middle(|run| run.before),
        each_tokens_per_second_meanwhile: middle(|run| run.meanwhile),
        longest_pause_ms: middle(|run| ms(run.pause)),
        first_token_ms: middle(|run| ms(run.first_token)),
        first_token_alone_ms: middle(|run| ms(run.alone)),
    })
}

/// Measures a prompt of so many tokens of which 95 % are in the cache.
pub(super) async fn cached(client: &Client, options: &BenchOptions, prompt_tokens: u32) -> Result<CachedReport, Rc<EngineError>> {
    const NEW_TOKENS: u32 = 20;
    let client = client.clone().sharing("bench");
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    let mut cached_tokens = 0;
    for number in 0..=options.runs {
        let text = prompt(prompt_tokens, number);
        let known = text.len() - (prompt_tokens / NEW_TOKENS) as usize;
        let changed: Vec<u32> = text.iter().enumerate().map(|(i, token)| if i < known { *token } else { token + 1 }).collect();
        cold.push(ms(first_token(&client, text).await?.0));
        let (time, cached) = first_token(&client, changed).await?;
        warm.push(ms(time));
        cached_tokens = cached;
    }
    let [cold_first_token_ms, first_token_ms] = [cold, warm].map(|times| median(times[1..].to_vec()));
    Ok(CachedReport { prompt_tokens, cached_tokens, cold_first_token_ms, first_token_ms })
}

/// The time to the first token, and the cached tokens of the prompt.
async fn first_token(client: &Client, prompt: Vec<u32>) -> Result<(Duration, u32), Rc<EngineError>> {
    let trace = client.trace(prompt, 1, 0).await?;
    Ok((trace.arrivals.first().copied().unwrap_or_default(), trace.timings.cached_tokens))
}

/// Figures of one run.
#[derive(Debug, Default)]
struct Meeting {
    before: f64,
    meanwhile: f64,
    pause: Duration,
    first_token: Duration,
    alone: Duration,
}

/// Decodes answers until the last of them has as many tokens as `options` ask for; then the prompt arrives, and all ends with its first token.
async fn meet(client: &Client, options: &BenchOptions, arriving: Vec<u32>) -> Result<Meeting, Rc<EngineError>> {
    let length = options.prompts.first().copied().unwrap_or(1);
    let tokens: RefCell<Vec<Instant>> = RefCell::default();
    let behind = Cell::new(STREAMS);
    let (announce, announced) = oneshot::channel();
    let announce = Cell::new(Some(announce));
    let stream = async |number| {
        let mut count = 0;
        let mut token = |at| {
            tokens.borrow_mut().push(at);
            count += 1;
            if count == options.tokens {
                behind.set(behind.get() - 1);
                if behind.get() == 0
                    && let Some(announce) = announce.take()
                {
                    // The receiver is here.
                    let _ = announce.send(());
                }
            }
        };
        client.trace_each(prompt(length, number), client.info().context - length, 0, &mut token).await
    };
    let arrive = async {
        // The sender is here.
        let _ = announced.await;
        let arrived = Instant::now();
        Ok::<_, Rc<EngineError>>((arrived, first_token(client, arriving).await?.0))
    };
    let streams = try_join_all((0..STREAMS).map(stream));
    let (arrived, first_token) = match select(std::pin::pin!(arrive), std::pin::pin!(streams)).await {
        Either::Left((arrival, _)) => arrival?,
        Either::Right((ended, arrive)) => {
            ended?;
            arrive.await?
        }
    };
    Ok(Meeting::of(&tokens.into_inner(), arrived, first_token))
}

impl Meeting {
    /// Of the times of all answers' tokens.
    fn of(tokens: &[Instant], arrived: Instant, first_token: Duration) -> Self {
        let answered = arrived + first_token;
        let begun = tokens.first().copied().unwrap_or(arrived);
        let count = |from: Instant, to: Instant| tokens.iter().filter(|at| **at > from && **at <= to).count();
        let each = |from: Instant, to: Instant| count(from, to) as f64 / f64::from(STREAMS) / (to - from).as_secs_f64().max(1e-9);
        let mut times = vec![arrived];
        times.extend(tokens.iter().copied().filter(|at| *at > arrived && *at < answered));
        times.push(answered);
        let pause = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Self { before: each(begun, arrived), meanwhile: each(arrived, answered), pause, first_token, ..Self::default() }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_each_answer_before_the_arrival_and_until_the_first_token() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        // Four tokens every 10 ms for 100 ms, then every 20 ms, with a pause of 60.
        let times = (0..=10).map(|i| 10 * i).chain([120, 140, 200, 220]);
        let tokens: Vec<Instant> = times.flat_map(|ms| [at(ms); STREAMS as usize]).collect();
        let run = Meeting::of(&tokens, at(100), Duration::from_millis(120));
        assert_eq!((run.before.round(), run.meanwhile.round(), run.pause.as_millis()), (100.0, 33.0, 60));
    }
}
