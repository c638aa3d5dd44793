//! A model on a device: the forward pass of all architectures (Vaswani et al. 2017 and after), written once over layers.

use std::ops::Range;

use super::families;
use super::layers::{AttentionBuffers, Block, Embedding, Head, INT16_ROWS, load_constants, record_gather};
use super::loader::Loader;
use super::options::{MemoryUse, ModelOptions};
use super::padding::padded;
use super::pass::{Attend, Buffers, Output, Pass, PassRecorder};
use super::pieces::{LoadTimes, Pieces};
use super::scratch::{Arena, Scratch};
use super::spec::ModelSpec;
use super::state::{PageCounts, State};
use crate::error::Result;
use crate::exec::{Executor, Recording, Scope};
use crate::formats::Checkpoint;
use crate::kernels::{AttentionTier, Capabilities, Row, Splits};
use crate::source::Source;

/// A model on a device: weights, cache and activations.
#[derive(Debug)]
pub struct Model {
    /// Its description.
    pub spec: ModelSpec,
    /// What it may use; `context` is what was granted.
    pub options: ModelOptions,
    /// What it takes.
    pub memory: MemoryUse,
    /// Where the time of loading went.
    pub load_times: LoadTimes,
    /// Pages of the cache.
    pub pages: PageCounts,
    /// Buffers that the scheduler writes and reads.
    pub buffers: Buffers,
    embedding: Embedding,
    layers: Vec<(Block, AttentionBuffers)>,
    head: Head,
    scratch: Scratch,
    tier: AttentionTier,
    capabilities: Capabilities,
}

/// Makes the model once its weights are read.
type Complete = Box<dyn FnOnce(&Executor, &mut Scope, LoadTimes) -> Result<Model>>;

