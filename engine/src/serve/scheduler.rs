//! Continuous batching (Yu et al. 2022, Orca): sequences join and leave the batch between steps. The next submission is queued before
//! the host reads the results of the last one.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use web_time::Instant;

use super::pages::PagePool;
use super::sequence::{Event, Job, Sequence, Task, Waiting};
use crate::error::{EngineError, Result};
use crate::exec::{BufferId, Executor, Pending, Program, Recording, Scope};
use crate::kernels::{Group, Row, SampleBindings, Sampler, Sampling};
use crate::model::{Attend, Model, Output, Pass};

/// Sampled tokens of each row that the device keeps for readback.
const RING: u32 = 64;

/// Most submissions in flight before the host waits for the oldest.
const DEPTH: usize = 2;

/// Most decode steps in a submission; the ring has room for all their tokens.
const MAX_STEPS: u32 = 16;

/// Target duration of a submission: short enough for a smooth stream, long enough to amortize its cost.
const SUBMISSION_TIME: Duration = Duration::from_millis(25);

/// Positions that are reserved for an answer at admission; more are reserved step by step. The length of an answer is not known and most
/// are short, so reserving its limit would serve fewer at once.
const RESERVED_OUTPUT_TOKENS: u32 = 128;

/// Most rows of a prefill step while sequences decode: they wait for it.
const PREFILL_CHUNK_WITH_DECODE: u32 = 256;

/// Losses of the device that a request may run into before it ends: one that is their cause must not repeat them for ever.
const MAX_LOSSES: u32 = 3;

/// A submission whose tokens are not read back yet.
#[derive(Debug)]
struct InFlight {
    /// First row and number of rows.
    rows: (u32, u32),
    /// Tokens of each row.
    steps: u32,
    /// Whether only these tokens are read back, or each row's whole ring.
    exact: bool,
    submitted: Instant,
    pending: Pending,
}

/// Runs sequences on a model.
#[derive(Debug)]
pub struct Scheduler {
    waiting: VecDeque<Waiting>,
    /// Sequences that prefill, in the order of admission.
    pub(super) prefilling: VecDeque<Sequence>,
    /// Sequence i is row i of the decode batch.
    decoding: Vec<Sequence>,
    free_slots: Vec<u32>,
    pub(super) pages: PagePool,
    in_flight: VecDeque<InFlight>,
    programs: HashMap<ProgramKey, Rc<Program>>,
    steps: u32,
    samplers: BufferId,
    counts: BufferId,
    groups: BufferId,
    sampled: BufferId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProgramKey {
    /// Forward pass.
    Pass(Pass),
    /// Sampling of these rows; `draws`: some of them draw from all tokens.
    Sample { first_row: u32, rows: u32, draws: bool },
}

impl Scheduler {
    /// A scheduler with its state on the device, in buffers of `scope`.
    ///
    /// # Errors
    /// When the buffers do not fit.
    pub fn new(executor: &Executor, scope: &mut Scope, model: &Model) -> Result<Self> {
        let sequences = model.options.sequences;
        let vocab = model.spec.vocab;
        Ok(Self {
            waiting: VecDeque::new(),
            prefilling: VecDeque::new(),
            decoding: Vec::new(),
            free_slots: (0..sequences).rev().collect(),
            pages: PagePool::new(model.page_count),
            in_flight: VecDeque::new(),
            programs: HashMap::new(),
            steps: 1,
            samplers: scope.create_buffer(executor, "samplers", u64::from(sequences) * size_of::<Sampler>() as u64)?,
            counts: scope.create_buffer(executor, "token counts", 4 * u64::from(sequences) * u64::from(vocab))?,
            groups: scope.create_buffer(
                executor,
                "token groups",
                u64::from(sequences) * u64::from(Sampling::groups(vocab)) * size_of::<Group>() as u64,
            )?,
            sampled: scope.create_buffer(executor, "sampled", 4 * u64::from(sequences) * u64::from(RING))?,
        })
    }

    /// Puts a job into the queue.
    pub fn push(&mut self, job: Job) {
        debug_assert!(!job.prompt.is_empty() && (job.max_tokens > 0) == (job.task == Task::Continue));
        debug_assert!(job.namespace.is_none() || job.task == Task::Continue);
        self.waiting.push_back(Waiting::new(job));
    }

    /// Whether there is anything to do.
    pub fn busy(&self) -> bool {
        !(self.waiting.is_empty() && self.prefilling.is_empty() && self.decoding.is_empty() && self.in_flight.is_empty())
    }

