//! Continuous batching (Yu et al. 2022, Orca): sequences join and leave the batch between steps. The next submission is queued before
//! the host reads the results of the last one.
//!
//! The queue of the device orders everything: what is written to a buffer is seen by submissions from then on. So slots and pages are
//! released while steps that use them are in flight, and nothing waits for them when the batch changes.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use web_time::Instant;

use super::batch::{Sampled, Segments, Window, bucket};
use super::pages::PagePool;
use super::policy::{Class, Fit, MAX_WAITING, Next, PrefillBudget, Prompt, Queue, Running, Ticket, victim, yields};
use super::programs::{ProgramKey, Programs, State};
use super::sequence::{Event, Job, Sequence, Task, Waiting};
use crate::error::{EngineError, Result};
use crate::exec::{Executor, Pending, Program, Recording, Scope};
use crate::kernels::{Row, Sampler, Sampling};
use crate::model::{Model, Output, Pass, SEGMENT_ROWS};

/// Most submissions in flight before the host waits for the oldest.
const DEPTH: usize = 2;

/// Most decode steps in a submission: the ring has room for the tokens of all that are in flight.
const MAX_STEPS: u32 = 16;

/// Target duration of a submission: short enough for a smooth stream, long enough to amortize its cost.
const SUBMISSION_TIME: Duration = Duration::from_millis(25);

/// Positions that are reserved for an answer at admission; more are reserved step by step. The length of an answer is not known and most
/// are short, so reserving its limit would serve fewer at once.
const RESERVED_OUTPUT_TOKENS: u32 = 128;

/// Losses of the device that a request may run into before it ends: one that is their cause must not repeat them for ever.
const MAX_LOSSES: u32 = 3;

/// A submission whose results are not read back yet.
#[derive(Debug)]
struct InFlight {
    sampled: Vec<Sampled>,
    window: Window,
    /// Whether it has a prefill pass.
    prefills: bool,
    submitted: Instant,
    pending: Pending,
}

/// Runs sequences on a model.
#[derive(Debug)]
pub struct Scheduler {
    queue: Queue<Waiting>,
    budget: PrefillBudget,
    /// Sequences that prefill, in the order of admission.
    pub(super) prefilling: Vec<Sequence>,
    /// Sequences of which decode steps are to be submitted: sequence i is row i of the batch.
    decoding: Vec<Sequence>,
    /// Sequences all of whose decode steps were submitted; results are outstanding.
    finishing: Vec<Sequence>,
    /// Numbers of the sequences in the rows of the batch on the device.
    batch: Vec<u64>,
    free_slots: Vec<u32>,
    pub(super) pages: PagePool,
    in_flight: VecDeque<InFlight>,
    pub(super) programs: Programs,
    /// Decode steps of the next submission.
    steps: u32,
    sequences: u64,
    /// Prefill passes without the first admitted of those that prefill.
    passed_over: u32,
    /// Whether the last prefill pass was of a score or an embedding.
    scored: bool,
    started: Instant,
    /// When the last result was read.
    received: Instant,
}

