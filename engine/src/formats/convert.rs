//! Models to GGUF files of another weight format.

use std::io::{Read, Write};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NameError;

use super::gguf_write::{TensorHeader, alignment, header};
use super::huggingface::{PAIRING_KEY, pair_neighbours};
use super::{Checkpoint, DType, TensorInfo, Value, convert_rows, read_rows};
use crate::error::{EngineError, Result};
use crate::source::Source;

/// Values converted at a time at the most, but for wider rows.
const PIECE_VALUES: u64 = 4 << 20;

/// Which format each tensor gets, under llama.cpp's names for such files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(non_camel_case_types, reason = "the names are ggml's")]
pub enum Recipe {
    /// All in F32.
    F32,
    /// Matrices in F16.
    F16,
    /// Matrices in `Q8_0`.
    Q8_0,
    /// Matrices in `Q4_0`, the output's in `Q6_K`.
    Q4_0,
    /// Matrices in `Q4_K`; in `Q6_K` the output's, the fused queries, keys and values, and in half of the layers values and the
    /// feed-forward's last.
    Q4_K_M,
}

impl FromStr for Recipe {
    type Err = NameError;

    /// From a name in lower case, such as `q4_k_m`.
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::deserialize(name.into_deserializer())
    }
}

impl Recipe {
    /// `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4_K_M => 15,
        }
    }

    /// The format for a tensor of a model of `layers` layers; `tied` when the embedding is the output's matrix too. Rows that are no
    /// whole number of its blocks get `Q8_0`, those of which that is true as well F16.
    pub(crate) fn dtype(self, tensor: &TensorInfo, layers: u64, tied: bool) -> DType {
        let fits = |dtype: &DType| tensor.shape.first().unwrap_or(&1).is_multiple_of(dtype.block_size());
        [self.wanted(tensor, layers, tied), DType::Q8_0].into_iter().find(fits).unwrap_or(DType::F16)
    }

    /// The format for a tensor whatever its row length is.
    fn wanted(self, tensor: &TensorInfo, layers: u64, tied: bool) -> DType {
        let name = tensor.name.as_str();
        // Positions and token types are small and read by the row, as the norms are small, and a choice of experts depends on its router.
        let is_small = tensor.shape.len() < 2
            || ["norm.", ".ffn_gate_inp"].iter().any(|part| name.contains(part))
            || name.starts_with("position_embd.")
            || name.starts_with("token_types.");
        if is_small {
            return DType::F32;
        }
        let is_output = name == "output.weight" || tied && name == "token_embd.weight";
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Q8_0 => DType::Q8_0,
            Self::Q4_0 | Self::Q4_K_M if is_output => DType::Q6_K,
            Self::Q4_0 => DType::Q4_0,
            Self::Q4_K_M => {
                let mut parts = name.split('.').skip(1);
                let layer = parts.next().and_then(|layer| layer.parse().ok()).unwrap_or(0);
                match parts.next() {
                    Some("attn_qkv") => DType::Q6_K,
                    Some("attn_v" | "ffn_down" | "ffn_down_exps") if needs_more_bits(layer, layers) => DType::Q6_K,
                    _ => DType::Q4_K,
                }
            }
        }
    }

    /// The matrices that do not get their format because of their row length: the format, what they get instead, and how many.
    ///
    /// # Errors
    /// When the metadata does not say the number of layers properly.
    pub fn fallbacks(self, checkpoint: &Checkpoint) -> Result<Vec<(DType, DType, usize)>> {
        let (layers, tied) = shape(checkpoint)?;
        let mut fallbacks: Vec<(DType, DType, usize)> = Vec::new();
        for tensor in &checkpoint.tensors {
            let (wanted, got) = (self.wanted(tensor, layers, tied), self.dtype(tensor, layers, tied));
            match fallbacks.iter_mut().find(|(w, g, _)| (*w, *g) == (wanted, got)) {
                _ if wanted == got => {}
                Some((_, _, count)) => *count += 1,
                None => fallbacks.push((wanted, got, 1)),
            }
        }
        Ok(fallbacks)
    }

    /// The format for each tensor of a checkpoint.
    fn dtypes(self, checkpoint: &Checkpoint) -> Result<impl Fn(&TensorInfo) -> DType + use<>> {
        let (layers, tied) = shape(checkpoint)?;
        Ok(move |tensor: &TensorInfo| self.dtype(tensor, layers, tied))
    }
}