    /// Ends every request with this error, which is returned.
    pub fn fail(&mut self, error: EngineError) -> Rc<EngineError> {
        let error = Rc::new(error);
        let sequences = self.prefilling.drain(..).chain(self.decoding.drain(..)).map(|s| s.job);
        for job in sequences.chain(self.waiting.drain(..).map(|waiting| waiting.job)) {
            let _ = job.events.unbounded_send(Err(Rc::clone(&error)));
        }
        self.in_flight.clear();
        error
    }

    /// Hands all requests to the scheduler of another device, after this one's failed with `error`: they wait there in the order that they
    /// had, and go on from the tokens that they have. A request that ran when its device failed for the [`MAX_LOSSES`]th time may be the cause:
    /// it ends with the error.
    pub fn hand_over(&mut self, next: &mut Self, error: EngineError) {
        self.in_flight.clear();
        let error = Rc::new(error);
        let mut running: Vec<Sequence> = self.prefilling.drain(..).chain(self.decoding.drain(..)).filter(|s| !s.finished).collect();
        running.sort_by_key(Sequence::admitted);
        for sequence in running {
            let (mut waiting, ..) = sequence.preempt();
            if waiting.lose_device() < MAX_LOSSES {
                next.waiting.push_back(waiting);
            } else {
                let _ = waiting.job.events.unbounded_send(Err(Rc::clone(&error)));
            }
        }
        next.waiting.append(&mut self.waiting);
    }

    /// Admits, submits a prefill and a decode step, and reads the oldest result once [`DEPTH`] are in flight.
    ///
    /// # Errors
    /// When the device fails. The sequences stay; [`Self::fail`] ends them.
    pub async fn step(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        self.drop_cancelled();
        if self.decoding.iter().any(|s| s.finished) {
            self.drain(executor, model).await?;
            self.retire(executor, model);
        }
        self.admit(executor, model);
        let mut submitted = self.prefill(executor, model).await?;
        self.reserve_or_preempt(executor, model).await?;
        submitted |= self.decode(executor, model)?;
        let depth = if self.decoding.iter().any(Sequence::wants_logits) { 1 } else { DEPTH };
        if !submitted {
            self.receive(executor, model).await?;
        }
        // A prefill and a decode step may have been submitted.
        while self.in_flight.len() >= depth {
            self.receive(executor, model).await?;
        }
        Ok(())
    }

    fn drop_cancelled(&mut self) {
        self.waiting.retain(|waiting| !waiting.job.events.is_closed());
        for sequence in &mut self.decoding {
            sequence.finished |= sequence.cancelled();
        }
        let (cancelled, live) = self.prefilling.drain(..).partition::<Vec<_>, _>(Sequence::cancelled);
        self.prefilling = live.into();
        // Steps in flight may still write to these pages, but run before anything that is submitted from now on.
        for sequence in cancelled {
            self.release(sequence);
        }
    }

    pub(super) fn release(&mut self, sequence: Sequence) -> Waiting {
        let computed = sequence.computed_tokens();
        let (waiting, slot, block_table) = sequence.preempt();
        self.free_slots.push(slot);
        self.pages.release(block_table, &computed);
        waiting
    }

    /// Releases finished sequences and compacts the batch. Nothing may be in flight.
    fn retire(&mut self, executor: &Executor, model: &Model) {
        let (finished, live) = self.decoding.drain(..).partition::<Vec<_>, _>(|s| s.finished);
        self.decoding = live;
        for sequence in finished {
            self.release(sequence);
        }
        for row in 0..self.decoding.len() {
            self.write_row(executor, model, row as u32);
        }
    }

    /// Admits waiting jobs in order, while slots are free and pages for the prompt and [`RESERVED_OUTPUT_TOKENS`] are available.
    fn admit(&mut self, executor: &Executor, model: &Model) {
        while let (Some(waiting), Some(&slot)) = (self.waiting.front(), self.free_slots.last()) {
            let (job, text) = (&waiting.job, waiting.text());
            let most = (job.prompt.len() as u32).saturating_add(job.max_tokens).min(model.options.context);
            // A preempted sequence reserves more, so that it is not preempted again at once.
            let output = if waiting.output().is_some() { 4 * RESERVED_OUTPUT_TOKENS } else { RESERVED_OUTPUT_TOKENS };
            let reserved = most.min(text.len() as u32 + output);
            let Some(block_table) = self.pages.admit(job.namespace.clone(), &text, reserved) else { return };
            self.free_slots.pop();
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            let job = &mut waiting.job;
            job.max_tokens = most - job.prompt.len() as u32;
            write_pages(executor, model, slot, 0, block_table.pages());
            if job.sampling.penalizes() {
                let vocab = model.spec.vocab as usize;
                let counts = Sampling::counts(&waiting.job.prompt, waiting.output().unwrap_or_default(), vocab);
                executor.write(self.counts, u64::from(slot) * 4 * vocab as u64, bytemuck::cast_slice(&counts));
            }
            self.prefilling.push_back(Sequence::new(waiting, slot, block_table));
        }
    }

