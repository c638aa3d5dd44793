//! One request on its way through the scheduler.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use web_time::Instant;

use super::pages::BlockTable;
use crate::error::EngineError;
use crate::kernels::{NO_TOKEN, PAGE, Row, Sampler};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0: the most likely token always.
    pub temperature: f32,
    /// Keep this many most likely tokens; 0: all.
    pub top_k: u32,
    /// Keep the most likely tokens that together have this probability (Holtzman et al. 2020); 1: all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the most likely; 0: all.
    pub min_p: f32,
    /// Divide the logits of tokens seen anywhere by this (Keskar et al. 2019); 1: off.
    pub repetition_penalty: f32,
    /// Subtract from the logits of tokens in the answer.
    pub presence_penalty: f32,
    /// Subtract for each time the token is in the answer.
    pub frequency_penalty: f32,
    /// Same seed, same prompt, same options: same answer.
    pub seed: u32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    pub(super) fn sampler(&self, step: u32) -> Sampler {
        Sampler {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            step,
            ..Default::default()
        }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so.
    Stop,
    /// The limit on tokens, or the context's end.
    Length,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for a place.
    pub queued: Duration,
    /// From the place to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, how many were in the cache already.
    pub cached_tokens: u32,
    /// Tokens of the answer, the stop token not counted.
    pub completion_tokens: u32,
}

/// What the scheduler tells the owner of a request.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request has its place; so many tokens of the prompt were in the cache.
    Admitted(u32),
    /// The logits that the next token was chosen from, when the job asked for them.
    Logits(Vec<f32>),
    /// The next token of the answer.
    Token(u32),
    /// Natural logarithms of the probabilities of the prompt's tokens, from the second on.
    Scores(Vec<f32>),
    /// The embedding of the prompt, as the model gives it: not normalized.
    Embedding(Vec<f32>),
    /// The end; nothing follows.
    End(FinishReason, Timings),
}

/// What is asked of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A continuation.
    Continue,
    /// How likely each of its tokens is after those before it.
    Score,
    /// One vector of the whole.
    Embed,
}

/// A request: a prompt and where its tokens go. Dropping the receiver cancels it.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub task: Task,
    /// Token ids; not empty, no longer than the context, and shorter if it is to be continued.
    pub prompt: Vec<u32>,
    /// Whose texts it may share the cache with. Without one the whole prompt is read, and nothing of it kept; so unless it is to be
    /// continued.
    pub namespace: Option<Rc<str>>,
    /// At most this many new tokens; 0 unless it is to be continued.
    pub max_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Rc<[u32]>,
    /// Sampling.
    pub sampling: SamplingOptions,
    /// Send the logits of this many first tokens. The whole batch waits for them: for checks, not for serving.
    pub logits: u32,
    /// Where events go.
    pub events: UnboundedSender<Result<Event, Rc<EngineError>>>,
}

/// What a request has got so far.
#[derive(Debug)]
pub(super) struct Progress {
    /// The answer.
    pub(super) generated: Vec<u32>,
    /// Prompt tokens that were in the cache before.
    cached: u32,
    admitted: Instant,
    first_token: Option<Instant>,
}

/// A job without a place in the batch.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    submitted: Instant,
    /// What it got before its place was taken from it.
    progress: Option<Progress>,
}

impl Waiting {
    pub(super) fn new(job: Job) -> Self {
        Self { job, submitted: Instant::now(), progress: None }
    }

    /// The answer so far; `None`: it never had a place.
    pub(super) fn output(&self) -> Option<&[u32]> {
        self.progress.as_ref().map(|progress| progress.generated.as_slice())
    }

    /// Prompt and answer so far. Asked for in every step while there is no room, and copied only if there is an answer.
    pub(super) fn text(&self) -> Cow<'_, [u32]> {
        match self.output() {
            Some(answer) => Cow::Owned([&self.job.prompt, answer].concat()),
            None => Cow::Borrowed(&self.job.prompt),
        }
    }
}

/// A job with a place in the batch.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) job: Job,
    /// Row of the page table and of the token counts.
    pub(super) slot: u32,
    pub(super) block_table: BlockTable,
    pub(super) progress: Progress,
    /// Tokens that it came with, all but the last of which are read before the next token: the prompt, and what there was of the answer.
    num_prefill_tokens: u32,
    /// Of these, how many have their keys and values in the cache.
    pub(super) prefilled: u32,
    /// Tokens of the answer asked of the device so far.
    pub(super) issued: u32,
    /// Tokens of the answer that came back, those after the end included.
    pub(super) received: u32,
    /// Set when the answer is over; the place is freed at the next change of the batch.
    pub(super) finished: bool,
    submitted: Instant,
}

