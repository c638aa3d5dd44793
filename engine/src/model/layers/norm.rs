//! Norms of rows, and of queries and keys.

use super::super::loader::{Floats, Loader};
use super::super::pass::{Act, PassRecorder};
use super::super::spec::{AttentionSpec, NormSpec, QkNormSpec};
use super::linear::Operand;
use crate::error::Result;
use crate::exec::BufferId;
use crate::kernels::{Norm, NormBindings, NormKind, QkNorm, QkNormBindings};

/// Weights of a norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormWeights {
    pub(crate) weight: BufferId,
    pub(crate) bias: Option<BufferId>,
}

impl NormWeights {
    /// `out = norm(x)`, or added to `out`.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, x: &Act, out: &Act, add: bool) {
        let NormSpec { kind, eps, .. } = pass.norm;
        let kernel =
            Norm { kind, rows: x.rows, dim: x.stride, x_offset: x.offset, out_offset: out.offset, eps, bias: self.bias.is_some(), add };
        pass.dispatch(kernel, NormBindings { x: x.buffer, weight: self.weight, bias: self.bias, out: out.buffer });
    }

    /// `norm(x)` in rows of its own.
    pub(super) fn record_new(&self, pass: &mut PassRecorder<'_>, x: &Act) -> Act {
        let out = pass.rows(x.rows, x.stride);
        self.record(pass, x, &out, false);
        out
    }
}

/// Rows to be multiplied, normalized first where there is a norm.
pub(super) fn operand(norm: Option<&NormWeights>, x: &Act) -> Operand {
    match norm {
        None => Operand::plain(x.clone()),
        Some(norm) => Operand::normalized(x.clone(), *norm),
    }
}

/// Norms of queries and keys with the number of their weights.
#[derive(Debug)]
pub(crate) struct QkNormWeights {
    pub(super) norm: NormSpec,
    span: QkNormSpec,
    q: (BufferId, u32),
    k: (BufferId, u32),
    /// Each head is normalized, with the same weights, which [`AttentionDecode`](crate::kernels::AttentionDecode) can do itself.
    pub(super) of_each_head: bool,
    /// The weights of q and k, for the buffer that they share with the frequencies of the rotary embedding.
    pub(super) values: [Floats; 2],
}

impl QkNormWeights {
    /// Loads the norms of layer `i`, where it has them.
    pub(super) fn load(loader: &mut Loader<'_>, spec: &AttentionSpec, norm: NormSpec, i: u32) -> Result<Option<Self>> {
        let Some(span) = spec.qk_norm else { return Ok(None) };
        let head_dim = spec.key_dim;
        let rotated = span == QkNormSpec::RotatedHead;
        // Weights of rotated heads wait for the rotation.
        let ones = if rotated { Some(loader.computed(&[], head_dim, move |_| vec![1.0; head_dim as usize])?) } else { None };
        let mut load = |part: &str, heads: u32| -> Result<_> {
            let name = format!("blk.{i}.attn_{part}_norm.weight");
            // One weight for each element of a head, or of all heads of a row.
            let elements = loader.elements(&name)?;
            let count = if rotated || elements == u64::from(head_dim) { head_dim } else { heads * head_dim };
            let values = loader.floats(&name, count)?;
            Ok(((loader.buffer(&name, &[ones.unwrap_or(values)])?, count), values))
        };
        let (q, q_values) = load("q", spec.heads)?;
        let (k, k_values) = load("k", spec.kv_heads)?;
        let of_each_head = norm.kind == NormKind::Rms && q.1 + k.1 == 2 * head_dim;
        Ok(Some(Self { norm, span, q, k, of_each_head, values: [q_values, k_values] }))
    }

    /// Normalizes the queries and keys of `qkv` in place.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, spec: &AttentionSpec, qkv: &Act) {
        let segments = |heads: u32| match self.span {
            QkNormSpec::Row => (1, heads * spec.key_dim),
            QkNormSpec::Head | QkNormSpec::RotatedHead => (heads, spec.key_dim),
        };
        let kernel = QkNorm {
            kind: self.norm.kind,
            rows: qkv.rows,
            row_stride: qkv.stride,
            q_segments: segments(spec.heads),
            k_segments: segments(spec.kv_heads),
            q_weights: self.q.1,
            k_weights: self.k.1,
            eps: self.norm.eps,
        };
        pass.dispatch(kernel, QkNormBindings { qkv: qkv.buffer, q_weight: self.q.0, k_weight: self.k.0 });
    }
}
