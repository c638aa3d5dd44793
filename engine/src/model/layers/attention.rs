//! Attention with keys and values of all positions in the cache.

use super::super::loader::{Floats, Loader};
use super::super::padding::padded_width;
use super::super::pass::{Act, Attend, PassRecorder};
use super::super::spec::{AttentionSpec, ModelSpec, QkNormSpec};
use super::super::state::KvCache;
use super::linear::{Operand, Projection};
use super::norm::{NormWeights, QkNormWeights};
use super::packed::Stacked;
use super::rope::rotary;
use crate::error::Result;
use crate::exec::BufferId;
use crate::kernels::{
    AttentionCombine, AttentionCombineBindings, AttentionDecode, AttentionDecodeBindings, AttentionPrefill, AttentionPrefillBindings,
    AttentionShape, AttentionTier, HeadNorm, RopeKv, RopeKvBindings, Splits,
};

/// Attention of one layer.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(super) spec: AttentionSpec,
    qkv: Stacked,
    pub(super) qk_norm: Option<QkNormWeights>,
    /// One for each head.
    pub(super) sinks: Option<Floats>,
    /// Before [`Self::output`].
    pub(super) sub_norm: Option<NormWeights>,
    /// From the heads to the residual stream.
    pub(super) output: Projection,
}

/// What attention of one layer reads and writes besides its weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionBuffers {
    /// Keys and values.
    pub(crate) cache: KvCache,
    /// See [`load_constants`](super::load_constants).
    pub(crate) rope_constants: BufferId,
}

impl Attention {
    /// Loads the attention of layer `i`.
    pub(super) fn load(loader: &mut Loader<'_>, model: &ModelSpec, spec: &AttentionSpec, i: u32) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let parts = [(name("attn_q"), spec.query_row()), (name("attn_k"), spec.key_row()), (name("attn_v"), spec.value_row())];
        Ok(Self {
            spec: spec.clone(),
            qkv: Stacked::load(loader, &name("attn_qkv"), &parts, model.row())?,
            qk_norm: QkNormWeights::load(loader, spec, model.norm, i)?,
            sinks: if spec.sinks { Some(loader.floats(&name("attn_sinks.weight"), spec.heads)?) } else { None },
            sub_norm: loader.sub_norm(&name("attn_sub_norm"), spec.output_row(), spec.sub_norm)?,
            output: loader.projection(&name("attn_output"), model.row(), padded_width(spec.output_row()))?,
        })
    }

    /// Whether one kernel rotates queries and keys, fills the cache and attends.
    pub(super) fn fuses(&self, attend: Attend) -> bool {
        matches!(attend, Attend::Decode { .. }) && AttentionDecode::serves(self.spec.key_dim)
    }

    /// Puts the keys and values of the rows into the cache; not where that is [fused](Self::fuses) with attention. Returns queries, keys
    /// and values.
    pub(super) fn record_cache(&self, pass: &mut PassRecorder<'_>, x: Operand, buffers: &AttentionBuffers) -> Act {
        let qkv = self.qkv.record(pass, x);
        self.record_qk_norm(pass, &qkv);
        let kernel = RopeKv {
            rows: qkv.rows,
            heads: self.spec.heads,
            kv_heads: self.spec.kv_heads,
            head_dim: self.spec.key_dim,
            rotary: rotary(&self.spec),
            weighted: self.spec.qk_norm == Some(QkNormSpec::RotatedHead),
            pages_per_slot: pass.pages_per_slot,
            kv: pass.options.kv,
        };
        let KvCache { keys, values, .. } = buffers.cache;
        let (pages, rows) = (pass.buffers.pages_of(&buffers.cache), pass.rows_buffer);
        let bindings = RopeKvBindings { qkv: qkv.buffer, keys, values, pages, rows, rope_constants: buffers.rope_constants };
        pass.dispatch(kernel, bindings);
        qkv
    }

    /// The heads' values, weighted by attention.
    pub(super) fn record_heads(&self, pass: &mut PassRecorder<'_>, x: Operand, buffers: &AttentionBuffers) -> Act {
        match pass.pass.attend {
            Attend::Decode { splits } if self.fuses(pass.pass.attend) => self.record_decode(pass, x, splits, buffers),
            attend => {
                let qkv = self.record_cache(pass, x, buffers);
                let tier = if attend == Attend::Prefill { pass.tier } else { AttentionTier::Streaming };
                self.record_prefill(pass, &qkv, tier, buffers)
            }
        }
    }

