//! Widths that are no multiple of what kernels read at once, filled up with zeros: the results are the same.

use super::spec::{FfnSpec, ModelSpec};
use crate::error::{EngineError, Result};
use crate::formats::{Checkpoint, TensorInfo, Transform};

/// Values that kernels read at once.
const AT_ONCE: u32 = 8;

/// A width with its padding.
pub(super) fn padded_width(width: u32) -> u32 {
    width.next_multiple_of(AT_ONCE)
}

/// The checkpoint with zeros behind the rows and columns of feed-forward networks, whose widths in `spec` become the padded ones, and
/// behind the columns of attention's output; `None` when nothing needs it.
///
/// # Errors
/// When a tensor of a model folder would need it that is stored in another order.
pub(super) fn padded(checkpoint: &Checkpoint, spec: &mut ModelSpec) -> Result<Option<Checkpoint>> {
    let widths: Vec<(u32, u32)> = spec.layers.iter().map(|layer| (layer.dense().width, layer.attention().output_row())).collect();
    if widths.iter().all(|(width, attended)| *width == padded_width(*width) && *attended == padded_width(*attended)) {
        return Ok(None);
    }
    for layer in &mut spec.layers {
        let FfnSpec::Dense(dense) = &mut layer.ffn;
        dense.width = padded_width(dense.width);
    }
    let mut padded = checkpoint.clone();
    for tensor in &mut padded.tensors {
        let name = tensor.name.clone();
        let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else { continue };
        let Some(&(width, attended)) = layer.parse().ok().and_then(|layer: usize| widths.get(layer)) else { continue };
        match part {
            "ffn_down.weight" | "ffn_gate.bias" | "ffn_up.bias" => pad(tensor, 0, width, 1)?,
            "ffn_gate.weight" | "ffn_up.weight" => {
                let groups = tensor.shape.get(1).copied().unwrap_or(0) / u64::from(width);
                pad(tensor, 1, width, groups.clamp(1, 2))?;
            }
            "attn_output.weight" => pad(tensor, 0, attended, 1)?,
            _ => {}
        }
    }
    Ok(Some(padded))
}

/// Pads a dimension of `width`, `groups` times that. A tensor of another shape is left as it is, for the loader to refuse.
fn pad(tensor: &mut TensorInfo, dimension: usize, width: u32, groups: u64) -> Result<()> {
    let wanted = padded_width(width);
    if wanted == width || tensor.shape.get(dimension) != Some(&(groups * u64::from(width))) {
        return Ok(());
    }
    if tensor.transform.is_some() {
        return Err(EngineError::Unsupported {
            what: "width",
            value: format!("{width} of {}", tensor.name),
            supported: format!("multiples of {AT_ONCE} in a model folder; choose a GGUF file of the model"),
        });
    }
    tensor.transform = Some(Transform::Pad { cols: tensor.shape[0], rows: tensor.rows() / groups, groups });
    tensor.shape[dimension] = groups * u64::from(wanted);
    Ok(())
}
