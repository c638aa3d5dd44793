//! From a checkpoint to the bytes of its tensors.

use std::ops::Range;

use super::{FormatError, TensorInfo, Transform, dequantize};
use crate::error::Result;
use crate::source::Source;

/// Largest tensor that is transposed, in bytes: it is read whole. GPT-2's are smaller.
const MAX_TRANSPOSED: u64 = 256 << 20;

/// Where the bytes lie that [`read_rows`] needs; empty for values that are not stored.
///
/// # Errors
/// When the tensor has fewer rows or cannot be read in parts.
pub fn span_of_rows(tensor: &TensorInfo, first: u64, count: u64) -> Result<Range<u64>, FormatError> {
    let rows = tensor.rows();
    let row_bytes = tensor.bytes / rows;
    let fail = |problem| FormatError::Tensor { name: tensor.name.clone(), problem };
    let last = first.checked_add(count).filter(|&last| last <= rows).ok_or_else(|| fail("it has fewer rows"))?;
    let span = match &tensor.transform {
        Some(Transform::Pad { stored, groups }) => {
            let rows = rows_without_zeros(tensor, stored, *groups, first..last);
            return span_of_rows(stored, rows.start, rows.end - rows.start);
        }
        Some(Transform::Values(_)) => 0..0,
        Some(Transform::AddOne(stored)) => {
            let row_bytes = tensor.shape.first().copied().unwrap_or(1) * stored.block_bytes();
            first * row_bytes..last * row_bytes
        }
        Some(Transform::Transpose) if tensor.bytes > MAX_TRANSPOSED => return Err(fail("it is too large to be transposed")),
        Some(Transform::Transpose) => 0..tensor.bytes,
        Some(transform @ (Transform::UngroupQkv { .. } | Transform::PairNeighbours { .. })) if !is_column(tensor) => {
            let stored = (first..last).map(stored_row(transform, rows));
            let (low, high) = stored.fold((u64::MAX, 0), |(low, high), row| (low.min(row), high.max(row + 1)));
            low.min(high) * row_bytes..high * row_bytes
        }
        _ => first * row_bytes..last * row_bytes,
    };
    Ok(tensor.offset + span.start..tensor.offset + span.end)
}

/// The bytes of `count` rows of a tensor from row `first` on, in its type; a tensor of one dimension is one row.
///
/// # Errors
/// When the rows cannot be read.
pub async fn read_rows(source: &dyn Source, tensor: &TensorInfo, first: u64, count: u64) -> Result<Vec<u8>> {
    let cols = tensor.shape.first().copied().unwrap_or(1);
    let rows = tensor.rows();
    let span = span_of_rows(tensor, first, count)?;
    if let Some(Transform::Pad { stored, groups }) = &tensor.transform {
        let rows = rows_without_zeros(tensor, stored, *groups, first..first + count);
        let bytes = Box::pin(read_rows(source, stored, rows.start, rows.end - rows.start)).await?;
        return Ok(with_zeros(tensor, stored, *groups, first..first + count, &bytes));
    }
    let stored = if span.is_empty() { Vec::new() } else { source.read(span.start, (span.end - span.start) as usize).await? };
    Ok(match &tensor.transform {
        None => stored,
        Some(Transform::Values(values)) => {
            bytemuck::cast_slice(&values[(first * cols) as usize..((first + count) * cols) as usize]).to_vec()
        }
        Some(Transform::AddOne(dtype)) => {
            let mut values = Vec::new();
            dequantize(*dtype, &stored, &mut values)?;
            values.iter().flat_map(|v| (1.0 + v).to_le_bytes()).collect()
        }
        Some(Transform::Transpose) => {
            let value_bytes = tensor.dtype.block_bytes();
            let value = |row: u64, col: u64| &stored[((col * rows + row) * value_bytes) as usize..][..value_bytes as usize];
            (first..first + count)
                .flat_map(|row| (0..cols).map(move |col| (row, col)))
                .flat_map(|(row, col)| value(row, col))
                .copied()
                .collect()
        }
        // Of a bias the elements are reordered as a matrix's rows.
        Some(transform) if is_column(tensor) => reordered(&stored, 0..cols, tensor.bytes / cols, 0, stored_row(transform, cols)),
        Some(transform) => {
            let row_bytes = tensor.bytes / rows;
            reordered(&stored, first..first + count, row_bytes, (span.start - tensor.offset) / row_bytes, stored_row(transform, rows))
        }
    })
}

/// Which rows of the tensor `stored`, in so many groups, are among `rows` of `tensor`, which has zeros behind each group.
fn rows_without_zeros(tensor: &TensorInfo, stored: &TensorInfo, groups: u64, rows: Range<u64>) -> Range<u64> {
    let (group, kept) = (tensor.rows() / groups, stored.rows() / groups);
    let before = |row: u64| row / group * kept + (row % group).min(kept);
    before(rows.start)..before(rows.end)
}

/// `rows` of `tensor`: the `bytes` of those that are [stored](rows_without_zeros), with zeros behind each row and each group.
fn with_zeros(tensor: &TensorInfo, stored: &TensorInfo, groups: u64, rows: Range<u64>, bytes: &[u8]) -> Vec<u8> {
    let row_bytes = |shape: &[u64]| (shape[0] / tensor.dtype.block_size() * tensor.dtype.block_bytes()) as usize;
    let (from, to) = (row_bytes(&stored.shape), row_bytes(&tensor.shape));
    let (group, kept) = (tensor.rows() / groups, stored.rows() / groups);
    let mut padded = vec![0; to * (rows.end - rows.start) as usize];
    let wanted = rows.zip(padded.chunks_exact_mut(to)).filter(|(row, _)| row % group < kept);
    wanted.zip(bytes.chunks_exact(from)).for_each(|((_, row), bytes)| row[..from].copy_from_slice(bytes));
    padded
}

/// Whether it is a bias: one row whose elements are what a matrix's rows are.
fn is_column(tensor: &TensorInfo) -> bool {
    tensor.shape.len() == 1 && tensor.shape[0] > 1
}

/// Where a row of a reordered matrix of `rows` rows is stored.
fn stored_row(transform: &Transform, rows: u64) -> impl Fn(u64) -> u64 {
    let transform = transform.clone();
    move |row| match transform {
        Transform::UngroupQkv { heads, kv_heads } => {
            let group = u64::from(heads / kv_heads) + 2;
            let head_rows = rows / (group * u64::from(kv_heads));
            let (head, i) = (row / head_rows, row % head_rows);
            let (kv, place) = match head.checked_sub(u64::from(heads)) {
                None => (head / (group - 2), head % (group - 2)),
                Some(key) if key < u64::from(kv_heads) => (key, group - 2),
                Some(value) => (value - u64::from(kv_heads), group - 1),
            };
            (kv * group + place) * head_rows + i
        }
        Transform::PairNeighbours { heads } => {
            let head_rows = rows / u64::from(heads);
            let (head, i) = (row / head_rows, row % head_rows);
            head * head_rows + i % 2 * (head_rows / 2) + i / 2
        }
        _ => row,
    }
}

/// Rows picked from a span that begins with row `low`.
fn reordered(span: &[u8], rows: Range<u64>, row_bytes: u64, low: u64, stored_row: impl Fn(u64) -> u64) -> Vec<u8> {
    rows.flat_map(|row| &span[((stored_row(row) - low) * row_bytes) as usize..][..row_bytes as usize]).copied().collect()
}