    fn record_decode(&self, pass: &mut PassRecorder<'_>, x: Operand, splits: Splits, buffers: &AttentionBuffers) -> Act {
        let qkv = self.qkv.record(pass, x);
        let behind_rotation = self.spec.qk_norm == Some(QkNormSpec::RotatedHead);
        let of_each_head = self.qk_norm.as_ref().filter(|norm| norm.of_each_head);
        let qk_norm = of_each_head.map(|norm| HeadNorm { eps: norm.norm.eps, behind_rotation });
        if qk_norm.is_none() {
            self.record_qk_norm(pass, &qkv);
        }
        let out = pass.rows_to_multiply(self.spec.output_row());
        let combine = self.combine(qkv.rows, splits.count);
        let workspace = pass.workspace(combine.workspace_bytes());
        let kernel = AttentionDecode { shape: self.shape(pass), rows: qkv.rows, splits, rotary: rotary(&self.spec), qk_norm };
        let bindings = AttentionDecodeBindings {
            qkv: qkv.buffer,
            keys: buffers.cache.keys,
            values: buffers.cache.values,
            pages: pass.buffers.pages_of(&buffers.cache),
            rows: pass.rows_buffer,
            rope_constants: buffers.rope_constants,
            out: out.buffer,
            workspace: workspace.buffer,
        };
        pass.dispatch(kernel, bindings);
        if splits.count > 1 {
            pass.dispatch(combine, self.combine_bindings(workspace.buffer, &out, buffers));
        }
        out
    }

    fn record_prefill(&self, pass: &mut PassRecorder<'_>, qkv: &Act, tier: AttentionTier, buffers: &AttentionBuffers) -> Act {
        let (shape, rows) = (self.shape(pass), qkv.rows);
        let splits = match pass.pass.attend {
            Attend::Prefill => AttentionPrefill::splits(shape.heads, pass.pass.run, tier, pass.capabilities),
            Attend::Decode { .. } => 1,
        };
        let out = pass.rows_to_multiply(self.spec.output_row());
        let combine = self.combine(rows, splits);
        let workspace = (splits > 1).then(|| pass.workspace(combine.workspace_bytes()));
        let bindings = AttentionPrefillBindings {
            q: qkv.buffer,
            keys: buffers.cache.keys,
            values: buffers.cache.values,
            pages: pass.buffers.pages_of(&buffers.cache),
            constants: self.sinks.map(|_| buffers.rope_constants),
            rows: pass.rows_buffer,
            out: workspace.as_ref().map_or(out.buffer, |workspace| workspace.buffer),
        };
        pass.dispatch(AttentionPrefill { shape, rows, tier, splits }, bindings);
        if let Some(workspace) = workspace {
            pass.dispatch(combine, self.combine_bindings(workspace.buffer, &out, buffers));
        }
        out
    }

    fn record_qk_norm(&self, pass: &mut PassRecorder<'_>, qkv: &Act) {
        if let Some(norm) = &self.qk_norm {
            norm.record(pass, &self.spec, qkv);
        }
    }

    fn shape(&self, pass: &PassRecorder<'_>) -> AttentionShape {
        let spec = &self.spec;
        AttentionShape {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.key_dim,
            q_stride: spec.qkv_row(),
            pages_per_slot: pass.pages_per_slot,
            window: spec.window.left.unwrap_or(0),
            right_window: spec.window.right.unwrap_or(pass.options.context),
            scale: spec.scale,
            cap: spec.cap,
            sinks: self.sinks_at(),
            kv: pass.options.kv,
        }
    }

    fn combine(&self, rows: u32, splits: u32) -> AttentionCombine {
        AttentionCombine { heads: self.spec.heads, head_dim: self.spec.key_dim, rows, splits, sinks: self.sinks_at() }
    }

    fn combine_bindings(&self, workspace: BufferId, out: &Act, buffers: &AttentionBuffers) -> AttentionCombineBindings {
        AttentionCombineBindings { workspace, out: out.buffer, constants: self.sinks.map(|_| buffers.rope_constants) }
    }

    /// Where the sinks begin in the layer's constants; 0: there are none.
    fn sinks_at(&self) -> u32 {
        let norms = if self.qk_norm.as_ref().is_some_and(|norm| norm.of_each_head) { 2 * self.spec.key_dim } else { 0 };
        self.sinks.map_or(0, |_| rotary(&self.spec).norm_weights() + norms)
    }
}
