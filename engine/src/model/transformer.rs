//! The forward pass of all architectures (Vaswani et al. 2017 and after), written once over kernels.

use std::cell::Cell;
use std::ops::Range;

use super::blocks::{Layer, NormWeights, Projection, Up};
use super::buffers::Buffers;
use super::families;
use super::loader::{Floats, Loader, Part};
use super::padding::padded;
use super::pieces::{LoadTimes, Pieces};
use super::rope::{LONG_ROPE_FACTORS, ROPE_FACTORS, RopeSpec, SHORT_ROPE_FACTORS};
use super::slab::Weight;
use super::spec::{AttentionSpec, DenseSpec, ModelSpec, NormSpec, OutputNorm, Pooling, QkNormSpec};
use crate::error::{EngineError, Result};
use crate::executor::Executor;
use crate::formats::Checkpoint;
use crate::formats::convert::Recipe;
use crate::kernels::{
    AttentionCombine, AttentionCombineBindings, AttentionDecode, AttentionDecodeBindings, AttentionPrefill, AttentionPrefillBindings,
    AttentionShape, AttentionTier, Capabilities, Embed, EmbedBindings, EmbedIndex, Epilogue, Gated, GatedBindings, Interleave, KvFormat,
    Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings, MatmulInt8, MatmulInt8Bindings, Matvec, MatvecBindings, Norm,
    NormBindings, NormKind, PAGE, Pool, PoolBindings, QkNorm, QkNormBindings, QuantizeRows, QuantizeRowsBindings, RopeKv, RopeKvBindings,
    RopePairing, Rotary, Row, Splits,
};
use crate::recording::{BufferId, Recording};
use crate::source::Source;

/// Rows up to which a product re-reads the activations for each output instead of tiling them.
pub(super) const MATVEC_ROWS: u32 = 8;

/// How much a model may use at run time.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// Positions of one sequence; clipped to what the model was trained for.
    pub context: u32,
    /// Concurrent sequences.
    pub sequences: u32,
    /// Most rows of a prefill step; the device's tuning may want fewer. An encoder reads a text in one step: there it is the context.
    pub prefill_rows: u32,
    /// Elements of the cache.
    pub kv: KvFormat,
    /// Bytes of cache to stay under, as long as one sequence of `context` fits.
    pub kv_bytes: u64,
    /// What weights that are floats become on their way to the device; `None`: they stay as they are.
    pub quantize: Option<Recipe>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { context: 8192, sequences: 8, prefill_rows: 512, kv: KvFormat::F16, kv_bytes: 256 << 20, quantize: None }
    }
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Weights.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Activations and state.
    pub scratch: u64,
}

impl MemoryUse {
    /// All together.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.scratch
    }
}

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
    pub page_count: u32,
    /// Row length of [`Buffers::pages`].
    pub pages_per_slot: u32,
    /// Buffers that the scheduler writes and reads.
    pub buffers: Buffers,
    embedding: Weight,
    positions: Option<Weight>,
    token_types: Option<Weight>,
    embedding_norm: Option<NormWeights>,
    layers: Vec<Layer>,
    /// Keys and values of each layer.
    cache: Vec<(BufferId, BufferId)>,
    output_norm: Option<NormWeights>,
    output: Option<Projection>,
    /// What comes after pooling.
    dense: Vec<Weight>,
    /// Of each layer the frequencies of its rotary embedding, and behind them the weights of its QK-norm where each head has the same.
    rope_constants: Vec<BufferId>,
    tier: AttentionTier,
    capabilities: Capabilities,
    /// First and behind the last of all its buffers.
    owned: (usize, usize),
}

/// How the rows of a pass attend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attend {
    /// Rows of different sequences.
    Decode {
        /// Parts of the longest cache.
        splits: Splits,
    },
    /// Consecutive positions of one sequence.
    Prefill,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Keys and values in the cache.
    Cache,
    /// The logits of all rows, in as many rows of [`Buffers::logits`].
    Logits,
    /// The logits of the last row, in this row of [`Buffers::logits`].
    LastLogits(u32),
    /// The embedding of the text that the rows are.
    Embedding,
}