impl Sequence {
    pub(super) fn new(waiting: Waiting, slot: u32, block_table: BlockTable) -> Self {
        let Waiting { job, submitted, progress } = waiting;
        let cached = block_table.pages().len() as u32 * PAGE;
        let progress = progress.unwrap_or_else(|| {
            // A closed channel is a cancelled request: the scheduler looks for those itself.
            let _ = job.events.unbounded_send(Ok(Event::Admitted(cached)));
            Progress { generated: Vec::new(), cached, admitted: Instant::now(), first_token: None }
        });
        let generated = progress.generated.len() as u32;
        Self {
            num_prefill_tokens: job.prompt.len() as u32 + generated,
            job,
            slot,
            block_table,
            progress,
            prefilled: cached,
            issued: generated,
            received: generated,
            finished: false,
            submitted,
        }
    }

    /// Gives its place up. Nothing of it may be in flight, unless its prompt is still being read.
    pub(super) fn preempt(self) -> (Waiting, u32, BlockTable) {
        (Waiting { job: self.job, submitted: self.submitted, progress: Some(self.progress) }, self.slot, self.block_table)
    }

    pub(super) fn prompt_len(&self) -> u32 {
        self.job.prompt.len() as u32
    }

    /// When it got its place for the first time.
    pub(super) fn admitted(&self) -> Instant {
        self.progress.admitted
    }

    /// Tokens on their way into the model.
    pub(super) fn rows(&self, positions: std::ops::Range<u32>) -> Vec<Row> {
        let (prompt, answer) = (&self.job.prompt, &self.progress.generated);
        let token = |at: usize| prompt.get(at).copied().unwrap_or_else(|| answer[at - prompt.len()]);
        let row = |position: u32| Row { token: token(position as usize), position, slot: self.slot, flags: Row::ACTIVE };
        positions.map(row).collect()
    }

    /// Prompt and answer as far as their keys and values are in the cache.
    pub(super) fn computed_tokens(&self) -> Vec<u32> {
        // Each step writes those of the token that the step before it gave.
        let steps = self.prompt_len() + self.issued.saturating_sub(1);
        let end = if self.prefilling() { self.prefilled } else { steps } as usize;
        let (prompt, answer) = (&self.job.prompt, &self.progress.generated);
        let mut text = prompt[..prompt.len().min(end)].to_vec();
        text.extend(answer.iter().take(end.saturating_sub(prompt.len())));
        text
    }

    pub(super) fn prefilling(&self) -> bool {
        self.prefilled < self.num_prefill_tokens
    }

    /// Tokens that it came with and that still have to be read.
    pub(super) fn num_uncomputed(&self) -> u32 {
        self.num_prefill_tokens - self.prefilled
    }

    /// Tokens that may still be asked for.
    pub(super) fn remaining(&self) -> u32 {
        self.job.max_tokens - self.issued
    }

    pub(super) fn cancelled(&self) -> bool {
        self.job.events.is_closed()
    }

    /// Whether the next token's logits are asked for.
    pub(super) fn wants_logits(&self) -> bool {
        !self.finished && (self.progress.generated.len() as u32) < self.job.logits
    }

    /// Takes a token from the device.
    pub(super) fn accept(&mut self, token: u32) {
        if self.finished {
            return;
        }
        if token == NO_TOKEN {
            self.fail(EngineError::NotFinite);
            return;
        }
        self.progress.first_token.get_or_insert_with(Instant::now);
        if self.job.stop_tokens.contains(&token) {
            self.finish(FinishReason::Stop);
            return;
        }
        self.progress.generated.push(token);
        // A closed channel is a cancelled request: the scheduler looks for those itself.
        let _ = self.job.events.unbounded_send(Ok(Event::Token(token)));
        if self.progress.generated.len() as u32 == self.job.max_tokens {
            self.finish(FinishReason::Length);
        }
    }

    /// Ends the request with an error of its own.
    pub(super) fn fail(&mut self, error: EngineError) {
        self.finished = true;
        // A closed channel is a cancelled request: the scheduler looks for those itself.
        let _ = self.job.events.unbounded_send(Err(Rc::new(error)));
    }

    /// Ends the request.
    pub(super) fn finish(&mut self, reason: FinishReason) {
        self.finished = true;
        let now = Instant::now();
        let Progress { ref generated, cached, admitted, first_token } = self.progress;
        let first_token = first_token.unwrap_or(now);
        let timings = Timings {
            queued: admitted - self.submitted,
            prefill: first_token - admitted,
            decode: now - first_token,
            prompt_tokens: self.prompt_len(),
            cached_tokens: cached,
            completion_tokens: generated.len() as u32,
        };
        let _ = self.job.events.unbounded_send(Ok(Event::End(reason, timings)));
    }
}
