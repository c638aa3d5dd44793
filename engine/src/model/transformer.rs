//! The forward pass of the llama family (Touvron et al. 2023), written once over kernels.

use crate::error::Result;
use crate::executor::Executor;
use crate::formats::Checkpoint;
use crate::kernels::{
    AttentionCombine, AttentionDecode, AttentionPrefill, AttentionShape, AttentionTier, DECODE_SPLIT, Embed, Epilogue, KvFormat, Linear,
    Matmul, Matvec, PAGE, RmsNorm, RopeKv, SiluMul,
};
use crate::model::hyperparameters::Hyperparameters;
use crate::model::weights::{Loader, Weight};
use crate::recording::{BufferId, Recording};
use crate::source::Source;

/// Rows up to which a product reads x anew for each output instead of tiling it.
const MATVEC_ROWS: u32 = 8;

/// How much a model may use at run time.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// Positions of one sequence; clipped to what the model was trained for.
    pub context: u32,
    /// Sequences at a time.
    pub sequences: u32,
    /// Rows of a prefill step.
    pub prefill_rows: u32,
    /// Elements of the cache.
    pub kv: KvFormat,
    /// Bytes of cache to stay under, as long as one sequence of `context` fits.
    pub kv_bytes: u64,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { context: 8192, sequences: 8, prefill_rows: 256, kv: KvFormat::F16, kv_bytes: 256 << 20 }
    }
}

/// A model on a device: weights, cache and activations.
#[derive(Debug)]
pub struct Model {
    /// Its shape.
    pub hyperparameters: Hyperparameters,
    /// What it may use; `context` is what was granted.
    pub options: ModelOptions,
    /// Pages of the cache.
    pub page_count: u32,
    /// Row length of [`Buffers::pages`].
    pub pages_per_slot: u32,
    /// Buffers that the scheduler writes and reads.
    pub buffers: Buffers,
    embedding: Weight,
    layers: Vec<Layer>,
    output_norm: BufferId,
    output: Option<Weight>,
    frequencies: BufferId,
    tier: AttentionTier,
}

/// Activations and state on the device. Shapes in elements.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// `Row (prefill_rows)`: the tokens of a prefill step.
    pub prefill_rows: BufferId,
    /// `Row (sequences)`: the newest token of each sequence.
    pub decode_rows: BufferId,
    /// `u32 (sequences, pages_per_slot)`.
    pub pages: BufferId,
    /// `f32 (sequences, vocab)`.
    pub logits: BufferId,
    /// `f32 (rows, dim)`: residual stream.
    x: BufferId,
    /// `f32 (rows, dim)`: normalized.
    normed: BufferId,
    /// `f32 (rows, (heads + 2 kv_heads) * head_dim)`.
    qkv: BufferId,
    /// `f32 (rows, heads * head_dim)`.
    attended: BufferId,
    /// `f32 (rows, 2 * feed_forward)`, gate and up interleaved.
    gate_up: BufferId,
    /// `f32 (rows, feed_forward)`.
    activated: BufferId,
    /// `f32 (sequences, heads, splits, head_dim + 4)`.
    partial: BufferId,
}

#[derive(Debug)]
struct Layer {
    attention_norm: BufferId,
    /// Parts with their first element in a row of qkv: one part, unless the file mixes types.
    qkv: Vec<(Weight, u32)>,
    attention_output: Weight,
    feed_forward_norm: BufferId,
    gate_up: Weight,
    down: Weight,
    keys: BufferId,
    values: BufferId,
}

/// How the rows of a pass attend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attend {
    /// Rows of different sequences; the longest cache has this many splits.
    Decode {
        /// Parts of [`DECODE_SPLIT`] positions.
        splits: u32,
    },
    /// Consecutive positions of one sequence.
    Prefill,
}

/// One pass through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    /// Rows, in [`Buffers::decode_rows`] or [`Buffers::prefill_rows`].
    pub rows: u32,
    /// How they attend.
    pub attend: Attend,
    /// For a prefill: put the last row's logits into this row. A decode computes all.
    pub logits_to: Option<u32>,
}

impl Pass {
    /// Splits that cover caches of up to `positions`, rounded up so that few programs serve all lengths.
    pub fn decode(rows: u32, positions: u32) -> Self {
        Self { rows, attend: Attend::Decode { splits: positions.div_ceil(DECODE_SPLIT).next_power_of_two() }, logits_to: None }
    }
}

