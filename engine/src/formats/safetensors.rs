//! The header of a safetensors file.
//!
//! Source: <https://github.com/huggingface/safetensors#format>. The `safetensors` crate is not used because it counts bytes in
//! `usize`: in wasm it could not describe a file of more than 4 GiB.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{DType, FormatError, TensorInfo};
use crate::source::FileSpan;

/// Longest header, in bytes; the largest models' have a few megabytes.
const MAX_HEADER: u64 = 32 << 20;
/// Most dimensions of a tensor (ggml's limit).
const MAX_DIMENSIONS: usize = 4;

/// A tensor as the header has it.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// First byte and the byte behind the last, from the start of the data.
    data_offsets: (u64, u64),
}

/// Length of the header with the 8 bytes of its own length, from a file's first 8 bytes.
///
/// # Errors
/// When that is more than there is or than any sane header has.
pub fn header_bytes(file: &FileSpan, prefix: &[u8]) -> Result<usize, FormatError> {
    let truncated = |needed: u64| FormatError::Truncated { needed, missing: needed.saturating_sub(file.bytes), at_least: true };
    let length = u64::from_le_bytes(*prefix.first_chunk().ok_or_else(|| truncated(8))?);
    if length > MAX_HEADER {
        return Err(FormatError::TooLarge { what: "the length of a safetensors header", count: length, limit: MAX_HEADER });
    }
    if 8 + length > file.bytes { Err(truncated(8 + length)) } else { Ok(8 + length as usize) }
}

/// The tensors that the header at the start of `bytes` describes, under their own names, in order of their data; dimensions are in GGUF
/// order and offsets count from the start of the source.
///
/// # Errors
/// When the header contradicts itself, a type has no counterpart here, or the file is too short.
pub fn parse(file: &FileSpan, bytes: &[u8]) -> Result<Vec<TensorInfo>, FormatError> {
    let invalid = |problem: String| FormatError::Json { file: file.name.clone(), problem };
    let data = header_bytes(file, bytes)?;
    let header = bytes.get(8..data).ok_or_else(|| invalid("its header is cut off".to_owned()))?;
    let header: Map<String, Value> = serde_json::from_slice(header).map_err(|e| invalid(e.to_string()))?;
    let mut tensors = Vec::with_capacity(header.len());
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Entry { dtype, mut shape, data_offsets: (start, end) } =
            serde_json::from_value(entry).map_err(|e| invalid(format!("tensor {name:?}: {e}")))?;
        let fail = |problem| FormatError::Tensor { name: name.clone(), problem };
        let dtype =
            self::dtype(&dtype).ok_or_else(|| invalid(format!("tensor {name:?} has the format {dtype}, which is not supported")))?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(fail("it has too many dimensions"));
        }
        let expected = shape.iter().try_fold(dtype.block_bytes(), |n, &d| n.checked_mul(d)).ok_or_else(|| fail("it has too many bytes"))?;
        if expected == 0 {
            return Err(fail("it has no elements"));
        }
        if end.checked_sub(start) != Some(expected) {
            return Err(fail("its range is not as long as its shape says"));
        }
        shape.reverse();
        tensors.push(TensorInfo { name, dtype, shape, offset: start, bytes: expected, transform: None });
    }
    tensors.sort_by_key(|t| t.offset);
    let mut end = 0_u64;
    for tensor in &mut tensors {
        if tensor.offset != end {
            return Err(FormatError::Tensor { name: tensor.name.clone(), problem: "its data does not begin where another's ends" });
        }
        end = end.saturating_add(tensor.bytes);
        tensor.offset = tensor.offset.saturating_add(file.start + data as u64);
    }
    let needed = end.saturating_add(data as u64);
    if needed > file.bytes {
        return Err(FormatError::Truncated { needed, missing: needed - file.bytes, at_least: false });
    }
    Ok(tensors)
}

/// ggml's type for a safetensors type; both are little-endian.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F64" => DType::F64,
        "I8" | "U8" | "BOOL" => DType::I8,
        "I16" => DType::I16,
        "I32" => DType::I32,
        "I64" => DType::I64,
        _ => return None,
    })
}
