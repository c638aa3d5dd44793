//! Weights on their way from the file to the device: read in bounded pieces, packed on the GPU into row slabs.

use std::collections::HashSet;

use crate::error::{EngineError, Result};
use crate::executor::Executor;
use crate::formats::{Checkpoint, DType, TensorInfo, dequantize};
use crate::kernels::{Repack, WeightLayout};
use crate::recording::{BufferId, Recording};
use crate::source::Source;

/// Bytes of a file that are in memory at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Bytes handed to the device before waiting for it, so that its queue does not hold the whole model.
const IN_FLIGHT_BYTES: u64 = 64 << 20;

/// Rows of a matrix in one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Slab {
    /// The packed rows.
    pub buffer: BufferId,
    /// Row of the matrix that is first.
    pub first_row: u32,
    /// Number of rows.
    pub rows: u32,
}

/// A packed matrix, in slabs that each fit a storage binding.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Type and sizes.
    pub layout: WeightLayout,
    /// Rows of the matrix.
    pub rows: u32,
    /// The rows in order.
    pub slabs: Vec<Slab>,
}

/// Brings tensors to the device and keeps count of what was used.
pub(super) struct Loader<'a> {
    pub(super) executor: &'a mut Executor,
    checkpoint: &'a Checkpoint,
    source: &'a dyn Source,
    progress: &'a mut dyn FnMut(f32),
    staging: BufferId,
    /// Bytes of `staging`.
    piece: u64,
    used: HashSet<&'a str>,
    loaded: u64,
    in_flight: u64,
    total: u64,
}

impl<'a> Loader<'a> {
    pub(super) fn new(
        executor: &'a mut Executor,
        checkpoint: &'a Checkpoint,
        source: &'a dyn Source,
        progress: &'a mut dyn FnMut(f32),
    ) -> Result<Self> {
        let widest = checkpoint
            .tensors
            .iter()
            .filter_map(|t| t.shape.first().map(|cols| cols / t.dtype.block_size() * t.dtype.block_bytes()))
            .max()
            .unwrap_or(0);
        let piece = PIECE_BYTES.min(executor.capabilities().max_binding).max(widest);
        let staging = executor.create_buffer("staging", piece)?;
        let total = checkpoint.tensors.iter().map(|t| t.bytes).sum::<u64>().max(1);
        Ok(Self { executor, checkpoint, source, progress, staging, piece, used: HashSet::new(), loaded: 0, in_flight: 0, total })
    }

