//! One request on its way through the scheduler.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use web_time::Instant;

use super::batch::{RING, Sampled};
use super::events::EventSender;
use super::pages::BlockTable;
use super::policy::{Priority, Prompt, Ticket, is_paused};
use crate::error::EngineError;
use crate::kernels::{NO_TOKEN, Row, Sampler};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model sampled a stop token.
    Stop,
    /// The limit on tokens or the end of the context.
    Length,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for a slot.
    pub queued: Duration,
    /// From admission to the first token.
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

/// Events of a request, from the scheduler to its owner.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request was admitted, with this many tokens of its prompt in the cache.
    Admitted(u32),
    /// The logits that the next token was sampled from, when the job asked for them.
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

/// The result that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A continuation.
    Continue,
    /// The likelihood of each token of the prompt after those before it.
    Score,
    /// One vector for the whole prompt.
    Embed,
}

/// A request: a prompt and where its tokens go. Dropping the receiver cancels it.
#[derive(Debug)]
pub struct Job {
    /// The result that is asked for.
    pub task: Task,
    /// Token ids; not empty, no longer than the context, and shorter if it is to be continued.
    pub prompt: Vec<u32>,
    /// The beginning of the answer, where an engine before this one gave it: fewer tokens than `max_tokens`, of which no event is sent.
    pub answered: Vec<u32>,
    /// Namespace of the prefix cache. Without one the whole prompt is computed and nothing of it is kept. `None` unless the prompt is to be
    /// continued.
    pub namespace: Option<Rc<str>>,
    /// Who asks: requests of one origin share what is due to it.
    pub origin: Rc<str>,
    /// Whether somebody looks at the answer as it comes.
    pub priority: Priority,
    /// At most this many new tokens; 0 unless it is to be continued.
    pub max_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Rc<[u32]>,
    /// How its tokens are sampled. The scheduler sets `step`.
    pub sampling: Sampler,
    /// Send the logits of this many first tokens. The whole batch waits for them: for checks, not for serving.
    pub logits: u32,
    /// Where events go.
    pub events: EventSender,
}

/// Progress of an admitted request; survives preemption.
#[derive(Debug)]
pub(super) struct Progress {
    /// The tokens of the answer.
    pub(super) generated: Vec<u32>,
    /// Scores that were sent.
    pub(super) scored: u32,
    /// The part of the embedding that the chunks so far make.
    pub(super) embedding: Vec<f32>,
    /// Prompt tokens that were in the cache before.
    cached: u32,
    admitted: Instant,
    first_token: Option<Instant>,
    /// How often the device failed meanwhile.
    losses: u32,
}

impl Progress {
    /// The progress of a request that begins now, with these tokens of its answer.
    fn begin(generated: Vec<u32>, cached: u32) -> Self {
        Self { generated, scored: 0, embedding: Vec::new(), cached, admitted: Instant::now(), first_token: None, losses: 0 }
    }
}

/// A job that waits for admission.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    submitted: Instant,
    /// Its progress before it was preempted.
    progress: Option<Progress>,
}

impl Waiting {
    pub(super) fn new(job: Job) -> Self {
        Self { job, submitted: Instant::now(), progress: None }
    }

    /// Notes that the device failed while it ran; how often it did.
    pub(super) fn lose_device(&mut self) -> u32 {
        self.progress.as_mut().map_or(0, |progress| {
            progress.losses += 1;
            progress.losses
        })
    }

    /// Whether it waits for its reader.
    pub(super) fn is_paused(&self) -> bool {
        is_paused(true, self.job.events.unread()) && !self.job.events.is_closed()
    }

    /// The answer so far; `None`: it has not begun.
    pub(super) fn output(&self) -> Option<&[u32]> {
        let answered = Some(self.job.answered.as_slice()).filter(|answered| !answered.is_empty());
        self.progress.as_ref().map(|progress| progress.generated.as_slice()).or(answered)
    }

    /// Prompt and answer so far: the tokens to prefill. Called in every step while no pages are available, so it copies only where there
    /// is an answer.
    pub(super) fn text(&self) -> Cow<'_, [u32]> {
        match self.output() {
            Some(answer) => Cow::Owned([&self.job.prompt, answer].concat()),
            None => Cow::Borrowed(&self.job.prompt),
        }
    }
}

/// An admitted job.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) job: Job,
    pub(super) ticket: Ticket,
    /// No other sequence has it, not even one of the same job.
    pub(super) number: u64,
    /// Row of the block tables, samplers, token counts and sampled tokens.
    pub(super) slot: u32,
    pub(super) block_table: BlockTable,
    pub(super) progress: Progress,
    /// Tokens to prefill: the prompt and, after preemption, the answer up to then.
    num_prefill_tokens: u32,
    /// The first of these whose keys and values are in the cache.
    pub(super) prefilled: u32,
    /// Tokens of the answer whose decode steps were submitted.
    pub(super) issued: u32,
    /// Set when the answer is complete.
    pub(super) finished: bool,
    submitted: Instant,
}