    /// Reserves pages for the next submission of every sequence of the batch. Where too few are available, preempts the most recently
    /// admitted sequence, whose cache is recomputed later; the first admitted always proceeds.
    async fn reserve_or_preempt(&mut self, executor: &Executor, model: &Model) -> Result<()> {
        let mut row = 0;
        while let Some(sequence) = self.decoding.get_mut(row) {
            let positions = sequence.prompt_len() + (sequence.issued + MAX_STEPS).min(sequence.job.max_tokens);
            if sequence.finished || self.pages.reserve(&mut sequence.block_table, positions) {
                row += 1;
            } else {
                if self.in_flight.is_empty() && self.decoding.iter().all(|sequence| !sequence.finished) {
                    self.preempt_last();
                }
                self.drain(executor, model).await?;
                self.retire(executor, model);
                row = 0;
            }
        }
        Ok(())
    }

    /// Preempts the most recently admitted sequence. Nothing may be in flight.
    fn preempt_last(&mut self) {
        // Scoring and embedding have sent a part of their result, and never need more pages than they reserved.
        let prefilling = self.prefilling.iter().enumerate().filter(|(_, sequence)| sequence.job.task == Task::Continue);
        let prefilling = prefilling.map(|(i, sequence)| (sequence.admitted(), false, i));
        let decoding = self.decoding.iter().enumerate().map(|(row, sequence)| (sequence.admitted(), true, row));
        let last = match prefilling.chain(decoding).max() {
            Some((_, true, row)) => Some(self.decoding.remove(row)),
            Some((_, false, i)) => self.prefilling.remove(i),
            None => None,
        };
        if let Some(sequence) = last {
            let waiting = self.release(sequence);
            self.waiting.push_front(waiting);
        }
    }

    /// Submits the next prefill chunk of the oldest prompt; with the last chunk the sequence joins the batch and samples its first token.
    async fn prefill(&mut self, executor: &Executor, model: &Model) -> Result<bool> {
        let Some(sequence) = self.prefilling.front_mut() else { return Ok(false) };
        if sequence.job.task != Task::Continue {
            return self.score_or_embed(executor, model).await;
        }
        let begin = sequence.prefilled;
        let [alone, with_decode] = max_prefill_rows(model);
        let rows = sequence.num_uncomputed().min(if self.decoding.is_empty() { alone } else { with_decode });
        sequence.prefilled += rows;
        allocate_pages(&mut self.pages, executor, model, sequence, begin + rows);
        let data = sequence.rows(begin..begin + rows);
        if sequence.prefilling() {
            let computed = sequence.computed_tokens();
            self.pages.insert(&mut sequence.block_table, &computed);
            executor.write(model.buffers.prefill_rows, 0, bytemuck::cast_slice(&data));
            let program = self.program(executor, model, ProgramKey::Pass(Pass { rows, attend: Attend::Prefill, output: Output::Cache }));
            // It samples no token, but counts as in flight: a long prompt must not fill the device's queue.
            self.submit(executor, &[&program], (0, 0), 0)?;
            return Ok(true);
        }
        // The batch changes.
        self.drain(executor, model).await?;
        let Some(mut sequence) = self.prefilling.pop_front() else { return Ok(false) };
        sequence.issued += 1;
        let computed = sequence.computed_tokens();
        self.pages.insert(&mut sequence.block_table, &computed);
        let row = self.decoding.len() as u32;
        self.decoding.push(sequence);
        self.write_row(executor, model, row);
        executor.write(model.buffers.prefill_rows, 0, bytemuck::cast_slice(&data));
        let pass = self.program(executor, model, ProgramKey::Pass(Pass { rows, attend: Attend::Prefill, output: Output::LastLogits(row) }));
        let sample = self.sample_program(executor, model, row, 1);
        self.submit(executor, &[&pass, &sample], (row, 1), 1)?;
        Ok(true)
    }