/// One pass through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    /// Rows, in [`Buffers::decode_rows`] or [`Buffers::prefill_rows`].
    pub rows: u32,
    /// How they attend.
    pub attend: Attend,
    /// What is wanted.
    pub output: Output,
}

/// Rows to multiply: a buffer with first element and row stride, and the norm weights to apply on the way.
#[derive(Debug)]
struct Operand {
    buffer: BufferId,
    offset: u32,
    stride: u32,
    norm: Option<BufferId>,
    /// How they lie in [`Buffers::activations_q8`], once they do.
    bytes: Cell<Option<Interleave>>,
}

impl Operand {
    /// Rows that are multiplied as they are.
    fn plain(buffer: BufferId, offset: u32, stride: u32) -> Self {
        Self { buffer, offset, stride, norm: None, bytes: Cell::new(None) }
    }
}

/// Where a product goes: a buffer with first element, row stride and distance of outputs.
#[derive(Clone, Copy, Debug)]
struct Target {
    buffer: BufferId,
    offset: u32,
    stride: u32,
    step: u32,
}

impl Model {
    /// Loads a checkpoint onto a device. Everything that the header tells is checked before a weight is read.
    ///
    /// # Errors
    /// When the file is not a model that the engine can run, cannot be read, or does not fit the device.
    pub async fn load(
        executor: &mut Executor,
        checkpoint: &Checkpoint,
        source: &dyn Source,
        options: ModelOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self> {
        let (pieces, complete) = Self::allocate(executor, checkpoint, options)?;
        let load_times = pieces.load(executor, source, progress).await?;
        complete(executor, load_times)
    }

    /// A model whose weights are not read, and the ranges of the source that [`Self::load`] reads, in order: see [`crate::plan`].
    ///
    /// # Errors
    /// As [`Self::load`], but for reading.
    pub(crate) fn plan(executor: &mut Executor, checkpoint: &Checkpoint, options: ModelOptions) -> Result<(Self, Vec<Range<u64>>)> {
        let (pieces, complete) = Self::allocate(executor, checkpoint, options)?;
        Ok((complete(executor, LoadTimes::default())?, pieces.ranges()))
    }

    /// Allocates cache and weights. Returns what fills the weights, and what makes the model of them once they are filled.
    fn allocate(
        executor: &mut Executor,
        checkpoint: &Checkpoint,
        mut options: ModelOptions,
    ) -> Result<(Pieces, impl FnOnce(&mut Executor, LoadTimes) -> Result<Self> + use<>)> {
        let mut spec = families::spec(checkpoint)?;
        let padded = padded(checkpoint, &mut spec)?;
        let checkpoint = padded.as_ref().unwrap_or(checkpoint);
        options.context = options.context.min(spec.context).max(1);
        let capabilities = executor.capabilities().clone();
        options.prefill_rows = options.prefill_rows.min(capabilities.tuning.prefill_rows);
        if !spec.is_causal() {
            options.prefill_rows = options.context;
        }
        let tier = AttentionTier::choose(&capabilities, spec.head_dim());
        let first_buffer = executor.mark();
        let mut memory = MemoryUse::default();
        let before = executor.allocated_bytes();

        let pages_per_slot = options.context.div_ceil(PAGE);
        let page_bytes = spec.kv_bytes_per_position(options.kv) * u64::from(PAGE);
        let affordable = u32::try_from(options.kv_bytes / page_bytes).unwrap_or(u32::MAX);
        let page_count = affordable.clamp(pages_per_slot, pages_per_slot.saturating_mul(options.sequences));
        let mut cache = Vec::with_capacity(spec.layers.len());
        for attention in spec.attentions() {
            let bytes = attention.key_bytes_per_position(options.kv) * u64::from(PAGE) * u64::from(page_count);
            cache.push((executor.create_buffer("keys", bytes)?, executor.create_buffer("values", bytes)?));
        }
        memory.cache = executor.allocated_bytes() - before;
        executor.check()?;

        let mut loader = Loader::new(executor, checkpoint, options.quantize)?;
        let embedding = loader.stacked(&[Part { name: "token_embd.weight", first_row: 0, rows: spec.vocab }], spec.dim)?;
        let mut table = |name: &str, rows: Option<u32>| -> Result<Option<Weight>> {
            match rows {
                Some(rows) => Ok(Some(loader.stacked(&[Part { name, first_row: 0, rows }], spec.dim)?)),
                None => Ok(None),
            }
        };
        let positions = table("position_embd.weight", spec.embedding.positions)?;
        let token_types = table("token_types.weight", spec.embedding.token_types)?;
        let embedding_norm = if spec.embedding.norm { Some(loader.norm("token_embd_norm", spec.dim)?) } else { None };
        let mut layers = Vec::with_capacity(spec.layers.len());
        for i in 0..spec.layers.len() as u32 {
            layers.push(Layer::load(&mut loader, &spec, i)?);
        }
        let output_norm = if spec.head.norm { Some(loader.norm("output_norm", spec.dim)?) } else { None };
        let output = if spec.head.tied { None } else { Some(loader.projection("output", spec.vocab, spec.dim)?) };
        let mut dense = Vec::new();
        if let Some(wide) = spec.head.dense {
            // It goes where gates go: see `record_pooling`.
            let gates = spec.widest(|layer| if layer.dense().gated { 2 * layer.dense().width } else { 0 });
            let most = u64::from(gates) * u64::from(options.prefill_rows);
            if u64::from(wide) > most {
                let (value, supported) = (format!("{wide} rows"), format!("up to {most}"));
                return Err(EngineError::Unsupported { what: "the size of dense_2.weight", value, supported });
            }
            dense.push(loader.stacked(&[Part { name: "dense_2.weight", first_row: 0, rows: wide }], spec.dim)?);
            dense.push(loader.stacked(&[Part { name: "dense_3.weight", first_row: 0, rows: spec.dim }], wide)?);
        }
        let rope_constants = load_rope_constants(&mut loader, &spec, &options, &layers)?;
        let pieces = loader.finish()?;
        let staging = pieces.staging;
        let complete = move |executor: &mut Executor, load_times: LoadTimes| {
            executor.destroy_buffer(staging);
            memory.weights = executor.allocated_bytes() - before - memory.cache;
            // Where the staging buffer was.
            let buffers = Buffers::create(executor, &spec, &options, pages_per_slot, tier)?;
            executor.check()?;
            memory.scratch = executor.allocated_bytes() - before - memory.cache - memory.weights;
            Ok(Self {
                tier,
                capabilities,
                owned: (first_buffer, executor.mark()),
                spec,
                options,
                memory,
                load_times,
                page_count,
                pages_per_slot,
                buffers,
                embedding,
                positions,
                token_types,
                embedding_norm,
                layers,
                cache,
                output_norm,
                output,
                dense,
                rope_constants,
            })
        };
        Ok((pieces, complete))
    }

    /// Frees every buffer of the model.
    pub fn unload(self, executor: &mut Executor) {
        executor.destroy_between(self.owned.0, self.owned.1);
    }

    /// Writes rows for a pass of one sequence from `first` on, whose cache is the first pages: for benches and tests, outside of a
    /// scheduler.
    pub fn place(&self, executor: &mut Executor, pass: &Pass, first: u32) {
        let rows: Vec<Row> = (0..pass.rows).map(|i| Row { token: i % 200, position: first + i, slot: 0, flags: Row::ACTIVE }).collect();
        let pages: Vec<u32> = (0..self.pages_per_slot).collect();
        let buffer = if pass.attend == Attend::Prefill { self.buffers.prefill_rows } else { self.buffers.decode_rows };
        executor.write(buffer, 0, bytemuck::cast_slice(&rows));
        executor.write(self.buffers.pages, 0, bytemuck::cast_slice(&pages));
    }

    /// Uses another attention kernel for prefill than the device's best: for tests and tuning.
    pub fn set_attention_tier(&mut self, tier: AttentionTier) {
        self.tier = tier;
    }

    /// A step of `rows` sequences with caches of up to `positions`.
    pub fn decode_pass(&self, rows: u32, positions: u32) -> Pass {
        let splits = Splits::of(positions, self.spec.head_dim());
        Pass { rows, attend: Attend::Decode { splits }, output: Output::Logits }
    }

    /// Records a pass: from tokens to what is wanted.
    pub fn record(&self, pass: &Pass) -> Recording {
        let rows_buffer = if pass.attend == Attend::Prefill { self.buffers.prefill_rows } else { self.buffers.decode_rows };
        let mut recording = Recording::new();
        let r = &mut recording;
        self.record_embedding(r, pass, rows_buffer);
        let mut x = self.buffers.x;
        for (i, layer) in self.layers.iter().enumerate() {
            let spec = &self.spec.layers[i];
            let input = self.normalized(r, x, 0..pass.rows, layer.attention_norm.as_ref());
            self.record_qkv(r, pass.rows, i, &input);
            let fused = self.uses_fused_decode(pass);
            if !fused {
                self.record_rope_and_kv_write(r, pass.rows, i, rows_buffer);
            }
            // What was asked for is done once the last layer's keys and values are written.
            if !fused && i + 1 == self.layers.len() && pass.output == Output::Cache {
                return recording;
            }
            self.record_attention(r, pass, i, rows_buffer);
            if spec.parallel {
                self.record_up(r, pass.rows, i, x);
            }
            let attended = (self.buffers.attended, spec.attention().output_row());
            x = self.record_branch(r, pass.rows, i, &layer.attention_output, attended, x, layer.attention_post_norm.as_ref());
            if !spec.parallel {
                self.record_up(r, pass.rows, i, x);
            }
            let activated = (self.buffers.activated, spec.dense().width);
            x = self.record_branch(r, pass.rows, i, &layer.down, activated, x, layer.feed_forward_post_norm.as_ref());
        }
        match pass.output {
            Output::Cache => {}
            Output::Logits => self.record_logits(r, x, 0..pass.rows, 0),
            Output::LastLogits(to) => self.record_logits(r, x, pass.rows - 1..pass.rows, to),
            Output::Embedding => self.record_pooling(r, x, pass.rows),
        }
        recording
    }

    fn record_embedding(&self, r: &mut Recording, pass: &Pass, rows_buffer: BufferId) {
        let out = if self.embedding_norm.is_some() { self.buffers.branch } else { self.buffers.x };
        let mut embed = |weight: &Weight, index: EmbedIndex, scale: f32| {
            for slab in &weight.slabs {
                let add = index != EmbedIndex::Token;
                let kernel =
                    Embed { layout: weight.layout, rows: pass.rows, first_index: slab.first_row, slab_rows: slab.rows, index, add, scale };
                r.dispatch(kernel, EmbedBindings { weights: slab.buffer, rows: rows_buffer, out });
            }
        };
        embed(&self.embedding, EmbedIndex::Token, self.spec.embedding.scale);
        if let Some(positions) = &self.positions {
            embed(positions, EmbedIndex::Position, 1.0);
        }
        if let Some(types) = &self.token_types {
            embed(types, EmbedIndex::First, 1.0);
        }
        if let Some(norm) = &self.embedding_norm {
            self.record_norm(r, norm, (out, 0), (self.buffers.x, 0), pass.rows, false);
        }
    }

    /// Whether attention rotates queries and keys, and fills the cache, itself.
    fn uses_fused_decode(&self, pass: &Pass) -> bool {
        matches!(pass.attend, Attend::Decode { .. }) && AttentionDecode::serves(self.spec.head_dim())
    }

    /// Whether layer `i` has a norm of queries and keys that [`AttentionDecode`] applies.
    fn norms_each_head(&self, i: usize) -> bool {
        self.layers[i].qk_norm.as_ref().is_some_and(|norm| norm.of_each_head)
    }

    /// Queries, keys and values of the normalized rows.
    fn record_qkv(&self, r: &mut Recording, rows: u32, i: usize, input: &Operand) {
        let stride = self.attention(i).qkv_row();
        for (projection, offset) in &self.layers[i].qkv {
            let target = Target { buffer: self.buffers.qkv, offset: *offset, stride, step: 1 };
            self.record_product(r, rows, projection, input, target, Epilogue::STORE);
        }
    }

    fn attention(&self, i: usize) -> &AttentionSpec {
        self.spec.layers[i].attention()
    }

    /// Normalizes queries and keys.
    fn record_qk_norm(&self, r: &mut Recording, rows: u32, i: usize) {
        let spec = self.attention(i);
        let (Some(norm), Some(span)) = (&self.layers[i].qk_norm, spec.qk_norm) else { return };
        let segments = |heads: u32| match span {
            QkNormSpec::Row => (1, heads * spec.key_dim),
            QkNormSpec::Head => (heads, spec.key_dim),
        };
        let kernel = QkNorm {
            kind: self.spec.norm.kind,
            rows,
            row_stride: spec.qkv_row(),
            q_segments: segments(spec.heads),
            k_segments: segments(spec.kv_heads),
            q_weights: norm.q.1,
            k_weights: norm.k.1,
            eps: self.spec.norm.eps,
        };
        r.dispatch(kernel, QkNormBindings { qkv: self.buffers.qkv, q_weight: norm.q.0, k_weight: norm.k.0 });
    }

    /// Rotates queries and keys, and puts keys and values into the cache.
    fn record_rope_and_kv_write(&self, r: &mut Recording, rows: u32, i: usize, rows_buffer: BufferId) {
        let spec = self.attention(i);
        let b = &self.buffers;
        self.record_qk_norm(r, rows, i);
        let kernel = RopeKv {
            rows,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.key_dim,
            rotary: rotary(spec),
            pages_per_slot: self.pages_per_slot,
            kv: self.options.kv,
        };
        let (keys, values) = self.cache[i];
        let bindings =
            RopeKvBindings { qkv: b.qkv, keys, values, pages: b.pages, rows: rows_buffer, rope_constants: self.rope_constants[i] };
        r.dispatch(kernel, bindings);
    }

    /// Attention of the queries in qkv over the cache.
    fn record_attention(&self, r: &mut Recording, pass: &Pass, i: usize, rows_buffer: BufferId) {
        let spec = self.attention(i);
        let (heads, head_dim) = (spec.heads, spec.key_dim);
        let b = &self.buffers;
        let shape = AttentionShape {
            heads,
            kv_heads: spec.kv_heads,
            head_dim,
            q_stride: spec.qkv_row(),
            pages_per_slot: self.pages_per_slot,
            window: spec.window.left.unwrap_or(0),
            right_window: spec.window.right.unwrap_or(self.options.context),
            scale: spec.scale,
            cap: spec.cap,
            kv: self.options.kv,
        };
        let (keys, values) = self.cache[i];
        let bindings = AttentionPrefillBindings { q: b.qkv, keys, values, pages: b.pages, rows: rows_buffer, out: b.attended };
        let combine = AttentionCombineBindings { workspace: b.workspace, out: b.attended };
        match pass.attend {
            Attend::Decode { splits } if self.uses_fused_decode(pass) => {
                let each_head = self.norms_each_head(i);
                if !each_head {
                    self.record_qk_norm(r, pass.rows, i);
                }
                let qk_norm = each_head.then_some(self.spec.norm.eps);
                let kernel = AttentionDecode { shape, rows: pass.rows, splits, rotary: rotary(spec), qk_norm };
                let bindings = AttentionDecodeBindings {
                    qkv: b.qkv,
                    keys,
                    values,
                    pages: b.pages,
                    rows: rows_buffer,
                    rope_constants: self.rope_constants[i],
                    out: b.attended,
                    workspace: b.workspace,
                };
                r.dispatch(kernel, bindings);
                if splits.count > 1 {
                    r.dispatch(AttentionCombine { heads, head_dim, rows: pass.rows, splits: splits.count }, combine);
                }
            }
            Attend::Decode { .. } => {
                r.dispatch(AttentionPrefill { shape, rows: pass.rows, tier: AttentionTier::Streaming, splits: 1 }, bindings);
            }
            Attend::Prefill => {
                let rows = pass.rows;
                let splits = AttentionPrefill::splits(heads, rows, self.tier, &self.capabilities);
                let out = if splits == 1 { b.attended } else { b.workspace };
                r.dispatch(AttentionPrefill { shape, rows, tier: self.tier, splits }, AttentionPrefillBindings { out, ..bindings });
                if splits > 1 {
                    r.dispatch(AttentionCombine { heads, head_dim, rows, splits }, combine);
                }
            }
        }
    }

    /// The feed-forward network up to its activation, from the residual stream `x`.
    fn record_up(&self, r: &mut Recording, rows: u32, i: usize, x: BufferId) {
        let layer = &self.layers[i];
        let DenseSpec { width, activation, .. } = *self.spec.layers[i].dense();
        let b = &self.buffers;
        let input = self.normalized(r, x, 0..rows, layer.feed_forward_norm.as_ref());
        let activated = Target { buffer: b.activated, offset: 0, stride: width, step: 1 };
        match &layer.up {
            Up::Plain(up) => self.record_product(r, rows, up, &input, activated, Epilogue { activation, ..Epilogue::STORE }),
            Up::Interleaved(gate_up) if rows <= MATVEC_ROWS => {
                let epilogue = Epilogue { activation, gated: true, ..Epilogue::STORE };
                self.record_product(r, rows, gate_up, &input, activated, epilogue);
            }
            Up::Interleaved(gate_up) => {
                let target = Target { buffer: b.gate_up, offset: 0, stride: 2 * width, step: 1 };
                self.record_product(r, rows, gate_up, &input, target, Epilogue::STORE);
                r.dispatch(Gated { rows, dim: width, activation }, GatedBindings { gate_up: b.gate_up, out: b.activated });
            }
            Up::Separate { gate, up } => {
                for (offset, projection) in [(0, gate), (1, up)] {
                    let target = Target { buffer: b.gate_up, offset, stride: 2 * width, step: 2 };
                    self.record_product(r, rows, projection, &input, target, Epilogue::STORE);
                }
                r.dispatch(Gated { rows, dim: width, activation }, GatedBindings { gate_up: b.gate_up, out: b.activated });
            }
        }
    }

    /// Multiplies the last rows of a branch of layer `i` and adds them to the residual stream `x`, with the norms that it has there.
    /// Returns the buffer that the residual stream is in.
    #[allow(clippy::too_many_arguments, reason = "operands, target and norm of a branch")]
    fn record_branch(
        &self,
        r: &mut Recording,
        rows: u32,
        i: usize,
        projection: &Projection,
        (buffer, stride): (BufferId, u32),
        x: BufferId,
        norm: Option<&NormWeights>,
    ) -> BufferId {
        let spec = &self.spec.layers[i];
        let b = &self.buffers;
        let input = Operand::plain(buffer, 0, stride);
        let to = |buffer| Target { buffer, offset: 0, stride: self.spec.dim, step: 1 };
        let add = Epilogue { scale: spec.residual_scale, ..Epilogue::ADD };
        match (spec.norms.output, norm) {
            (OutputNorm::Branch, Some(norm)) => {
                self.record_product(r, rows, projection, &input, to(b.branch), Epilogue::STORE);
                self.record_norm(r, norm, (b.branch, 0), (x, 0), rows, true);
                x
            }
            (OutputNorm::Sum, Some(norm)) => {
                self.record_product(r, rows, projection, &input, to(x), add);
                let other = if x == b.x { b.branch } else { b.x };
                self.record_norm(r, norm, (x, 0), (other, 0), rows, false);
                other
            }
            _ => {
                self.record_product(r, rows, projection, &input, to(x), add);
                x
            }
        }
    }

    fn record_logits(&self, r: &mut Recording, x: BufferId, rows: Range<u32>, first_logits: u32) {
        let (vocab, head) = (self.spec.vocab, &self.spec.head);
        let count = rows.end - rows.start;
        let input = self.normalized(r, x, rows, self.output_norm.as_ref());
        let epilogue = Epilogue { cap: head.cap, scale: head.scale, ..Epilogue::STORE };
        let target = Target { buffer: self.buffers.logits, offset: first_logits * vocab, stride: vocab, step: 1 };
        match &self.output {
            Some(output) => self.record_product(r, count, output, &input, target, epilogue),
            None => self.record_weight(r, count, &self.embedding, None, &input, target, epilogue),
        }
    }

    /// One vector of all rows.
    fn record_pooling(&self, r: &mut Recording, x: BufferId, rows: u32) {
        let dim = self.spec.dim;
        let b = &self.buffers;
        let x = match &self.output_norm {
            Some(norm) => {
                self.record_norm(r, norm, (x, 0), (b.normed, 0), rows, false);
                b.normed
            }
            None => x,
        };
        let (first, count) = match self.spec.head.pooling {
            Some(Pooling::First) => (0, 1),
            Some(Pooling::Last) => (rows - 1, 1),
            _ => (0, rows),
        };
        r.dispatch(Pool { dim, first, count }, PoolBindings { x, out: b.embedding });
        if let [wide, narrow] = self.dense.as_slice() {
            let input = |buffer, stride| Operand::plain(buffer, 0, stride);
            let to = |buffer, stride| Target { buffer, offset: 0, stride, step: 1 };
            self.record_weight(r, 1, wide, None, &input(b.embedding, dim), to(b.gate_up, wide.rows), Epilogue::STORE);
            self.record_weight(r, 1, narrow, None, &input(b.gate_up, wide.rows), to(b.embedding, dim), Epilogue::STORE);
        }
    }

    /// Rows of the residual stream ready to be multiplied: normalized on the way where the product can, beforehand otherwise.
    fn normalized(&self, r: &mut Recording, x: BufferId, rows: Range<u32>, norm: Option<&NormWeights>) -> Operand {
        let dim = self.spec.dim;
        let count = rows.end - rows.start;
        let offset = rows.start * dim;
        match norm {
            None => Operand::plain(x, offset, dim),
            Some(norm) if count <= MATVEC_ROWS && self.spec.norm.kind == NormKind::Rms && norm.bias.is_none() => {
                Operand { norm: Some(norm.weight), ..Operand::plain(x, offset, dim) }
            }
            Some(norm) => {
                self.record_norm(r, norm, (x, offset), (self.buffers.normed, 0), count, false);
                Operand::plain(self.buffers.normed, 0, dim)
            }
        }
    }

    fn record_norm(&self, r: &mut Recording, norm: &NormWeights, x: (BufferId, u32), out: (BufferId, u32), rows: u32, add: bool) {
        let NormSpec { kind, eps } = self.spec.norm;
        let bias = norm.bias.is_some();
        let kernel = Norm { kind, rows, dim: self.spec.dim, x_offset: x.1, out_offset: out.1, eps, bias, add };
        r.dispatch(kernel, NormBindings { x: x.0, weight: norm.weight, bias: norm.bias, out: out.0 });
    }

    /// A product with its bias, in the way that `epilogue` says.
    fn record_product(&self, r: &mut Recording, rows: u32, projection: &Projection, x: &Operand, out: Target, epilogue: Epilogue) {
        self.record_weight(r, rows, &projection.weight, projection.bias, x, out, epilogue);
    }

    /// `out = x * weight^T`, with the kernel that suits the number of rows.
    #[allow(clippy::too_many_arguments, reason = "operands, target and epilogue of a product")]
    fn record_weight(
        &self,
        r: &mut Recording,
        rows: u32,
        weight: &Weight,
        bias: Option<BufferId>,
        x: &Operand,
        out: Target,
        epilogue: Epilogue,
    ) {
        let epilogue = Epilogue { bias: bias.is_some(), ..epilogue };
        for slab in &weight.slabs {
            // Pairs of rows become one output.
            let first_out = if epilogue.gated { slab.first_row / 2 } else { slab.first_row };
            let linear = Linear {
                layout: weight.layout,
                n_out: slab.rows,
                rows,
                x_offset: x.offset,
                x_stride: x.stride,
                out_offset: out.offset + first_out * out.step,
                out_stride: out.stride,
                out_step: out.step,
                first_out: slab.first_row,
                epilogue,
            };
            if rows <= MATVEC_ROWS {
                let norm = x.norm.map(|_| self.spec.norm.eps);
                let bindings = MatvecBindings { weights: slab.buffer, x: x.buffer, out: out.buffer, norm_weight: x.norm, bias };
                r.dispatch(Matvec { linear, norm }, bindings);
                continue;
            }
            let b = &self.buffers;
            let bytes = MatmulInt8::suits(&weight.layout, &self.capabilities);
            let splits = if bytes { MatmulInt8::splits(&linear, &self.capabilities) } else { Matmul::splits(&linear, &self.capabilities) };
            let target = if splits == 1 { out.buffer } else { b.splitk_workspace };
            if bytes {
                self.record_quantize(r, &linear, x);
                let bindings = MatmulInt8Bindings {
                    weights: slab.buffer,
                    x: b.activations_q8,
                    out: target,
                    activation_scales: b.activation_scales,
                    bias,
                };
                r.dispatch(MatmulInt8 { linear, splits }, bindings);
            } else {
                r.dispatch(Matmul { linear, splits }, MatmulBindings { weights: slab.buffer, x: x.buffer, out: target, bias });
            }
            if splits > 1 {
                r.dispatch(MatmulCombine { linear, splits }, MatmulCombineBindings { workspace: target, out: out.buffer, bias });
            }
        }
    }

    /// Puts the rows into [`Buffers::activations_q8`], unless they are there.
    fn record_quantize(&self, r: &mut Recording, linear: &Linear, x: &Operand) {
        let order = MatmulInt8::order(&linear.layout);
        if x.bytes.replace(Some(order)) == Some(order) {
            return;
        }
        let kernel = QuantizeRows { rows: linear.rows, n_in: linear.layout.cols, x_offset: x.offset, x_stride: x.stride, order };
        r.dispatch(
            kernel,
            QuantizeRowsBindings { x: x.buffer, bytes: self.buffers.activations_q8, scales: self.buffers.activation_scales },
        );
    }
}

/// How a layer rotates queries and keys.
fn rotary(spec: &AttentionSpec) -> Rotary {
    let rope = spec.rope.as_ref();
    Rotary {
        rotated: rope.map_or(0, |rope| rope.rotated),
        pairing: rope.map_or(RopePairing::Halves, |rope| rope.pairing),
        magnitude: rope.map_or(1.0, |rope| rope.magnitude),
        temperature: rope.and_then(|rope| rope.temperature),
    }
}

/// [`Model::rope_constants`]; layers without a norm share those of the same rotary embedding.
fn load_rope_constants(loader: &mut Loader<'_>, spec: &ModelSpec, options: &ModelOptions, layers: &[Layer]) -> Result<Vec<BufferId>> {
    let mut kinds: Vec<(Option<&RopeSpec>, Floats, Option<BufferId>)> = Vec::new();
    let mut constants = Vec::with_capacity(layers.len());
    for (layer, spec) in layers.iter().zip(&spec.layers) {
        let rope = spec.attention().rope.as_ref();
        let kind = match kinds.iter().position(|(kind, ..)| *kind == rope) {
            Some(kind) => kind,
            None => {
                kinds.push((rope, rope_frequencies(loader, rope, options)?, None));
                kinds.len() - 1
            }
        };
        let (_, frequencies, shared) = &mut kinds[kind];
        let norm = layer.qk_norm.as_ref().filter(|norm| norm.of_each_head);
        constants.push(match (norm, *shared) {
            (Some(norm), _) => loader.buffer("rope constants", &[*frequencies, norm.values[0], norm.values[1]])?,
            (None, Some(buffer)) => buffer,
            (None, None) => *shared.insert(loader.buffer("rope constants", &[*frequencies])?),
        });
    }
    Ok(constants)
}

/// The frequencies of a rotary embedding, or something to bind where there is none.
fn rope_frequencies(loader: &mut Loader<'_>, rope: Option<&RopeSpec>, options: &ModelOptions) -> Result<Floats> {
    let Some(rope) = rope.cloned() else { return loader.computed(&[], 1, |_| vec![0.0]) };
    let long = if options.context > rope.original_context { LONG_ROPE_FACTORS } else { SHORT_ROPE_FACTORS };
    let pairs = rope.rotated / 2;
    let mut factors = Vec::new();
    if rope.factors {
        factors.extend([ROPE_FACTORS, long].into_iter().filter(|name| loader.has(name)).map(|name| (name, pairs)));
    }
    loader.computed(&factors, pairs, move |factors| rope.frequencies(factors.last().map(Vec::as_slice)))
}