impl Model {
    /// Loads a checkpoint onto a device.
    ///
    /// # Errors
    /// When the file is not a model that the engine can run, cannot be read, or does not fit the device.
    pub async fn load(
        executor: &mut Executor,
        checkpoint: &Checkpoint,
        source: &dyn Source,
        mut options: ModelOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self> {
        let h = Hyperparameters::from_gguf(checkpoint)?;
        options.context = options.context.min(h.context);
        let mut loader = Loader::new(executor, checkpoint, source, progress)?;
        let embedding = loader.stacked(&[("token_embd.weight", h.vocab)], h.dim).await?;
        let output = if loader.has("output.weight") { Some(loader.stacked(&[("output.weight", h.vocab)], h.dim).await?) } else { None };
        let output_norm = loader.vector("output_norm.weight", h.dim).await?;
        let frequencies = rope_frequencies(&mut loader, &h).await?;

        let pages_per_slot = options.context.div_ceil(PAGE);
        let page_bytes = h.kv_bytes_per_position(options.kv.bytes()) * u64::from(PAGE);
        let affordable = u32::try_from(options.kv_bytes / page_bytes).unwrap_or(u32::MAX);
        let page_count = affordable.clamp(pages_per_slot, pages_per_slot.saturating_mul(options.sequences));
        let mut layers = Vec::with_capacity(h.layers as usize);
        for i in 0..h.layers {
            layers.push(load_layer(&mut loader, &h, &options, i, page_count).await?);
        }
        loader.settle().await?;
        loader.finish()?;

        let tier = AttentionTier::choose(executor.capabilities(), h.head_dim);
        let buffers = Buffers::create(executor, &h, &options, pages_per_slot)?;
        executor.check()?;
        Ok(Self {
            hyperparameters: h,
            options,
            page_count,
            pages_per_slot,
            buffers,
            embedding,
            layers,
            output_norm,
            output,
            frequencies,
            tier,
        })
    }

    /// Frees every buffer of the model.
    pub fn unload(self, executor: &mut Executor) {
        let b = &self.buffers;
        let mut all = vec![
            b.prefill_rows,
            b.decode_rows,
            b.pages,
            b.logits,
            b.x,
            b.normed,
            b.qkv,
            b.attended,
            b.gate_up,
            b.activated,
            b.partial,
            self.output_norm,
            self.frequencies,
        ];
        let mut weights: Vec<&Weight> = self.output.iter().chain([&self.embedding]).collect();
        for layer in &self.layers {
            all.extend([layer.attention_norm, layer.feed_forward_norm, layer.keys, layer.values]);
            weights.extend(layer.qkv.iter().map(|(w, _)| w).chain([&layer.attention_output, &layer.gate_up, &layer.down]));
        }
        all.extend(weights.iter().flat_map(|w| &w.slabs).map(|s| s.buffer));
        for buffer in all {
            executor.destroy_buffer(buffer);
        }
    }

    /// Uses another attention kernel for prefill than the device's best: for tests and tuning.
    pub fn set_attention_tier(&mut self, tier: AttentionTier) {
        self.tier = tier;
    }

    /// Records a pass: from tokens to logits.
    pub fn record(&self, pass: &Pass) -> Recording {
        let h = &self.hyperparameters;
        let b = &self.buffers;
        let rows_buffer = if pass.attend == Attend::Prefill { b.prefill_rows } else { b.decode_rows };
        let mut r = Recording::new();
        for slab in &self.embedding.slabs {
            let embed =
                Embed { layout: self.embedding.layout, rows: pass.rows, first_token: slab.first_row, tokens: slab.rows, scale: 1.0 };
            r.dispatch(embed, &[slab.buffer, rows_buffer, b.x]);
        }
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            self.record_attention(&mut r, pass, layer, rows_buffer);
            // A prefill step without logits is done once the last layer's keys and values are written.
            if i == last && pass.attend == Attend::Prefill && pass.logits_to.is_none() {
                return r;
            }
            self.record_attention_output(&mut r, pass, layer);
            self.record_feed_forward(&mut r, pass, layer);
        }
        let (x_row, rows, logits_row) = match (pass.attend, pass.logits_to) {
            (Attend::Prefill, Some(to)) => (pass.rows - 1, 1, to),
            _ => (0, pass.rows, 0),
        };
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        let product = Product {
            weight: output,
            x: (b.x, x_row * h.dim, h.dim),
            out: (b.logits, logits_row * h.vocab, h.vocab),
            rows,
            epilogue: Epilogue::Store,
        };
        self.record_product(&mut r, &product, Some(self.output_norm));
        r
    }

