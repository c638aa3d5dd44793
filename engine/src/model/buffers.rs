//! Activations and state on the device.

use super::architecture::Block;
use super::hyperparameters::Hyperparameters;
use super::padding::padded_width;
use super::transformer::{MATVEC_ROWS, ModelOptions};
use crate::error::Result;
use crate::executor::Executor;
use crate::kernels::{AttentionPrefill, AttentionTier, Matmul, MatmulBytes, QuantizeRows, Splits};
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
    pub(super) partial: BufferId,
    /// `f32 (splits, rows, outputs)`: parts of a product.
    pub(super) product_parts: BufferId,
    /// `i8 (rows, dim)`, or what a product has instead: its rows as bytes.
    pub(super) x_bytes: BufferId,
    /// `f32 (rows, dim / 32)`: their scales.
    pub(super) x_scales: BufferId,
}

impl Buffers {
    /// Makes them all.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub(super) fn create(
        executor: &mut Executor,
        h: &Hyperparameters,
        options: &ModelOptions,
        pages_per_slot: u32,
        tier: AttentionTier,
    ) -> Result<Self> {
        let rows = options.prefill_rows.max(options.sequences);
        let splits = Splits::of(options.context, h.head_dim).count;
        let parts_read = AttentionPrefill::most_partial(h.heads, options.prefill_rows, tier, executor.capabilities());
        // Few rows are multiplied without parts.
        let widest = if rows > MATVEC_ROWS { h.qkv_dim().max(2 * h.feed_forward).max(h.dim).max(h.vocab) } else { 0 };
        let product_parts = Matmul::most_partial(executor.capabilities(), rows, widest);
        let product_parts = executor.create_buffer("product parts", 4 * product_parts)?;
        let wide = if rows > MATVEC_ROWS && MatmulBytes::used(executor.capabilities()) {
            h.dim.max(h.feed_forward).max(h.heads * h.head_dim)
        } else {
            0
        };
        let [x_bytes, x_scales] = QuantizeRows::sizes(rows, wide);
        let x_bytes = executor.create_buffer("x as bytes", x_bytes)?;
        let x_scales = executor.create_buffer("scales of x", x_scales)?;
        let mut buffer = |label: &str, a: u32, b: u32| executor.create_buffer(label, 4 * u64::from(a) * u64::from(b));
        let encodes = h.pooling.is_some();
        // A product reads beyond a row that is no multiple of what it reads at once, and multiplies that by zeros.
        let attended = h.heads * h.head_dim;
        let attended_rows = rows + u32::from(padded_width(attended) != attended);
        let branch_rows = if h.architecture.block == Block::PreNorm { 0 } else { rows };
        let gate_up_rows = if h.architecture.gated { rows } else { 0 };
        // Encoders make no logits, and decode nothing.
        let (logit_rows, decode_rows) = if h.architecture.causal { (options.sequences, options.sequences) } else { (0, 0) };
        Ok(Self {
            prefill_rows: buffer("prefill rows", options.prefill_rows, 4)?,
            decode_rows: buffer("decode rows", options.sequences, 4)?,
            pages: buffer("pages", options.sequences, pages_per_slot)?,
            logits: buffer("logits", logit_rows, h.vocab)?,
            embedding: buffer("embedding", u32::from(encodes), h.dim)?,
            x: buffer("x", rows, h.dim)?,
            normed: buffer("normed", rows, h.dim)?,
            branch: buffer("branch", branch_rows, h.dim)?,
            qkv: buffer("qkv", rows, h.qkv_dim())?,
            attended: buffer("attended", attended_rows, attended)?,
            gate_up: buffer("gate_up", gate_up_rows, 2 * h.feed_forward)?,
            activated: buffer("activated", rows, h.feed_forward)?,
            partial: buffer("partial", parts_read.max(decode_rows * h.heads * splits), h.head_dim + 4)?,
            product_parts,
            x_bytes,
            x_scales,
        })
    }
}