impl Sequence {
    pub(super) fn new(waiting: Waiting, ticket: Ticket, number: u64, slot: u32, block_table: BlockTable) -> Self {
        let Waiting { mut job, submitted, progress } = waiting;
        let cached = block_table.positions();
        let progress = progress.unwrap_or_else(|| {
            job.events.send(Ok(Event::Admitted(cached)));
            Progress::begin(std::mem::take(&mut job.answered), cached)
        });
        let generated = progress.generated.len() as u32;
        Self {
            num_prefill_tokens: job.prompt.len() as u32 + generated,
            job,
            ticket,
            number,
            slot,
            block_table,
            progress,
            prefilled: cached,
            issued: generated,
            finished: false,
            submitted,
        }
    }

    /// Releases slot and block table; the job waits for admission again. Nothing but prefill steps may be in flight.
    pub(super) fn preempt(self) -> (Waiting, Ticket, u32, BlockTable) {
        let Self { job, ticket, slot, block_table, progress, submitted, .. } = self;
        (Waiting { job, submitted, progress: Some(progress) }, ticket, slot, block_table)
    }

    pub(super) fn prompt_len(&self) -> u32 {
        self.job.prompt.len() as u32
    }

    /// The model's input rows for these positions.
    pub(super) fn rows(&self, positions: std::ops::Range<u32>) -> Vec<Row> {
        let (prompt, answer) = (&self.job.prompt, &self.progress.generated);
        let token = |at: usize| prompt.get(at).copied().unwrap_or_else(|| answer[at - prompt.len()]);
        let remaining = |position| self.num_prefill_tokens - position;
        let row = |position: u32| Row { token: token(position as usize), position, slot: self.slot, remaining: remaining(position) };
        positions.map(row).collect()
    }

    /// The row that samples its first token: at the last position that was prefilled, as sampling advances the position by one.
    pub(super) fn first_row(&self) -> Row {
        Row { token: 0, position: self.num_prefill_tokens - 1, slot: self.slot, remaining: self.remaining() }
    }

    /// Counts steps that are submitted; their logits are in this row.
    pub(super) fn issue(&mut self, row: u32, count: u32) -> Sampled {
        let first = self.issued % RING;
        self.issued += count;
        Sampled { sequence: self.number, slot: self.slot, row, first, count }
    }

    /// As the policy sees it while it prefills.
    pub(super) fn prompt(&self) -> Prompt<'_> {
        Prompt {
            ticket: &self.ticket,
            total: self.num_prefill_tokens - self.progress.cached.min(self.num_prefill_tokens),
            remaining: self.num_uncomputed(),
        }
    }

    /// Decode steps for which it has pages.
    pub(super) fn reserved(&self) -> u32 {
        self.block_table.reserved_positions() - self.prompt_len() - self.issued
    }

    /// The tokens whose keys and values are in the cache.
    pub(super) fn computed_tokens(&self) -> Vec<u32> {
        // A decode step writes the keys and values of the token that the step before it sampled.
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

    /// Tokens that are still to be prefilled.
    pub(super) fn num_uncomputed(&self) -> u32 {
        self.num_prefill_tokens - self.prefilled
    }

    /// Decode steps that may still be submitted.
    pub(super) fn remaining(&self) -> u32 {
        self.job.max_tokens - self.issued
    }

    /// Whether its reader is so far behind that it stops decoding.
    pub(super) fn outruns_reader(&self) -> bool {
        !self.finished && is_paused(false, self.job.events.unread())
    }

    pub(super) fn cancelled(&self) -> bool {
        self.job.events.is_closed()
    }

    /// Whether the next token's logits are asked for.
    pub(super) fn wants_logits(&self) -> bool {
        !self.finished && (self.progress.generated.len() as u32) < self.job.logits
    }

    /// Handles a sampled token.
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
        self.job.events.send(Ok(Event::Token(token)));
        if self.progress.generated.len() as u32 == self.job.max_tokens {
            self.finish(FinishReason::Length);
        }
    }

    /// Ends the request with an error of its own.
    pub(super) fn fail(&mut self, error: EngineError) {
        self.finished = true;
        self.job.events.send(Err(Rc::new(error)));
    }

    /// Ends the request.
    pub(super) fn finish(&mut self, reason: FinishReason) {
        self.finished = true;
        let now = Instant::now();
        let Progress { ref generated, cached, admitted, first_token, .. } = self.progress;
        let first_token = first_token.unwrap_or(now);
        let timings = Timings {
            queued: admitted - self.submitted,
            prefill: first_token - admitted,
            decode: now - first_token,
            prompt_tokens: self.prompt_len(),
            cached_tokens: cached,
            completion_tokens: generated.len() as u32,
        };
        self.job.events.send(Ok(Event::End(reason, timings)));
    }
}
