//! Activations and state on the device.

use std::collections::BTreeSet;

use super::padding::padded_width;
use super::spec::{ModelSpec, OutputNorm};
use super::transformer::{MATVEC_ROWS, ModelOptions};
use crate::error::Result;
use crate::executor::Executor;
use crate::kernels::{AttentionPrefill, AttentionTier, Matmul, MatmulInt8, QuantizeRows, Splits};
use crate::recording::BufferId;

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
    /// `f32 (dim)`: the embedding of a text, where the model makes any.
    pub embedding: BufferId,
    /// `f32 (rows, dim)`: residual stream.
    pub(super) x: BufferId,
    /// `f32 (rows, dim)`: normalized.
    pub(super) normed: BufferId,
    /// `f32 (rows, dim)`: what a branch gives before it is normalized, or the residual stream in turn with x.
    pub(super) branch: BufferId,
    /// `f32 (rows, (heads + 2 kv_heads) * head_dim)`.
    pub(super) qkv: BufferId,
    /// `f32 (rows, heads * head_dim)`.
    pub(super) attended: BufferId,
    /// `f32 (rows, 2 * feed_forward)`, gate and up interleaved.
    pub(super) gate_up: BufferId,
    /// `f32 (rows, feed_forward)`.
    pub(super) activated: BufferId,
    /// `f32 (rows, heads, splits, head_dim + 4)`: what parts of the cache give.
    pub(super) workspace: BufferId,
    /// `f32 (splits, rows, outputs)`: parts of a product.
    pub(super) splitk_workspace: BufferId,
    /// `i8 (rows, dim)`, or what a product has instead: its rows as bytes.
    pub(super) activations_q8: BufferId,
    /// `f32 (rows, dim / 32)`: their scales.
    pub(super) activation_scales: BufferId,
}

impl Buffers {
    /// Makes them all.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub(super) fn create(
        executor: &mut Executor,
        spec: &ModelSpec,
        options: &ModelOptions,
        pages_per_slot: u32,
        tier: AttentionTier,
    ) -> Result<Self> {
        let rows = options.prefill_rows.max(options.sequences);
        let splits = Splits::of(options.context, spec.head_dim()).count;
        let heads = spec.widest(|layer| layer.attention().heads);
        let qkv = spec.widest(|layer| layer.attention().qkv_row());
        let feed_forward = spec.widest(|layer| layer.dense().width);
        let gated = spec.layers.iter().any(|layer| layer.dense().gated);
        // A product reads beyond a row that is no multiple of what it reads at once, and multiplies that by zeros.
        let attended = spec.widest(|layer| layer.attention().output_row());
        let over_reads = spec.attentions().any(|attention| padded_width(attention.output_row()) != attention.output_row());
        let head_counts: BTreeSet<u32> = spec.attentions().map(|attention| attention.heads).collect();
        let parts_read = |heads| AttentionPrefill::max_workspace(heads, options.prefill_rows, tier, executor.capabilities());
        let parts_read = head_counts.into_iter().map(parts_read).max().unwrap_or(0);
        // Few rows are multiplied without parts.
        let widest = if rows > MATVEC_ROWS { qkv.max(2 * feed_forward).max(spec.dim).max(spec.vocab) } else { 0 };
        let splitk_workspace = Matmul::max_workspace(executor.capabilities(), rows, widest);
        let splitk_workspace = executor.create_buffer("product parts", 4 * splitk_workspace)?;
        let wide =
            if rows > MATVEC_ROWS && MatmulInt8::used(executor.capabilities()) { spec.dim.max(feed_forward).max(attended) } else { 0 };
        let [activations_q8, activation_scales] = QuantizeRows::sizes(rows, wide);
        let activations_q8 = executor.create_buffer("x as bytes", activations_q8)?;
        let activation_scales = executor.create_buffer("scales of x", activation_scales)?;
        let mut buffer = |label: &str, a: u32, b: u32| executor.create_buffer(label, 4 * u64::from(a) * u64::from(b));
        let encodes = spec.head.pooling.is_some();
        let attended_rows = rows + u32::from(over_reads);
        // Where a branch's output or an embedding waits for its norm.
        let norms_outputs = spec.embedding.norm || spec.layers.iter().any(|layer| layer.norms.output != OutputNorm::None);
        let branch_rows = if norms_outputs { rows } else { 0 };
        let gate_up_rows = if gated { rows } else { 0 };
        // Encoders make no logits, and decode nothing.
        let (logit_rows, decode_rows) = if spec.is_causal() { (options.sequences, options.sequences) } else { (0, 0) };
        Ok(Self {
            prefill_rows: buffer("prefill rows", options.prefill_rows, 4)?,
            decode_rows: buffer("decode rows", options.sequences, 4)?,
            pages: buffer("pages", options.sequences, pages_per_slot)?,
            logits: buffer("logits", logit_rows, spec.vocab)?,
            embedding: buffer("embedding", u32::from(encodes), spec.dim)?,
            x: buffer("x", rows, spec.dim)?,
            normed: buffer("normed", rows, spec.dim)?,
            branch: buffer("branch", branch_rows, spec.dim)?,
            qkv: buffer("qkv", rows, qkv)?,
            attended: buffer("attended", attended_rows, attended)?,
            gate_up: buffer("gate_up", gate_up_rows, 2 * feed_forward)?,
            activated: buffer("activated", rows, feed_forward)?,
            workspace: buffer("partial", parts_read.max(decode_rows * heads * splits), spec.head_dim() + 4)?,
            splitk_workspace,
            activations_q8,
            activation_scales,
        })
    }
}
