//! Hugging Face's tensor names to GGUF's, and what the bytes need to become GGUF's.

use super::json::Json;
use super::spec::{FolderSpec, Heads, NameTable, TensorNames};
use crate::formats::{DType, FormatError, TensorInfo, Transform};

/// What the classes around a model put in front of its names.
const PREFIXES: &[&str] = &["model.", "language_model.", "transformer.", "bert."];

impl TensorNames {
    /// GGUF's name for the tensor `name`, [`PREFIXES`] already off.
    fn find(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        let kind = match kind {
            "weight" | "gamma" => "weight",
            "bias" | "beta" => "bias",
            _ => return None,
        };
        let lookup = |table: NameTable, stem: &str| table.iter().find(|(theirs, _)| *theirs == stem).map(|(_, ours)| *ours);
        if let Some(ours) = lookup(self.global, stem) {
            return Some(format!("{ours}.{kind}"));
        }
        let (layer, part) = stem.strip_prefix(self.layer_prefix)?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let ours = self.layer.iter().find_map(|table| lookup(table, part))?;
        Some(format!("blk.{layer}.{ours}.{kind}"))
    }
}

/// The tensors under GGUF's names and with GGUF's contents.
///
/// # Errors
/// When a tensor has no place in the family, or not the shape that its reordering needs.
pub(super) fn tensors(family: &str, spec: &FolderSpec, config: &Json, tensors: Vec<TensorInfo>) -> Result<Vec<TensorInfo>, FormatError> {
    // Some files have the output weights although they are the embedding.
    let tied = config.bool(&["tie_word_embeddings"])?.unwrap_or(spec.defaults.tied);
    let heads = Heads::new(config, spec)?;
    let mut out = Vec::with_capacity(tensors.len());
    for mut tensor in tensors {
        let mut name = tensor.name.as_str();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        if spec.names.ignored.iter().any(|part| name.starts_with(part) || name.ends_with(part)) || tied && name == "lm_head.weight" {
            continue;
        }
        let Some(ours) = spec.names.find(name) else {
            return Err(FormatError::UnsupportedFolder { what: "tensor", value: tensor.name, supported: format!("those of a {family}") });
        };
        tensor.name = ours;
        if let Some(transform) = (spec.transform)(&tensor, heads)? {
            apply(transform, &mut tensor);
        }
        out.push(tensor);
    }
    Ok(out)
}

/// Notes what the tensor's bytes need, in the type and shape that they have then.
fn apply(transform: Transform, tensor: &mut TensorInfo) {
    match transform {
        Transform::AddOne(_) => {
            tensor.dtype = DType::F32;
            tensor.bytes = 4 * tensor.elements();
        }
        Transform::Transpose => tensor.shape.reverse(),
        _ => {}
    }
    tensor.transform = Some(transform);
}

/// The reordering that brings a tensor of queries or keys from the halves' order to GGUF's of neighbouring pairs; `None` for others.
///
/// # Errors
/// When its rows are not those of whole heads.
pub fn pair_neighbours(tensor: &TensorInfo, heads: u32, kv_heads: u32) -> Result<Option<Transform>, FormatError> {
    let heads = match tensor.name.split('.').nth(2) {
        Some("attn_q") => heads,
        Some("attn_k") => kv_heads,
        _ => return Ok(None),
    };
    // A bias has an element for each row.
    let rows = if tensor.shape.len() == 1 { tensor.elements() } else { tensor.shape.get(1).copied().unwrap_or(1) };
    if heads == 0 || !rows.is_multiple_of(2 * u64::from(heads)) {
        return Err(FormatError::Tensor { name: tensor.name.clone(), problem: "its rows are not those of all heads" });
    }
    Ok(Some(Transform::PairNeighbours { heads }))
}
