//! From a source to a checkpoint, and from a checkpoint to the bytes of its tensors.

use super::{Checkpoint, FormatError, Gguf, TensorInfo, Transform, dequantize, huggingface, split};
use crate::error::Result;
use crate::source::{FileSpan, Source};

/// The first bytes read of a file: a small model's whole header.
const FIRST_READ: u64 = 1 << 20;

/// Largest tensor that is transposed, in bytes: it is read whole. GPT-2's are smaller.
const MAX_TRANSPOSED: u64 = 256 << 20;

/// Reads what a source holds: a GGUF file, all parts of a split one, or a model folder in Hugging Face's layout.
///
/// # Errors
/// When the files are damaged, incomplete, of another kind, or cannot be read.
pub async fn read_checkpoint(source: &dyn Source) -> Result<Checkpoint> {
    let files = source.files();
    if huggingface::is_folder(&files) {
        return huggingface::read(source, &files).await;
    }
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let checkpoint = read_gguf(source, &file).await?;
        parts.push((file, checkpoint));
    }
    Ok(split::join(parts)?)
}

/// Reads and parses the header of one GGUF file, however long it is.
async fn read_gguf(source: &dyn Source, file: &FileSpan) -> Result<Checkpoint> {
    let mut bytes = FIRST_READ;
    loop {
        let length = file.bytes.min(bytes);
        let prefix = source.read(file.start, length as usize).await?;
        match Gguf::parse(&prefix, Some(file.bytes)) {
            Err(FormatError::NeedMore { at_least }) if length < file.bytes => bytes = at_least.max(2 * bytes),
            other => return Ok(other?),
        }
    }
}

/// The bytes of `count` rows of a tensor from row `first` on, in its type; a tensor of one dimension is one row.
///
/// # Errors
/// When the rows cannot be read.
pub async fn read_rows(source: &dyn Source, tensor: &TensorInfo, first: u64, count: u64) -> Result<Vec<u8>> {
    let cols = tensor.shape.first().copied().unwrap_or(1);
    let rows = tensor.rows();
    let row_bytes = tensor.bytes / rows;
    let fail = |problem| FormatError::Tensor { name: tensor.name.clone(), problem };
    let last = first.checked_add(count).filter(|&last| last <= rows).ok_or_else(|| fail("it has fewer rows"))?;
    let read = |first: u64, last: u64| source.read(tensor.offset + first * row_bytes, ((last - first) * row_bytes) as usize);
    Ok(match &tensor.transform {
        None => read(first, last).await?,
        Some(Transform::Values(values)) => bytemuck::cast_slice(&values[(first * cols) as usize..(last * cols) as usize]).to_vec(),
        Some(Transform::AddOne(stored)) => {
            let bytes = stored.block_bytes();
            let differences = source.read(tensor.offset + first * cols * bytes, (count * cols * bytes) as usize).await?;
            let mut values = Vec::new();
            dequantize(*stored, &differences, &mut values)?;
            values.iter().flat_map(|v| (1.0 + v).to_le_bytes()).collect()
        }
        Some(Transform::Transpose) => {
            if tensor.bytes > MAX_TRANSPOSED {
                return Err(fail("it is too large to be transposed").into());
            }
            let stored = source.read(tensor.offset, tensor.bytes as usize).await?;
            let value_bytes = tensor.dtype.block_bytes();
            let value = |row: u64, col: u64| &stored[((col * rows + row) * value_bytes) as usize..][..value_bytes as usize];
            (first..last).flat_map(|row| (0..cols).map(move |col| (row, col))).flat_map(|(row, col)| value(row, col)).copied().collect()
        }
        // Of a bias the elements are reordered as a matrix's rows.
        Some(Transform::UngroupQkv { .. } | Transform::PairNeighbours { .. }) if tensor.shape.len() == 1 && cols > 1 => {
            let column = TensorInfo { shape: vec![1, cols], ..tensor.clone() };
            Box::pin(read_rows(source, &column, 0, cols)).await?
        }
        Some(Transform::UngroupQkv { heads, kv_heads }) => {
            let group = u64::from(heads / kv_heads) + 2;
            let head_rows = rows / (group * u64::from(*kv_heads));
            let stored_row = |row: u64| {
                let (head, i) = (row / head_rows, row % head_rows);
                let (kv, place) = match head.checked_sub(u64::from(*heads)) {
                    None => (head / (group - 2), head % (group - 2)),
                    Some(key) if key < u64::from(*kv_heads) => (key, group - 2),
                    Some(value) => (value - u64::from(*kv_heads), group - 1),
                };
                (kv * group + place) * head_rows + i
            };
            reordered(first..last, row_bytes, stored_row, read).await?
        }
        Some(Transform::PairNeighbours { heads }) => {
            let head_rows = rows / u64::from(*heads);
            let stored_row = |row: u64| {
                let (head, i) = (row / head_rows, row % head_rows);
                head * head_rows + i % 2 * (head_rows / 2) + i / 2
            };
            reordered(first..last, row_bytes, stored_row, read).await?
        }
    })
}

/// Rows that are stored elsewhere: reads the span they lie in at once and picks them from it.
async fn reordered<F: Future<Output = Result<Vec<u8>>>>(
    rows: std::ops::Range<u64>,
    row_bytes: u64,
    stored_row: impl Fn(u64) -> u64,
    read: impl Fn(u64, u64) -> F,
) -> Result<Vec<u8>> {
    let stored = || rows.clone().map(&stored_row);
    let (Some(low), Some(high)) = (stored().min(), stored().max()) else { return Ok(Vec::new()) };
    let span = read(low, high + 1).await?;
    Ok(stored().flat_map(|row| &span[((row - low) * row_bytes) as usize..][..row_bytes as usize]).copied().collect())
}