impl Scheduler {
    /// A scheduler with its state on the device, in buffers of `scope`.
    ///
    /// # Errors
    /// When the buffers do not fit.
    pub fn new(executor: &Executor, scope: &mut Scope, model: &Model) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            queue: Queue::default(),
            budget: PrefillBudget::new(Duration::ZERO),
            prefilling: Vec::new(),
            decoding: Vec::new(),
            finishing: Vec::new(),
            batch: Vec::new(),
            free_slots: (0..model.options.sequences).rev().collect(),
            pages: PagePool::new(model.pages.pages, model.pages.windows),
            in_flight: VecDeque::new(),
            programs: Programs::new(State::create(executor, scope, model)?),
            steps: 1,
            sequences: 0,
            passed_over: 0,
            scored: false,
            started: now,
            received: now,
        })
    }

    /// Puts a job into the queue of its origin. Refused, which it is told, when too many wait there.
    pub fn push(&mut self, job: Job) {
        debug_assert!(!job.prompt.is_empty() && (job.max_tokens > 0) == (job.task == Task::Continue));
        debug_assert!(job.namespace.is_none() || job.task == Task::Continue);
        let origin = Rc::clone(&job.origin);
        let class = Class { priority: job.priority, prefill_only: job.task != Task::Continue };
        if let Err(waiting) = self.queue.push(&origin, class, Waiting::new(job)) {
            waiting.job.events.send(Err(Rc::new(EngineError::TooManyRequests { waiting: MAX_WAITING })));
        }
    }

    /// Whether there is anything to do.
    pub fn busy(&self) -> bool {
        let running = self.prefilling.len() + self.decoding.len() + self.finishing.len() + self.in_flight.len();
        running > 0 || self.queue.waiting().any(|waiting| !waiting.is_paused())
    }

    /// Whether no request is here, not even one that waits for its reader.
    pub fn is_empty(&self) -> bool {
        !self.busy() && self.queue.waiting().next().is_none()
    }

    /// Waits until the scheduler is busy because the reader of a request that waits for it has read, or gone.
    pub fn poll_readers(&self, context: &Context<'_>) -> Poll<()> {
        self.queue.waiting().for_each(|waiting| waiting.job.events.wake_on_read(context));
        if self.busy() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends every request with this error, which is returned.
    pub fn fail(&mut self, error: EngineError) -> Rc<EngineError> {
        let error = Rc::new(error);
        let running = self.take_running().into_iter().map(|sequence| sequence.job);
        for job in running.chain(self.queue.remove(|_| true).into_iter().map(|waiting| waiting.job)) {
            job.events.send(Err(Rc::clone(&error)));
        }
        self.budget = PrefillBudget::new(self.started.elapsed());
        error
    }

    /// Hands all requests to the scheduler of another device, after this one's failed with `error`: they wait there in the order that they
    /// had, and go on from the tokens that they have. A request that ran when its device failed for the [`MAX_LOSSES`]th time may be the cause:
    /// it ends with the error.
    pub fn hand_over(&mut self, next: &mut Self, error: EngineError) {
        let error = Rc::new(error);
        for sequence in self.take_running().into_iter().filter(|sequence| !sequence.finished) {
            let (mut waiting, ticket, ..) = sequence.preempt();
            if waiting.lose_device() < MAX_LOSSES {
                self.queue.requeue(ticket, waiting);
            } else {
                waiting.job.events.send(Err(Rc::clone(&error)));
            }
        }
        next.queue = std::mem::take(&mut self.queue);
    }

    /// All sequences, with nothing of them in flight: the device failed.
    fn take_running(&mut self) -> Vec<Sequence> {
        self.in_flight.clear();
        self.batch.clear();
        self.prefilling.drain(..).chain(self.decoding.drain(..)).chain(self.finishing.drain(..)).collect()
    }

    /// Admits, submits a prefill and a decode step, and reads the oldest result once [`DEPTH`] are in flight.
    ///
    /// # Errors
    /// When the device fails. The sequences stay; [`Self::fail`] ends them.
    pub async fn step(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        self.release_ended();
        self.pause_for_readers(executor, model).await?;
        self.reserve_or_preempt(executor, model).await?;
        self.admit(executor, model).await?;
        let mut submitted = self.prefill(executor, model).await?;
        submitted |= self.decode(executor, model)?;
        let depth = if self.wants_logits() { 1 } else { DEPTH };
        if !submitted {
            self.receive(executor, model).await?;
        }
        // A prefill and a decode step may have been submitted.
        while self.in_flight.len() >= depth {
            self.receive(executor, model).await?;
        }
        Ok(())
    }

    /// Releases what finished and what was cancelled. Steps in flight may still write to its pages, but run before anything that is
    /// submitted from now on.
    fn release_ended(&mut self) {
        self.queue.remove(|waiting| waiting.job.events.is_closed());
        let ended = |s: &Sequence| s.finished || s.cancelled();
        let mut all: Vec<Sequence> = self.prefilling.extract_if(.., |s| ended(s)).collect();
        all.extend(self.decoding.extract_if(.., |s| ended(s)));
        all.extend(self.finishing.extract_if(.., |s| ended(s)));
        for sequence in all {
            self.release(sequence);
        }
    }

    fn release(&mut self, sequence: Sequence) -> (Waiting, Ticket) {
        let computed = sequence.computed_tokens();
        let (waiting, ticket, slot, block_table) = sequence.preempt();
        self.free_slots.push(slot);
        self.pages.release(block_table, &computed);
        (waiting, ticket)
    }

    /// Admits waiting jobs, while slots are free and pages for the prompt and [`RESERVED_OUTPUT_TOKENS`] are available.
    async fn admit(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        loop {
            let Self { queue, pages, free_slots, .. } = self;
            let next = queue.next(|waiting| {
                if waiting.is_paused() {
                    return Fit::Paused;
                }
                if free_slots.is_empty() {
                    return Fit::NoRoom;
                }
                let (text, most) = (waiting.text(), max_positions(&waiting.job, model));
                // A preempted sequence reserves more, so that it is not preempted again at once.
                let output = if waiting.output().is_some() { 4 * RESERVED_OUTPUT_TOKENS } else { RESERVED_OUTPUT_TOKENS };
                let positions = most.min(text.len() as u32 + output);
                match pages.admit(waiting.job.namespace.clone(), &text, positions) {
                    Some(block_table) => Fit::Room { uncached: text.len() as u32 - block_table.positions(), reservation: block_table },
                    None => Fit::NoRoom,
                }
            });
            match next {
                Next::Nothing => return Ok(()),
                Next::Blocked(blocked) => {
                    let Some(i) = yields(blocked, &self.running()) else { return Ok(()) };
                    self.preempt(executor, model, i).await?;
                }
                Next::Admitted { ticket, request: mut waiting, reservation: block_table } => {
                    let Some(slot) = self.free_slots.pop() else { return Ok(()) };
                    waiting.job.max_tokens = max_positions(&waiting.job, model) - waiting.job.prompt.len() as u32;
                    write_pages(&self.pages, executor, model, slot, 0, block_table.pages());
                    if waiting.job.sampling.penalizes() {
                        let vocab = model.spec.vocab as usize;
                        let counts = Sampling::counts(&waiting.job.prompt, waiting.output().unwrap_or_default(), vocab);
                        executor.write(self.programs.state.counts, u64::from(slot) * 4 * vocab as u64, bytemuck::cast_slice(&counts));
                    }
                    self.sequences += 1;
                    self.prefilling.push(Sequence::new(waiting, ticket, self.sequences, slot, block_table));
                }
            }
        }
    }

    /// Those that could be preempted: the ones that prefill, then the ones that decode.
    fn running(&self) -> Vec<Running<'_>> {
        self.prefilling.iter().chain(&self.decoding).map(|sequence| Running { ticket: &sequence.ticket, paused: false }).collect()
    }

    /// Preempts a sequence of [`Self::running`], whose cache is recomputed later.
    async fn preempt(&mut self, executor: &Executor, model: &Model, index: usize) -> Result<()> {
        let number = self.prefilling.iter().chain(&self.decoding).nth(index).map(|sequence| sequence.number);
        // Its tokens in flight are part of what is computed again.
        self.drain(executor, model).await?;
        let is_it = |sequence: &Sequence| Some(sequence.number) == number;
        let mut preempted: Vec<Sequence> = self.prefilling.extract_if(.., |s| is_it(s)).collect();
        preempted.extend(self.decoding.extract_if(.., |s| is_it(s)));
        for sequence in preempted {
            let finished = sequence.finished;
            let (waiting, ticket) = self.release(sequence);
            if !finished {
                self.queue.requeue(ticket, waiting);
            }
        }
        Ok(())
    }

    /// Preempts sequences whose readers are far behind: the others get their places, and what nobody reads is not computed.
    async fn pause_for_readers(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        while let Some(i) = self.prefilling.iter().chain(&self.decoding).position(Sequence::outruns_reader) {
            self.preempt(executor, model, i).await?;
        }
        Ok(())
    }

    /// Reserves pages for the next submission of every sequence of the batch. Where too few are available, a sequence is preempted.
    async fn reserve_or_preempt(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        let mut row = 0;
        while let Some(sequence) = self.decoding.get_mut(row) {
            let positions = sequence.prompt_len() + (sequence.issued + MAX_STEPS).min(sequence.job.max_tokens);
            if self.pages.reserve(&mut sequence.block_table, positions) {
                row += 1;
                continue;
            }
            // Pages of those that end with what is in flight come first.
            if self.finishing.is_empty() {
                let Some(i) = victim(&self.running()) else { break };
                self.preempt(executor, model, i).await?;
            } else {
                self.drain(executor, model).await?;
            }
            self.release_ended();
            row = 0;
        }
        Ok(())
    }

    /// Submits a prefill pass: chunks of the prompts as the policy shares its rows. Sequences whose prompt ends with it join the batch and
    /// sample their first token.
    async fn prefill(&mut self, executor: &Executor, model: &Model) -> Result<bool> {
        let most = model.options.prefill_rows;
        let prompts: Vec<Prompt> = self.prefilling.iter().take(Segments::runs(most)).map(Sequence::prompt).collect();
        let Some(shares) = self.budget.compose(self.started.elapsed(), !self.decoding.is_empty(), &prompts, most) else {
            return Ok(false);
        };
        let alone = self.prefilling.iter().zip(&shares).position(|(sequence, rows)| sequence.job.task != Task::Continue && *rows > 0);
        // In turn with conversations.
        let converses = self.prefilling.iter().any(|sequence| sequence.job.task == Task::Continue);
        let scores = alone.filter(|_| !(converses && self.scored));
        self.scored = scores.is_some();
        if let Some(index) = scores {
            self.drain(executor, model).await?;
            let begin = Instant::now();
            if self.prefilling[index].job.task == Task::Score {
                self.score(executor, model, index).await?;
            } else {
                self.embed(executor, model, index, shares.iter().sum()).await?;
            }
            self.budget.completed(begin.elapsed());
            return Ok(true);
        }
        let mut segments = Segments::default();
        let mut ends = Vec::new();
        let (run, chosen) = self.choose_runs(shares.iter().sum(), most);
        for (index, rows) in chosen {
            let sequence = &mut self.prefilling[index];
            let begin = sequence.prefilled;
            sequence.prefilled += rows;
            allocate_pages(&mut self.pages, executor, model, sequence, begin..begin + rows);
            let last = segments.push(sequence.rows(begin..begin + rows));
            let computed = sequence.computed_tokens();
            self.pages.insert(&mut sequence.block_table, &computed);
            if !sequence.prefilling() {
                ends.push(last);
            }
        }
        let rows = bucket(segments.len(), most);
        executor.write(model.buffers.prefill_rows, 0, bytemuck::cast_slice(&segments.padded(rows)));
        if ends.is_empty() {
            let pass = ProgramKey::Pass(Pass { run, ..Pass::prefill(rows, Output::Cache) });
            let pass = self.programs.get(executor, model, pass);
            // It samples no token, but counts as in flight: a long prompt must not fill the device's queue.
            self.submit(executor, &[&pass], Vec::new(), true)?;
            return Ok(true);
        }
        let outputs = bucket(ends.len() as u32, model.options.sequences);
        ends.resize(outputs as usize, 0);
        executor.write(model.buffers.output_numbers, 0, bytemuck::cast_slice(&ends));
        let (sampled, draws) = self.join(executor, outputs);
        self.write_sources(executor, model);
        let pass = Pass { run, ..Pass::prefill(rows, Output::SomeLogits(outputs)) };
        let keys = [ProgramKey::Pass(pass), ProgramKey::Sample { joining: true, rows: outputs, draws }, ProgramKey::BatchRows];
        let programs = keys.map(|key| self.programs.get(executor, model, key));
        self.submit(executor, &programs.each_ref().map(|program| &**program), sampled, true)?;
        self.set_finishing_aside();
        Ok(true)
    }

    /// The runs of a pass of about `rows`, as places in [`Self::prefilling`] with their rows, and the bucket that they all have: see
    /// [`Pass::run`]. Whole prompts, the shortest first; or a chunk of the first admitted, alone, where no prompt is that short, or where
    /// shorter ones went before it twice.
    fn choose_runs(&mut self, rows: u32, most: u32) -> (u32, Vec<(usize, u32)>) {
        const PASSED_OVER: u32 = 2;
        let remaining = |i: usize| self.prefilling[i].num_uncomputed();
        let continues = |i: &usize| self.prefilling[*i].job.task == Task::Continue;
        let all = || (0..self.prefilling.len()).filter(continues);
        let first = all().next().unwrap_or(0);
        let shortest = all().map(remaining).min().filter(|shortest| *shortest <= rows && self.passed_over < PASSED_OVER);
        let run = bucket(shortest.unwrap_or(rows.min(remaining(first))), most);
        let mut chosen = Vec::new();
        if shortest.is_some() {
            let (mut left, mut room) = (rows, most);
            // Kernels of fewer rows add in another order than those of a pass with several runs: such a prompt has a pass of its own.
            let places = if run < SEGMENT_ROWS { 1 } else { self.prefilling.len() };
            for i in all().filter(|i| bucket(remaining(*i), most) == run) {
                if chosen.len() < places && remaining(i) <= left.min(room) {
                    chosen.push((i, remaining(i)));
                    left -= remaining(i);
                    room = room.saturating_sub(remaining(i).next_multiple_of(SEGMENT_ROWS));
                }
            }
        } else {
            chosen.push((first, rows.min(remaining(first))));
        }
        let includes_first = chosen.iter().any(|(i, _)| *i == first);
        self.passed_over = if includes_first { 0 } else { self.passed_over + 1 };
        (run, chosen)
    }

    /// Moves the sequences whose prompt is computed to the batch, and writes their rows. Returns where their first tokens will be, and
    /// whether one of them draws from all tokens.
    fn join(&mut self, executor: &Executor, outputs: u32) -> (Vec<Sampled>, bool) {
        let joining: Vec<Sequence> = self.prefilling.extract_if(.., |sequence| !sequence.prefilling()).collect();
        let mut rows = vec![Row::default(); outputs as usize];
        let mut sampled = Vec::new();
        let draws = joining.iter().any(|sequence| sequence.job.sampling.draws_from_all());
        for (number, mut sequence) in joining.into_iter().enumerate() {
            rows[number] = sequence.first_row();
            let sampler = Sampler { step: sequence.issued, ..sequence.job.sampling };
            let at = u64::from(sequence.slot) * size_of::<Sampler>() as u64;
            executor.write(self.programs.state.samplers, at, bytemuck::bytes_of(&sampler));
            sampled.push(sequence.issue(number as u32, 1));
            self.decoding.push(sequence);
        }
        executor.write(self.programs.state.joining, 0, bytemuck::cast_slice(&rows));
        (sampled, draws)
    }

    /// Writes where the rows of the batch come from: rows that the device has already, or those that join, in order.
    fn write_sources(&mut self, executor: &Executor, model: &Model) {
        let capacity = model.options.sequences;
        let mut joining = capacity..;
        let source = |sequence: &Sequence| match self.batch.iter().position(|number| *number == sequence.number) {
            Some(row) => row as u32,
            None => joining.next().unwrap_or(u32::MAX),
        };
        let mut sources: Vec<u32> = self.decoding.iter().map(source).collect();
        sources.resize(capacity as usize, u32::MAX);
        executor.write(self.programs.state.sources, 0, bytemuck::cast_slice(&sources));
        self.batch = self.decoding.iter().map(|sequence| sequence.number).collect();
    }

    /// Submits decode steps for the batch. A row whose answer reaches its limit before the last of them becomes inactive by itself.
    fn decode(&mut self, executor: &Executor, model: &Model) -> Result<bool> {
        let Some(remaining) = self.decoding.iter().map(Sequence::remaining).max() else { return Ok(false) };
        let wants_logits = self.wants_logits();
        if wants_logits && !self.in_flight.is_empty() {
            return Ok(false);
        }
        // Fewer where pages could not be reserved: those who have them end soon.
        let reserved = self.decoding.iter().map(Sequence::reserved).min().unwrap_or(0);
        let steps = if wants_logits { 1 } else { self.steps.min(remaining) }.min(reserved);
        if steps == 0 {
            return Ok(false);
        }
        let mut programs = Vec::new();
        if !self.batch.iter().eq(self.decoding.iter().map(|sequence| &sequence.number)) {
            self.write_sources(executor, model);
            programs.push(self.programs.get(executor, model, ProgramKey::BatchRows));
        }
        let rows = bucket(self.decoding.len() as u32, model.options.sequences);
        let mut sampled = Vec::new();
        let mut positions = 1;
        for (row, sequence) in self.decoding.iter_mut().enumerate() {
            let begin = sequence.prompt_len() + sequence.issued;
            sampled.push(sequence.issue(row as u32, steps.min(sequence.remaining())));
            let end = sequence.prompt_len() + sequence.issued;
            allocate_pages(&mut self.pages, executor, model, sequence, begin.saturating_sub(1)..end);
            positions = positions.max(end);
        }
        let draws = self.decoding.iter().any(|sequence| sequence.job.sampling.draws_from_all());
        let pass = ProgramKey::Pass(model.decode_pass(rows, positions.min(model.options.context)));
        let step = [pass, ProgramKey::Sample { joining: false, rows, draws }].map(|key| self.programs.get(executor, model, key));
        programs.extend(std::iter::repeat_n(step, steps as usize).flatten());
        let programs: Vec<&Program> = programs.iter().map(|program| &**program).collect();
        self.submit(executor, &programs, sampled, false)?;
        self.set_finishing_aside();
        Ok(true)
    }

    /// Whether logits are to be read before anything else is submitted.
    fn wants_logits(&self) -> bool {
        self.decoding.iter().chain(&self.finishing).any(Sequence::wants_logits)
    }

    /// Sequences without further steps leave the batch.
    fn set_finishing_aside(&mut self) {
        self.finishing.extend(self.decoding.extract_if(.., |sequence| sequence.remaining() == 0));
    }

    fn submit(&mut self, executor: &Executor, programs: &[&Program], sampled: Vec<Sampled>, prefills: bool) -> Result<()> {
        let window = Window::of(&sampled);
        let pending =
            executor.submit_and_read(programs, self.programs.state.sampled, 4 * u64::from(window.first), 4 * u64::from(window.count))?;
        self.in_flight.push_back(InFlight { sampled, window, prefills, submitted: Instant::now(), pending });
        Ok(())
    }

    pub(super) async fn drain(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.receive(executor, model).await?;
        }
        Ok(())
    }

    /// Reads the oldest result and sends its tokens.
    async fn receive(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        let Some(InFlight { sampled, window, prefills, submitted, pending }) = self.in_flight.pop_front() else { return Ok(()) };
        let bytes = pending.wait().await?;
        // What was submitted before it ran before it.
        let duration = self.received.max(submitted).elapsed();
        self.received = Instant::now();
        let tokens: &[u32] = bytemuck::cast_slice(&bytes);
        for sampled in &sampled {
            let running = self.decoding.iter_mut().chain(&mut self.finishing).find(|sequence| sequence.number == sampled.sequence);
            // Others were cancelled or have ended.
            let Some(sequence) = running else { continue };
            if sequence.wants_logits() {
                // Nothing was submitted since: one submission at a time is in flight while logits are wanted.
                let row_bytes = 4 * u64::from(model.spec.vocab);
                let pending = executor.submit_and_read(&[], model.buffers.logits, u64::from(sampled.row) * row_bytes, row_bytes)?;
                let logits = bytemuck::pod_collect_to_vec(&pending.wait().await?);
                sequence.job.events.send(Ok(Event::Logits(logits)));
            }
            for i in 0..sampled.count {
                sequence.accept(tokens[window.place(sampled, i)]);
            }
            sequence.ticket.charge_output(sampled.count);
        }
        if prefills {
            self.budget.completed(duration);
        } else if duration < SUBMISSION_TIME / 2 {
            self.steps = (self.steps * 2).min(MAX_STEPS);
        } else if duration > SUBMISSION_TIME {
            self.steps = (self.steps / 2).max(1);
        }
        Ok(())
    }

    /// Recordings of single requests by the kernel variants that they need: those of every request, and those of very short and long
    /// prompts, long contexts, random sampling and concurrent answers.
    pub fn usual_recordings(&self, model: &Model) -> [Vec<Recording>; 2] {
        self.programs.usual_recordings(model)
    }
}

