//! Widths that are no multiple of what kernels read at once, filled up with zeros: the results are the same.

use super::hyperparameters::Hyperparameters;
use crate::error::{EngineError, Result};
use crate::formats::{Checkpoint, TensorInfo, Transform};

/// Values that kernels read at once.
const AT_ONCE: u32 = 8;

/// A width with its padding.
pub(super) fn padded_width(width: u32) -> u32 {
    width.next_multiple_of(AT_ONCE)
}

/// The checkpoint with zeros behind the rows and columns of the feed-forward network, whose width in `h` becomes the padded one, and
/// behind the columns of attention's output; `None` when nothing needs it.
///
/// # Errors
/// When a tensor of a model folder would need it that is stored in another order.
pub(super) fn padded(checkpoint: &Checkpoint, h: &mut Hyperparameters) -> Result<Option<Checkpoint>> {
    let (width, attended) = (h.feed_forward, h.heads * h.head_dim);
    h.feed_forward = padded_width(width);
    if h.feed_forward == width && attended == padded_width(attended) {
        return Ok(None);
    }
    let mut padded = checkpoint.clone();
    for tensor in padded.tensors.iter_mut().filter(|tensor| tensor.name.starts_with("blk.")) {
        let part = tensor.name.splitn(3, '.').nth(2).unwrap_or_default();
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