/// The layers of a model, and whether its embedding is the output's matrix too.
fn shape(checkpoint: &Checkpoint) -> Result<(u64, bool)> {
    let arch = checkpoint.metadata.str("general.architecture")?;
    let layers = checkpoint.metadata.u32_opt(&format!("{arch}.block_count"))?.unwrap_or(0).into();
    Ok((layers, checkpoint.find("output.weight").is_none()))
}

/// Whether a recipe applies to a tensor's weights: what is quantized cannot be quantized again without losing more than it shows.
fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// The format that each tensor of a checkpoint has once it is loaded: `quantize`'s for floats, else the file's.
///
/// # Errors
/// When the metadata does not say the number of layers properly.
pub(crate) fn loaded_dtypes(checkpoint: &Checkpoint, quantize: Option<Recipe>) -> Result<impl Fn(&TensorInfo) -> DType + use<>> {
    let wanted = quantize.map(|recipe| recipe.dtypes(checkpoint)).transpose()?;
    Ok(move |tensor: &TensorInfo| match &wanted {
        Some(wanted) if is_float(tensor.dtype) => wanted(tensor),
        _ => tensor.dtype,
    })
}

/// The layers in which errors hurt most: the first and last eighth, and every third between.
fn needs_more_bits(layer: u64, layers: u64) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// Writes a GGUF file of the model with its tensors in the formats of `recipe`. Memory is bounded by some rows, except for what
/// [`read_rows`] reads whole. `progress` goes from 0 to 1.
///
/// # Errors
/// When the model cannot be read, has weights that are already quantized otherwise, or `out` fails.
pub async fn write_gguf(
    checkpoint: &Checkpoint,
    source: &dyn Source,
    recipe: Recipe,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(f32),
) -> Result<()> {
    let mut metadata = checkpoint.metadata.clone();
    let arch = metadata.str("general.architecture")?.to_owned();
    metadata.insert("general.file_type", Value::U32(recipe.file_type()));
    metadata.insert("general.quantization_version", Value::U32(2));
    let mut tensors = checkpoint.tensors.clone();
    if metadata.remove(PAIRING_KEY).is_some() {
        let heads = metadata.u32(&format!("{arch}.attention.head_count"))?;
        let kv_heads = metadata.u32_opt(&format!("{arch}.attention.head_count_kv"))?.unwrap_or(heads);
        for tensor in &mut tensors {
            if let Some(transform) = pair_neighbours(tensor, heads, kv_heads)? {
                tensor.transform = Some(transform);
            }
        }
    }
    let dtypes: Vec<DType> = tensors.iter().map(recipe.dtypes(checkpoint)?).collect();
    let headers: Vec<TensorHeader<'_>> = tensors
        .iter()
        .zip(&dtypes)
        .map(|(t, &dtype)| {
            let bytes = t.elements() / dtype.block_size() * dtype.block_bytes();
            TensorHeader { name: &t.name, dtype, shape: &t.shape, bytes }
        })
        .collect();
    let failed = |error: std::io::Error| EngineError::Write { reason: error.to_string() };
    let header = header(&metadata, &headers);
    out.write_all(&header).map_err(failed)?;
    let mut written = header.len() as u64;
    let (mut done, total) = (0_u64, tensors.iter().map(TensorInfo::elements).sum::<u64>());
    for (tensor, dtype) in tensors.iter().zip(dtypes) {
        if tensor.dtype != dtype && !is_float(tensor.dtype) {
            return Err(EngineError::Unsupported {
                what: "weight format",
                value: format!("{} of {}", tensor.dtype, tensor.name),
                supported: "quantizing from F32, F16 or BF16; take the original model".to_owned(),
            });
        }
        let padding = written.next_multiple_of(alignment(&metadata) as u64) - written;
        written += std::io::copy(&mut std::io::repeat(0).take(padding), out).map_err(failed)?;
        let cols = tensor.shape.first().copied().unwrap_or(1);
        let (rows, step) = (tensor.rows(), (PIECE_VALUES / cols).max(1));
        for first in (0..rows).step_by(step as usize) {
            let count = step.min(rows - first);
            let bytes = read_rows(source, tensor, first, count).await?;
            let converted = convert_rows(tensor.dtype, dtype, cols, &bytes)?;
            out.write_all(&converted).map_err(failed)?;
            written += converted.len() as u64;
            done += count * cols;
            progress(done as f32 / total as f32);
        }
    }
    out.flush().map_err(failed)
}