/// The most positions of a job.
fn max_positions(job: &Job, model: &Model) -> u32 {
    (job.prompt.len() as u32).saturating_add(job.max_tokens).min(model.options.context)
}

/// Allocates a sequence's pages for a pass over these positions.
pub(super) fn allocate_pages(pages: &mut PagePool, executor: &Executor, model: &Model, sequence: &mut Sequence, positions: Range<u32>) {
    let first = sequence.block_table.pages().len();
    pages.slide(&mut sequence.block_table, positions.start);
    pages.allocate(&mut sequence.block_table, positions.end);
    write_pages(pages, executor, model, sequence.slot, first, &sequence.block_table.pages()[first..]);
}

/// Writes a part of a block table on the device, from page number `first` of the sequence on.
fn write_pages(pool: &PagePool, executor: &Executor, model: &Model, slot: u32, first: usize, pages: &[u32]) {
    if pages.is_empty() {
        return;
    }
    let at = 4 * (u64::from(slot) * u64::from(model.pages.per_slot) + first as u64);
    executor.write(model.buffers.pages, at, bytemuck::cast_slice(pages));
    if let (Some(buffer), Some(pages)) = (model.buffers.window_pages, pool.window_pages(pages)) {
        executor.write(buffer, at, bytemuck::cast_slice(&pages));
    }
}