    /// Submits decode steps for the batch, unless all steps of a row were submitted.
    fn decode(&mut self, executor: &Executor, model: &Model) -> Result<bool> {
        let Some(remaining) = self.decoding.iter().map(Sequence::remaining).min() else { return Ok(false) };
        let wants_logits = self.decoding.iter().any(Sequence::wants_logits);
        if wants_logits && !self.in_flight.is_empty() {
            return Ok(false);
        }
        let steps = if wants_logits { remaining.min(1) } else { self.steps.min(remaining) };
        if steps == 0 || self.decoding.iter().any(|s| s.finished) {
            return Ok(false);
        }
        let rows = self.decoding.len() as u32;
        let positions = self.decoding.iter().map(|s| s.prompt_len() + s.issued + steps).max().unwrap_or(1);
        let pass = self.program(executor, model, ProgramKey::Pass(model.decode_pass(rows, positions.min(model.options.context))));
        let sample = self.sample_program(executor, model, 0, rows);
        let step = [&*pass, &*sample];
        let programs: Vec<&Program> = std::iter::repeat_n(step, steps as usize).flatten().collect();
        for sequence in &mut self.decoding {
            sequence.issued += steps;
            let positions = sequence.prompt_len() + sequence.issued;
            allocate_pages(&mut self.pages, executor, model, sequence, positions);
        }
        self.submit(executor, &programs, (0, rows), steps)?;
        Ok(true)
    }

    fn submit(&mut self, executor: &Executor, programs: &[&Program], rows: (u32, u32), steps: u32) -> Result<()> {
        let begin = self.decoding.get(rows.0 as usize).map_or(0, |s| (s.issued - steps) % RING);
        // The tokens of one row are contiguous, unless they wrap around the ring.
        let exact = rows.1 == 1 && begin + steps <= RING;
        let row_bytes = 4 * u64::from(RING);
        let (skip, bytes) = if exact { (4 * u64::from(begin), 4 * u64::from(steps)) } else { (0, u64::from(rows.1) * row_bytes) };
        let pending = executor.submit_and_read(programs, self.sampled, u64::from(rows.0) * row_bytes + skip, bytes.max(4))?;
        self.in_flight.push_back(InFlight { rows, steps, exact, submitted: Instant::now(), pending });
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
        let Some(InFlight { rows: (first, count), steps, exact, submitted, pending }) = self.in_flight.pop_front() else { return Ok(()) };
        let bytes = pending.wait().await?;
        let tokens: &[u32] = bytemuck::cast_slice(&bytes);
        for row in first..first + count {
            if self.decoding[row as usize].wants_logits() {
                // Nothing was submitted since: `decode` waits for these logits.
                let row_bytes = 4 * u64::from(model.spec.vocab);
                let pending = executor.submit_and_read(&[], model.buffers.logits, u64::from(row) * row_bytes, row_bytes)?;
                let logits = bytemuck::pod_collect_to_vec(&pending.wait().await?);
                let _ = self.decoding[row as usize].job.events.unbounded_send(Ok(Event::Logits(logits)));
            }
        }
        let row_tokens = if exact { steps } else { RING }.max(1);
        for (sequence, row) in self.decoding[first as usize..][..count as usize].iter_mut().zip(tokens.chunks_exact(row_tokens as usize)) {
            for i in 0..steps {
                let at = if exact { i } else { sequence.received % RING };
                sequence.received += 1;
                sequence.accept(row[at as usize]);
            }
        }
        if steps == 0 {
            return Ok(());
        }
        // Submissions before this one count too: an upper bound, so the steady state settles below the target.
        let elapsed = submitted.elapsed() / (self.in_flight.len() as u32 + 1);
        if elapsed < SUBMISSION_TIME / 2 {
            self.steps = (self.steps * 2).min(MAX_STEPS);
        } else if elapsed > SUBMISSION_TIME {
            self.steps = (self.steps / 2).max(1);
        }
        Ok(())
    }

    /// Writes the state of a decode row. Nothing of the row may be in flight.
    fn write_row(&mut self, executor: &Executor, model: &Model, row: u32) {
        let sequence = &self.decoding[row as usize];
        let generated = sequence.progress.generated.len() as u32;
        // Sampling advances the position by one: before the first token the row is at the last position of the prompt.
        let (token, position) = match sequence.progress.generated.last() {
            Some(&token) => (token, sequence.prompt_len() + generated - 1),
            None => (0, sequence.prompt_len() - 1),
        };
        let data = Row { token, position, slot: sequence.slot, flags: Row::ACTIVE };
        executor.write(model.buffers.decode_rows, u64::from(row) * size_of::<Row>() as u64, bytemuck::bytes_of(&data));
        let sampler = Sampler { step: generated, ..sequence.job.sampling };
        executor.write(self.samplers, u64::from(row) * size_of::<Sampler>() as u64, bytemuck::bytes_of(&sampler));
    }

