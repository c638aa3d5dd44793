//! A small GGUF v3 writer, for converted models and for test files.

use super::{Array, DType, Metadata, Value};

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// The name, as `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The weight format.
    pub dtype: DType,
    /// The dimensions, row length first.
    pub shape: &'a [u64],
    /// The values in `dtype`'s encoding.
    pub data: &'a [u8],
}

/// The bytes of a GGUF v3 file with these entries and tensors; `general.alignment` in `metadata` is followed (32 without).
pub fn write(metadata: &Metadata, tensors: &[TensorData<'_>]) -> Vec<u8> {
    let headers: Vec<TensorHeader<'_>> =
        tensors.iter().map(|t| TensorHeader { name: t.name, dtype: t.dtype, shape: t.shape, bytes: t.data.len() as u64 }).collect();
    let mut out = header(metadata, &headers);
    for t in tensors {
        out.resize(out.len().next_multiple_of(alignment(metadata)), 0);
        out.extend(t.data);
    }
    out
}

/// A tensor that is written later.
#[derive(Debug, Clone)]
pub struct TensorHeader<'a> {
    /// The name, as `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The weight format.
    pub dtype: DType,
    /// The dimensions, row length first.
    pub shape: &'a [u64],
    /// Bytes of the values in `dtype`'s encoding.
    pub bytes: u64,
}

/// What tensors begin at a multiple of, in bytes.
pub fn alignment(metadata: &Metadata) -> usize {
    metadata.u32("general.alignment").unwrap_or(32).max(1) as usize
}

/// All of a GGUF v3 file before the tensors' data, which follows in the same order, each tensor at the next multiple of
/// [`alignment`].
pub fn header(metadata: &Metadata, tensors: &[TensorHeader<'_>]) -> Vec<u8> {
    let alignment = alignment(metadata) as u64;
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        string(&mut out, key);
        put_value(&mut out, value);
    }
    let mut offset = 0_u64;
    for t in tensors {
        string(&mut out, t.name);
        out.extend((t.shape.len() as u32).to_le_bytes());
        for d in t.shape {
            out.extend(d.to_le_bytes());
        }
        out.extend(t.dtype.ggml_id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + t.bytes).next_multiple_of(alignment);
    }
    out
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// Writes the type id of a scalar and its little-endian bytes.
macro_rules! scalar {
    ($out:expr, $id:literal, $value:expr) => {{
        $out.extend(u32::to_le_bytes($id));
        $out.extend($value.to_le_bytes());
    }};
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => scalar!(out, 0, v),
        Value::I8(v) => scalar!(out, 1, v),
        Value::U16(v) => scalar!(out, 2, v),
        Value::I16(v) => scalar!(out, 3, v),
        Value::U32(v) => scalar!(out, 4, v),
        Value::I32(v) => scalar!(out, 5, v),
        Value::F32(v) => scalar!(out, 6, v),
        Value::Bool(v) => scalar!(out, 7, u8::from(*v)),
        Value::String(v) => {
            out.extend(8_u32.to_le_bytes());
            string(out, v);
        }
        Value::Array(v) => {
            out.extend(9_u32.to_le_bytes());
            array(out, v);
        }
        Value::U64(v) => scalar!(out, 10, v),
        Value::I64(v) => scalar!(out, 11, v),
        Value::F64(v) => scalar!(out, 12, v),
    }
}

/// Writes element type id, length and elements.
fn array(out: &mut Vec<u8>, array_: &Array) {
    macro_rules! scalars {
        ($id:literal, $values:expr) => {{
            head(out, $id, $values.len());
            for v in $values {
                out.extend(v.to_le_bytes());
            }
        }};
    }
    match array_ {
        Array::U8(v) => scalars!(0, v),
        Array::I8(v) => scalars!(1, v),
        Array::U16(v) => scalars!(2, v),
        Array::I16(v) => scalars!(3, v),
        Array::U32(v) => scalars!(4, v),
        Array::I32(v) => scalars!(5, v),
        Array::F32(v) => scalars!(6, v),
        Array::Bool(v) => {
            head(out, 7, v.len());
            out.extend(v.iter().map(|&b| u8::from(b)));
        }
        Array::String(v) => {
            head(out, 8, v.len());
            for s in v {
                string(out, s);
            }
        }
        Array::Array(v) => {
            head(out, 9, v.len());
            for a in v {
                array(out, a);
            }
        }
        Array::U64(v) => scalars!(10, v),
        Array::I64(v) => scalars!(11, v),
        Array::F64(v) => scalars!(12, v),
    }
}

fn head(out: &mut Vec<u8>, id: u32, len: usize) {
    out.extend(id.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