    /// Frees what only loading needed.
    ///
    /// # Errors
    /// When the file holds tensors that the model has no use for: it is not what it claims to be.
    pub(super) fn finish(self) -> Result<()> {
        self.executor.destroy_buffer(self.staging);
        // Older converters stored the constant rotary frequencies of each layer.
        let unused = |t: &&TensorInfo| !self.used.contains(t.name.as_str()) && !t.name.ends_with("rope_freqs.weight");
        match self.checkpoint.tensors.iter().find(unused) {
            Some(tensor) => Err(EngineError::Unsupported {
                what: "tensor",
                value: tensor.name.clone(),
                supported: "the tensors of a dense llama without biases".to_owned(),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.checkpoint.find(name).is_some()
    }

    fn tensor(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let tensor = self.checkpoint.tensor(name)?;
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    /// A small tensor as floats on the host.
    pub(super) async fn floats(&mut self, name: &str, count: u32) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.shape != [u64::from(count)] {
            return Err(wrong_shape(tensor, &[u64::from(count)]));
        }
        let bytes = self.source.read(tensor.offset, tensor.bytes as usize).await?;
        let mut values = Vec::with_capacity(count as usize);
        dequantize(tensor.dtype, &bytes, &mut values)?;
        self.count(tensor.bytes);
        Ok(values)
    }

    /// A small tensor as floats in a buffer.
    pub(super) async fn vector(&mut self, name: &str, count: u32) -> Result<BufferId> {
        let values = self.floats(name, count).await?;
        let buffer = self.executor.create_buffer(name, 4 * u64::from(count))?;
        self.executor.write(buffer, 0, bytemuck::cast_slice(&values));
        Ok(buffer)
    }

    /// The type of a tensor.
    pub(super) fn dtype(&mut self, name: &str) -> Result<DType> {
        self.tensor(name).map(|t| t.dtype)
    }

    /// One matrix from tensors of the same type and row length, one below the other.
    pub(super) async fn stacked(&mut self, parts: &[(&str, u32)], cols: u32) -> Result<Weight> {
        let weight = self.allocate(parts, cols)?;
        let mut first_row = 0;
        for (name, rows) in parts {
            self.fill(&weight, name, *rows, first_row, 1).await?;
            first_row += rows;
        }
        Ok(weight)
    }

    /// One matrix from two tensors whose rows alternate.
    pub(super) async fn interleaved(&mut self, even: &str, odd: &str, rows: u32, cols: u32) -> Result<Weight> {
        let weight = self.allocate(&[(even, rows), (odd, rows)], cols)?;
        self.fill(&weight, even, rows, 0, 2).await?;
        self.fill(&weight, odd, rows, 1, 2).await?;
        Ok(weight)
    }

    fn allocate(&mut self, parts: &[(&str, u32)], cols: u32) -> Result<Weight> {
        let (first, _) = parts[0];
        let dtype = self.dtype(first)?;
        for (name, rows) in parts {
            let tensor = self.tensor(name)?;
            let shape = [u64::from(cols), u64::from(*rows)];
            if tensor.shape != shape {
                return Err(wrong_shape(tensor, &shape));
            }
            if tensor.dtype != dtype {
                return Err(EngineError::Unsupported {
                    what: "mixed types",
                    value: format!("{first} is {dtype}, {name} is {}", tensor.dtype),
                    supported: "one type for both".to_owned(),
                });
            }
        }
        let layout = WeightLayout::new(first, dtype, u64::from(cols))?;
        let rows: u32 = parts.iter().map(|(_, rows)| rows).sum();
        let row_bytes = 4 * u64::from(layout.stride);
        let capabilities = self.executor.capabilities();
        let limit = capabilities.max_binding.min(capabilities.max_buffer);
        // An even number of rows keeps interleaved pairs together.
        let slab_rows = u32::try_from((limit / row_bytes).min(u64::from(rows.next_multiple_of(2)))).unwrap_or(rows) & !1;
        if slab_rows == 0 {
            return Err(EngineError::TooLarge { what: format!("a row of {first}"), needed: row_bytes, limit });
        }
        let mut slabs = Vec::new();
        for first_row in (0..rows).step_by(slab_rows as usize) {
            let rows = slab_rows.min(rows - first_row);
            let buffer = self.executor.create_buffer(first, row_bytes * u64::from(rows))?;
            slabs.push(Slab { buffer, first_row, rows });
        }
        Ok(Weight { layout, rows, slabs })
    }

    /// Packs the rows of a tensor to rows `first_row + i * step` of the matrix.
    async fn fill(&mut self, weight: &Weight, name: &str, rows: u32, first_row: u32, step: u32) -> Result<()> {
        let tensor = self.tensor(name)?;
        let row_bytes = u64::from(weight.layout.file_row_bytes);
        let piece_rows = (self.piece / row_bytes).max(1) as u32;
        let mut row = 0;
        while row < rows {
            let target = first_row + row * step;
            let slab = weight.slabs.iter().find(|s| target - s.first_row < s.rows).expect("slabs cover all rows");
            let left_in_slab = (slab.first_row + slab.rows - target).div_ceil(step);
            let count = piece_rows.min(rows - row).min(left_in_slab);
            let mut bytes = self.source.read(tensor.offset + u64::from(row) * row_bytes, (u64::from(count) * row_bytes) as usize).await?;
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            self.executor.write(self.staging, 0, &bytes);
            let mut recording = Recording::new();
            let repack = Repack { layout: weight.layout, rows: count, first_row: target - slab.first_row, row_step: step };
            recording.dispatch(repack, &[self.staging, slab.buffer]);
            self.executor.run_once(name, recording)?;
            self.count(u64::from(count) * row_bytes);
            if self.in_flight >= IN_FLIGHT_BYTES {
                self.settle().await?;
            }
            row += count;
        }
        Ok(())
    }

    /// Waits until the device has done everything so far.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.in_flight = 0;
        self.executor.submit_and_read(&[], self.staging, 0, 4)?.wait().await?;
        self.executor.check()
    }

    fn count(&mut self, bytes: u64) {
        self.loaded += bytes;
        self.in_flight += bytes;
        (self.progress)(self.loaded as f32 / self.total as f32);
    }
}

fn wrong_shape(tensor: &TensorInfo, expected: &[u64]) -> EngineError {
    EngineError::Tensor { name: tensor.name.clone(), problem: format!("has shape {:?} instead of {expected:?}", tensor.shape) }
}