    /// Sampling of rows of the batch.
    fn sample_program(&mut self, executor: &Executor, model: &Model, first_row: u32, rows: u32) -> Rc<Program> {
        let sequences = &self.decoding[first_row as usize..][..rows as usize];
        let draws = sequences.iter().any(|s| s.job.sampling.draws_from_all());
        self.program(executor, model, ProgramKey::Sample { first_row, rows, draws })
    }

    pub(super) fn program(&mut self, executor: &Executor, model: &Model, key: ProgramKey) -> Rc<Program> {
        if let Some(program) = self.programs.get(&key) {
            return Rc::clone(program);
        }
        let recording = self.record(model, key);
        let program = Rc::new(executor.compile(if let ProgramKey::Pass(_) = key { "pass" } else { "sample" }, recording));
        // The last chunk of a prompt may have any length: only programs that recur are kept.
        let kept = match key {
            ProgramKey::Pass(pass) => {
                pass.attend != Attend::Prefill || max_prefill_rows(model).contains(&pass.rows) && pass.output == Output::Cache
            }
            ProgramKey::Sample { .. } => true,
        };
        if kept {
            self.programs.insert(key, Rc::clone(&program));
        }
        program
    }

    fn record(&self, model: &Model, key: ProgramKey) -> Recording {
        match key {
            ProgramKey::Pass(pass) => model.record(&pass),
            ProgramKey::Sample { first_row, rows, draws } => {
                let mut recording = Recording::new();
                let sampling = Sampling { vocab: model.spec.vocab, first_row, rows, ring: RING };
                let bindings = SampleBindings {
                    logits: model.buffers.logits,
                    counts: self.counts,
                    samplers: self.samplers,
                    rows: model.buffers.decode_rows,
                    groups: self.groups,
                    sampled: self.sampled,
                };
                recording.sample(sampling, draws, bindings);
                recording
            }
        }
    }

    /// Recordings of single requests by the kernel variants that they need: those of every request, and those of very short and long
    /// prompts, long contexts, random sampling and concurrent answers.
    pub fn usual_recordings(&self, model: &Model) -> [Vec<Recording>; 2] {
        const SHORT_PROMPT: u32 = 64;
        let generates = model.spec.is_causal();
        let output = if generates { Output::LastLogits(0) } else { Output::Embedding };
        let most = model.options.prefill_rows;
        let prefill = |rows: u32| ProgramKey::Pass(Pass { rows: rows.min(most), attend: Attend::Prefill, output });
        let decode = |rows, positions| ProgramKey::Pass(model.decode_pass(rows, positions));
        let sample = |draws| ProgramKey::Sample { first_row: 0, rows: 1, draws };
        let (mut every, mut some) = (vec![prefill(SHORT_PROMPT)], vec![prefill(1), prefill(4), prefill(most)]);
        if generates {
            every.extend([decode(1, 1), sample(false)]);
            some.extend([decode(1, model.options.context), sample(true)]);
            // Kernels differ by whether rows are one, few, or more than four.
            some.extend([2, 4, 8].into_iter().filter(|rows| *rows <= model.options.sequences).map(|rows| decode(rows, 1)));
        }
        [every, some].map(|keys| keys.into_iter().map(|key| self.record(model, key)).collect())
    }
}

/// Most rows of a prefill step: alone, and while sequences decode.
fn max_prefill_rows(model: &Model) -> [u32; 2] {
    let most = model.options.prefill_rows;
    [most, most.min(PREFILL_CHUNK_WITH_DECODE)]
}

/// Allocates a sequence's pages for so many positions.
pub(super) fn allocate_pages(pages: &mut PagePool, executor: &Executor, model: &Model, sequence: &mut Sequence, positions: u32) {
    let first = sequence.block_table.pages().len();
    write_pages(executor, model, sequence.slot, first, pages.allocate(&mut sequence.block_table, positions));
}

/// Writes a part of a block table on the device, from page number `first` of the sequence on.
fn write_pages(executor: &Executor, model: &Model, slot: u32, first: usize, pages: &[u32]) {
    if !pages.is_empty() {
        let entry = u64::from(slot) * u64::from(model.pages_per_slot) + first as u64;
        executor.write(model.buffers.pages, 4 * entry, bytemuck::cast_slice(pages));
    }
}