impl Model {
    /// Loads a checkpoint onto a device. Everything that the header tells is checked before a weight is read. All buffers are in
    /// `scope`, also after a failure.
    ///
    /// # Errors
    /// When the file is not a model that the engine can run, cannot be read, or does not fit the device.
    pub async fn load(
        executor: &Executor,
        scope: &mut Scope,
        checkpoint: &Checkpoint,
        source: &dyn Source,
        options: ModelOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self> {
        let (pieces, complete) = Self::allocate(executor, scope, checkpoint, options)?;
        let load_times = pieces.load(executor, source, progress).await?;
        complete(executor, scope, load_times)
    }

    /// A model whose weights are not read, and the ranges of the source that [`Self::load`] reads, in order: see [`crate::plan`].
    ///
    /// # Errors
    /// As [`Self::load`], but for reading.
    pub fn plan(executor: &Executor, scope: &mut Scope, checkpoint: &Checkpoint, options: ModelOptions) -> Result<(Self, Vec<Range<u64>>)> {
        let (pieces, complete) = Self::allocate(executor, scope, checkpoint, options)?;
        Ok((complete(executor, scope, LoadTimes::default())?, pieces.ranges()))
    }

    /// Allocates state and weights. Returns what fills the weights, and what makes the model of them once they are filled.
    fn allocate(executor: &Executor, scope: &mut Scope, checkpoint: &Checkpoint, mut options: ModelOptions) -> Result<(Pieces, Complete)> {
        let mut spec = families::spec(checkpoint)?;
        let padded = padded(checkpoint, &mut spec);
        let checkpoint = padded.as_ref().unwrap_or(checkpoint);
        options.context = options.context.min(spec.context).max(1);
        let capabilities = executor.capabilities().clone();
        options.prefill_rows = options.prefill_rows.min(capabilities.tuning.prefill_rows);
        if !spec.is_causal() {
            // Whole texts, and several of usual length.
            const TEXT_ROWS: u32 = 2048;
            options.prefill_rows = options.context.max(TEXT_ROWS.min(options.context.saturating_mul(options.sequences)));
        }
        let mut memory = MemoryUse::default();
        let before = executor.allocated_bytes();

        let state = State::create(executor, scope, &spec, &options)?;
        memory.cache = executor.allocated_bytes() - before;
        executor.check()?;

        let mut loader = Loader::new(executor, scope, checkpoint, options.quantize)?;
        let embedding = Embedding::load(&mut loader, &spec)?;
        let mut blocks = Vec::with_capacity(spec.layers.len());
        for i in 0..spec.layers.len() as u32 {
            blocks.push(Block::load(&mut loader, &spec, i)?);
        }
        let head = Head::load(&mut loader, &spec, &embedding)?;
        let rope_constants = load_constants(&mut loader, &options, &blocks)?;
        let buffers =
            state.layers.into_iter().zip(rope_constants).map(|(cache, rope_constants)| AttentionBuffers { cache, rope_constants });
        let layers = blocks.into_iter().zip(buffers).collect();
        let pieces = loader.finish()?;

        let staging = pieces.staging;
        let complete = move |executor: &Executor, scope: &mut Scope, load_times: LoadTimes| {
            executor.destroy_buffer(staging);
            memory.weights = executor.allocated_bytes() - before - memory.cache;
            let mut model = Self {
                // Where the staging buffer was.
                buffers: Buffers::create(executor, scope, &spec, &options, &state.counts)?,
                tier: AttentionTier::choose(&capabilities, spec.head_dim()),
                capabilities,
                spec,
                options,
                memory,
                load_times,
                pages: state.counts,
                embedding,
                layers,
                head,
                scratch: Scratch::default(),
            };
            model.scratch = model.measure().create(executor, scope)?;
            executor.check()?;
            model.memory.scratch = executor.allocated_bytes() - before - memory.cache - memory.weights;
            Ok(model)
        };
        Ok((pieces, Box::new(complete)))
    }

    /// Writes rows for a pass of one sequence from `first` on, whose cache is the first pages: for benches and tests, outside of a
    /// scheduler.
    pub fn place(&self, executor: &Executor, pass: &Pass, first: u32) {
        let remaining = |i| if pass.attend == Attend::Prefill { pass.rows - i } else { u32::MAX };
        let row = |i| Row { token: i % 200, position: first + i, slot: 0, remaining: remaining(i) };
        let rows: Vec<Row> = (0..pass.rows).map(row).collect();
        let pages: Vec<u32> = (0..self.pages.per_slot).collect();
        executor.write(self.buffers.rows(pass.attend), 0, bytemuck::cast_slice(&rows));
        executor.write(self.buffers.pages, 0, bytemuck::cast_slice(&pages));
        if let (Some(buffer), Some(windows)) = (self.buffers.window_pages, self.pages.windows) {
            // A pass sees fewer pages than there are.
            let pages: Vec<u32> = pages.iter().map(|page| page % windows.count).collect();
            executor.write(buffer, 0, bytemuck::cast_slice(&pages));
        }
    }

    /// Uses another attention kernel for prefill than the device's best: for tests and tuning.
    pub fn set_attention_tier(&mut self, tier: AttentionTier) {
        self.tier = tier;
    }

    /// A step of `rows` sequences with caches of up to `positions`.
    pub fn decode_pass(&self, rows: u32, positions: u32) -> Pass {
        let splits = Splits::of(positions, self.spec.head_dim());
        Pass { rows, run: rows, attend: Attend::Decode { splits }, output: Output::Logits }
    }

    /// Records a pass: from tokens to what is wanted.
    ///
    /// # Panics
    /// When the pass has more rows, or longer caches, than the model was loaded for.
    pub fn record(&self, pass: &Pass) -> Recording {
        self.record_in(self.scratch.arena(), pass)
    }

    fn record_in(&self, arena: Arena, pass: &Pass) -> Recording {
        let mut recorder = PassRecorder {
            pass: *pass,
            capabilities: &self.capabilities,
            tier: self.tier,
            options: &self.options,
            norm: self.spec.row_norm(),
            buffers: &self.buffers,
            rows_buffer: self.buffers.rows(pass.attend),
            pages_per_slot: self.pages.per_slot,
            arena,
            recording: Recording::new(),
        };
        let r = &mut recorder;
        let mut x = self.embedding.record(r);
        for (i, (block, buffers)) in self.layers.iter().enumerate() {
            if i + 1 == self.layers.len() && block.ends_with_cache(r) {
                block.record_cache(r, &x, buffers);
                break;
            }
            x = block.record(r, x, buffers);
        }
        match pass.output {
            Output::Cache => {}
            Output::Logits => self.head.record_logits(r, &x),
            Output::SomeLogits(rows) => {
                let x = record_gather(r, &x, rows);
                self.head.record_logits(r, &x);
            }
            Output::Embeddings(texts) => self.head.record_embeddings(r, x, texts),
        }
        recorder.recording
    }

    /// Records the largest passes dry: the slots that all passes need.
    fn measure(&self) -> Arena {
        let arena = Arena::dry();
        for pass in self.largest_passes() {
            self.record_in(arena.clone(), &pass);
        }
        arena
    }

    /// Of the passes that run the same kinds of kernels those with the most rows, and those with the most parts of a product or of
    /// attention: kernels choose their parts by multiples of 32 rows.
    fn largest_passes(&self) -> Vec<Pass> {
        const STEP: usize = 32;
        let rows_up_to =
            |most: u32| (STEP as u32..most).step_by(STEP).chain([1, 2, 4, INT16_ROWS / 2, INT16_ROWS, most].map(|rows| rows.min(most)));
        let ModelOptions { context, sequences, prefill_rows, .. } = self.options;
        let prefill = |output| move |rows| Pass::prefill(rows, output);
        let mut passes = Vec::new();
        if self.spec.head.pooling.is_some() {
            passes.extend(rows_up_to(prefill_rows).map(prefill(Output::Embeddings(sequences))));
            passes.extend(rows_up_to(prefill_rows).map(|run| Pass { run, ..Pass::prefill(prefill_rows, Output::Embeddings(sequences)) }));
        }
        if self.spec.is_causal() {
            passes.extend(rows_up_to(prefill_rows).map(prefill(Output::SomeLogits(1))));
            passes.extend(rows_up_to(sequences).map(|outputs| prefill(Output::SomeLogits(outputs))(prefill_rows)));
            // Of runs of one length those that fill a pass.
            passes.extend(rows_up_to(prefill_rows).map(|run| Pass { run, ..Pass::prefill(prefill_rows, Output::SomeLogits(sequences)) }));
            passes.extend(rows_up_to(sequences).map(prefill(Output::Logits)));
            passes.extend(rows_up_to(sequences).map(|rows| self.decode_pass(rows, context)));
        }
        passes
    }
}