    fn record_attention(&self, r: &mut Recording, pass: &Pass, layer: &Layer, rows_buffer: BufferId) {
        let h = &self.hyperparameters;
        let b = &self.buffers;
        let qkv_dim = h.qkv_dim();
        // With several parts the norm is applied once each: cheaper than another buffer for the rare mixed file.
        for (weight, offset) in &layer.qkv {
            let product =
                Product { weight, x: (b.x, 0, h.dim), out: (b.qkv, *offset, qkv_dim), rows: pass.rows, epilogue: Epilogue::Store };
            self.record_product(r, &product, Some(layer.attention_norm));
        }
        let rope = RopeKv {
            rows: pass.rows,
            heads: h.heads,
            kv_heads: h.kv_heads,
            head_dim: h.head_dim,
            rotated: h.rope.rotated,
            pairing: h.rope.pairing,
            pages_per_slot: self.pages_per_slot,
            kv: self.options.kv,
        };
        r.dispatch(rope, &[b.qkv, self.frequencies, b.pages, rows_buffer, layer.keys, layer.values]);
        let shape = AttentionShape {
            heads: h.heads,
            kv_heads: h.kv_heads,
            head_dim: h.head_dim,
            q_stride: qkv_dim,
            pages_per_slot: self.pages_per_slot,
            window: h.window,
            scale: 1.0 / (h.head_dim as f32).sqrt(),
            cap: 0.0,
            kv: self.options.kv,
        };
        let inputs = [b.qkv, layer.keys, layer.values, b.pages, rows_buffer, b.attended];
        match pass.attend {
            Attend::Decode { splits } if AttentionDecode::serves(h.head_dim) => {
                let [q, k, v, pages, rows, out] = inputs;
                r.dispatch(AttentionDecode { shape, rows: pass.rows, splits }, &[q, k, v, pages, rows, out, b.partial]);
                if splits > 1 {
                    let combine = AttentionCombine { heads: h.heads, head_dim: h.head_dim, rows: pass.rows, splits };
                    r.dispatch(combine, &[b.partial, b.attended]);
                }
            }
            Attend::Decode { .. } => r.dispatch(AttentionPrefill { shape, rows: pass.rows, tier: AttentionTier::Streaming }, &inputs),
            Attend::Prefill => r.dispatch(AttentionPrefill { shape, rows: pass.rows, tier: self.tier }, &inputs),
        }
    }

    fn record_attention_output(&self, r: &mut Recording, pass: &Pass, layer: &Layer) {
        let h = &self.hyperparameters;
        let b = &self.buffers;
        let product = Product {
            weight: &layer.attention_output,
            x: (b.attended, 0, h.heads * h.head_dim),
            out: (b.x, 0, h.dim),
            rows: pass.rows,
            epilogue: Epilogue::Add,
        };
        self.record_product(r, &product, None);
    }

    fn record_feed_forward(&self, r: &mut Recording, pass: &Pass, layer: &Layer) {
        let h = &self.hyperparameters;
        let b = &self.buffers;
        let rows = pass.rows;
        let x = (b.x, 0, h.dim);
        if rows <= MATVEC_ROWS {
            let out = (b.activated, 0, h.feed_forward);
            let product = Product { weight: &layer.gate_up, x, out, rows, epilogue: Epilogue::SiluMul };
            self.record_product(r, &product, Some(layer.feed_forward_norm));
        } else {
            let out = (b.gate_up, 0, 2 * h.feed_forward);
            let product = Product { weight: &layer.gate_up, x, out, rows, epilogue: Epilogue::Store };
            self.record_product(r, &product, Some(layer.feed_forward_norm));
            r.dispatch(SiluMul { rows, dim: h.feed_forward }, &[b.gate_up, b.activated]);
        }
        let product = Product { weight: &layer.down, x: (b.activated, 0, h.feed_forward), out: x, rows, epilogue: Epilogue::Add };
        self.record_product(r, &product, None);
    }

    /// `out = norm(x) * weight^T`, with the kernel that suits the number of rows.
    fn record_product(&self, r: &mut Recording, product: &Product<'_>, norm: Option<BufferId>) {
        let Product { weight, x: (x, x_offset, x_stride), out: (out, out_offset, out_stride), rows, epilogue } = *product;
        let eps = self.hyperparameters.eps;
        let few = rows <= MATVEC_ROWS;
        let (x, x_offset) = match norm {
            Some(norm_weight) if !few => {
                debug_assert_eq!(x_offset, 0, "many rows are normalized from the first on");
                r.dispatch(RmsNorm { rows, dim: x_stride, eps }, &[x, norm_weight, self.buffers.normed]);
                (self.buffers.normed, 0)
            }
            _ => (x, x_offset),
        };
        for slab in &weight.slabs {
            // Pairs of rows become one output.
            let first_out = if epilogue == Epilogue::SiluMul { slab.first_row / 2 } else { slab.first_row };
            let out_offset = out_offset + first_out;
            let linear = Linear { layout: weight.layout, n_out: slab.rows, rows, x_offset, x_stride, out_offset, out_stride, epilogue };
            if few {
                let mut buffers = vec![slab.buffer, x, out];
                buffers.extend(norm);
                r.dispatch(Matvec { linear, norm: norm.map(|_| eps) }, &buffers);
            } else {
                r.dispatch(Matmul(linear), &[slab.buffer, x, out]);
            }
        }
    }
}

