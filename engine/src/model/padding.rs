//! Widths that are no multiple of what kernels read at once, filled up with zeros: the results are the same.

use super::spec::{FfnSpec, LayerSpec, ModelSpec, NormSpec};
use crate::formats::{Checkpoint, TensorInfo, Transform};

/// Values that kernels read at once.
const AT_ONCE: u32 = 8;

/// A width with its padding.
pub(super) fn padded_width(width: u32) -> u32 {
    width.next_multiple_of(AT_ONCE)
}

impl ModelSpec {
    /// Elements of a row of the residual stream: its width and zeros.
    pub fn row(&self) -> u32 {
        padded_width(self.dim)
    }

    /// The part of a row that is no padding, from 0 to 1.
    fn share(&self) -> f64 {
        f64::from(self.dim) / f64::from(self.row())
    }

    /// The norms of whole rows. Their zeros lower a row's mean square to its share, and epsilon with it; see [`Self::norm_factor`].
    pub(super) fn row_norm(&self) -> NormSpec {
        NormSpec { eps: (f64::from(self.norm.eps) * self.share()) as f32, ..self.norm }
    }

    /// Factor on the weights of [`Self::row_norm`] for the results of the norm without padding.
    pub(super) fn norm_factor(&self) -> f64 {
        self.share().sqrt()
    }
}

/// `values` times `factor` and zeros, `row` elements together.
pub(super) fn padded_row(values: &[f32], factor: f64, row: u32) -> Vec<f32> {
    let scaled = values.iter().map(|value| (f64::from(*value) * factor) as f32);
    scaled.chain(std::iter::repeat(0.0)).take(row as usize).collect()
}

/// The checkpoint with zeros behind what is as long as the residual stream, but for norms, whose weights the loader pads; behind the
/// rows and columns of feed-forward networks, whose widths in `spec` become the padded ones; and behind the columns of attention's
/// output. `None` when nothing needs it.
pub(super) fn padded(checkpoint: &Checkpoint, spec: &mut ModelSpec) -> Option<Checkpoint> {
    let width = |layer: &LayerSpec| layer.dense().map_or(0, |dense| dense.width);
    let widths: Vec<(u32, u32)> = spec.layers.iter().map(|layer| (width(layer), layer.attention().output_row())).collect();
    let dim = spec.dim;
    if std::iter::once(dim).chain(widths.iter().flat_map(|(a, b)| [*a, *b])).all(|width| width == padded_width(width)) {
        return None;
    }
    for layer in &mut spec.layers {
        if let FfnSpec::Dense(dense) = &mut layer.ffn {
            dense.width = padded_width(dense.width);
        }
    }
    let mut padded = checkpoint.clone();
    for tensor in &mut padded.tensors {
        let in_layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let (part, (width, attended)) = match in_layer {
            None => (tensor.name.as_str(), (0, 0)),
            Some((layer, part)) => match layer.parse().ok().and_then(|layer: usize| widths.get(layer)) {
                Some(sizes) => (part, *sizes),
                None => continue,
            },
        };
        let (cols, rows) = match part {
            "token_embd.weight"
            | "position_embd.weight"
            | "token_types.weight"
            | "output.weight"
            | "dense_2.weight"
            | "attn_q.weight"
            | "attn_k.weight"
            | "attn_v.weight"
            | "attn_qkv.weight"
            | "attn_output.bias"
            | "ffn_down.bias" => (Some(dim), None),
            "dense_3.weight" => (None, Some(dim)),
            "attn_output.weight" => (Some(attended), Some(dim)),
            "ffn_gate.weight" | "ffn_up.weight" => (Some(dim), Some(width)),
            "ffn_gate.bias" | "ffn_up.bias" => (Some(width), None),
            "ffn_down.weight" => (Some(width), Some(dim)),
            _ => continue,
        };
        pad(tensor, cols, rows);
    }
    Some(padded)
}

/// Pads a tensor of `cols` columns and of once or twice `rows` rows (gate and up in one); `None` stays as it is. A tensor of another
/// shape is left for the loader to refuse.
fn pad(tensor: &mut TensorInfo, cols: Option<u32>, rows: Option<u32>) {
    let Some(&stored_cols) = tensor.shape.first() else { return };
    let stored_rows = tensor.rows();
    let groups = if rows.is_some_and(|rows| stored_rows == 2 * u64::from(rows)) { 2 } else { 1 };
    let fits = |size: Option<u32>, stored: u64| size.is_none_or(|size| u64::from(size) == stored);
    if !fits(cols, stored_cols) || !fits(rows, stored_rows / groups) {
        return;
    }
    let mut shape = tensor.shape.clone();
    if let Some(cols) = cols {
        shape[0] = padded_width(cols).into();
    }
    if let (Some(rows), Some(size)) = (rows, shape.get_mut(1)) {
        *size = groups * u64::from(padded_width(rows));
    }
    if shape != tensor.shape {
        tensor.transform = Some(Transform::Pad { stored: Box::new(tensor.clone()), groups });
        tensor.shape = shape;
    }
}