/// Operands of a matrix product: buffers with first element and row stride.
struct Product<'a> {
    weight: &'a Weight,
    x: (BufferId, u32, u32),
    out: (BufferId, u32, u32),
    rows: u32,
    epilogue: Epilogue,
}

impl Buffers {
    fn create(executor: &mut Executor, h: &Hyperparameters, options: &ModelOptions, pages_per_slot: u32) -> Result<Self> {
        let rows = options.prefill_rows.max(options.sequences);
        let splits = options.context.div_ceil(DECODE_SPLIT).next_power_of_two();
        let mut buffer = |label: &str, a: u32, b: u32| executor.create_buffer(label, 4 * u64::from(a) * u64::from(b));
        Ok(Self {
            prefill_rows: buffer("prefill rows", options.prefill_rows, 4)?,
            decode_rows: buffer("decode rows", options.sequences, 4)?,
            pages: buffer("pages", options.sequences, pages_per_slot)?,
            logits: buffer("logits", options.sequences, h.vocab)?,
            x: buffer("x", rows, h.dim)?,
            normed: buffer("normed", rows, h.dim)?,
            qkv: buffer("qkv", rows, h.qkv_dim())?,
            attended: buffer("attended", rows, h.heads * h.head_dim)?,
            gate_up: buffer("gate_up", rows, 2 * h.feed_forward)?,
            activated: buffer("activated", rows, h.feed_forward)?,
            partial: buffer("partial", options.sequences * h.heads * splits, h.head_dim + 4)?,
        })
    }
}

async fn load_layer(loader: &mut Loader<'_>, h: &Hyperparameters, options: &ModelOptions, i: u32, pages: u32) -> Result<Layer> {
    let name = |suffix: &str| format!("blk.{i}.{suffix}.weight");
    let (q, k, v) = (name("attn_q"), name("attn_k"), name("attn_v"));
    let (q_rows, kv_rows) = (h.heads * h.head_dim, h.kv_heads * h.head_dim);
    let parts = [(q.as_str(), q_rows), (k.as_str(), kv_rows), (v.as_str(), kv_rows)];
    let same_type = loader.dtype(&q)? == loader.dtype(&k)? && loader.dtype(&q)? == loader.dtype(&v)?;
    let mut qkv = Vec::new();
    if same_type {
        qkv.push((loader.stacked(&parts, h.dim).await?, 0));
    } else {
        let mut offset = 0;
        for part in parts {
            qkv.push((loader.stacked(&[part], h.dim).await?, offset));
            offset += part.1;
        }
    }
    let kv_bytes = u64::from(pages) * u64::from(PAGE) * u64::from(kv_rows) * options.kv.bytes();
    Ok(Layer {
        attention_norm: loader.vector(&name("attn_norm"), h.dim).await?,
        qkv,
        attention_output: loader.stacked(&[(&name("attn_output"), h.dim)], q_rows).await?,
        feed_forward_norm: loader.vector(&name("ffn_norm"), h.dim).await?,
        gate_up: loader.interleaved(&name("ffn_gate"), &name("ffn_up"), h.feed_forward, h.dim).await?,
        down: loader.stacked(&[(&name("ffn_down"), h.dim)], h.feed_forward).await?,
        keys: loader.executor.create_buffer("keys", kv_bytes)?,
        values: loader.executor.create_buffer("values", kv_bytes)?,
    })
}

/// Angle of each pair at position 1: `base^(-2i / rotated)`, divided by llama 3's factors where the file has them.
async fn rope_frequencies(loader: &mut Loader<'_>, h: &Hyperparameters) -> Result<BufferId> {
    let pairs = h.rope.rotated / 2;
    let factors =
        if loader.has("rope_freqs.weight") { loader.floats("rope_freqs.weight", pairs).await? } else { vec![1.0; pairs as usize] };
    let frequencies: Vec<f32> = factors
        .iter()
        .enumerate()
        .map(|(i, factor)| {
            let exponent = -2.0 * i as f64 / f64::from(h.rope.rotated);
            (f64::from(h.rope.base).powf(exponent) / f64::from(*factor) / f64::from(h.rope.linear_factor)) as f32
        })
        .collect();
    let buffer = loader.executor.create_buffer("rope frequencies", 4 * u64::from(pairs))?;
    loader.executor.write(buffer, 0, bytemuck::cast_slice(&frequencies));
    Ok(buffer)
}
