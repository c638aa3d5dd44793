//! Weights on their way from the file to the device: read in bounded pieces, packed on the GPU into row slabs.

use std::collections::HashSet;

use web_time::Instant;

use super::layers::{NormWeights, Projection};
use crate::error::{EngineError, Result};
use crate::executor::Executor;
use crate::formats::convert::{Recipe, loaded_dtypes};
use crate::formats::{Checkpoint, DType, FormatError, TensorInfo, convert_rows, dequantize, read_rows, span_of_rows};
use crate::kernels::{Repack, RepackBindings, WeightLayout};
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

/// Rows of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) first_row: u32,
    pub(super) rows: u32,
}

/// Brings tensors to the device and keeps count of what was used.
pub(super) struct Loader<'a> {
    pub(super) executor: &'a mut Executor,
    checkpoint: &'a Checkpoint,
    /// `None`: nothing is read, only what would be is noted, for a plan.
    source: Option<&'a dyn Source>,
    /// The format that a tensor's weights get.
    loaded_dtype: Box<dyn Fn(&TensorInfo) -> DType>,
    progress: &'a mut dyn FnMut(f32),
    staging: BufferId,
    /// Bytes of `staging`.
    piece: u64,
    used: HashSet<&'a str>,
    loaded: u64,
    in_flight: u64,
    total: u64,
    pub(super) times: LoadTimes,
}

/// Where the time of reading the weights went, in seconds. What is read ahead comes while the other things are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct LoadTimes {
    /// Waiting for bytes of the file.
    pub read: f64,
    /// Converting them and handing them to the device.
    pub write: f64,
    /// Waiting for the device.
    pub device: f64,
}

/// Adds the seconds since `begin` to `sum`.
fn add_since(begin: Instant, sum: &mut f64) {
    *sum += begin.elapsed().as_secs_f64();
}

impl<'a> Loader<'a> {
    pub(super) fn new(
        executor: &'a mut Executor,
        checkpoint: &'a Checkpoint,
        source: Option<&'a dyn Source>,
        quantize: Option<Recipe>,
        progress: &'a mut dyn FnMut(f32),
    ) -> Result<Self> {
        let loaded_dtype = Box::new(loaded_dtypes(checkpoint, quantize)?);
        let widest = checkpoint.tensors.iter().map(|t| row_bytes(t, t.dtype).max(row_bytes(t, loaded_dtype(t)))).max().unwrap_or(0);
        let piece = PIECE_BYTES.min(executor.capabilities().max_binding).max(widest);
        let staging = executor.create_buffer("staging", piece)?;
        let total = checkpoint.tensors.iter().map(|t| t.bytes).sum::<u64>().max(1);
        let used = HashSet::new();
        Ok(Self {
            executor,
            checkpoint,
            source,
            loaded_dtype,
            progress,
            staging,
            piece,
            used,
            loaded: 0,
            in_flight: 0,
            total,
            times: LoadTimes::default(),
        })
    }

    /// Frees what only loading needed.
    ///
    /// # Errors
    /// When the file holds tensors that the model has no use for: it is not what it claims to be.
    pub(super) fn finish(self) -> Result<LoadTimes> {
        self.executor.destroy_buffer(self.staging);
        // Older converters stored the constant rotary frequencies of each layer; the short or the long ones of two are used.
        let optional =
            |name: &str| ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"].iter().any(|o| name.ends_with(o));
        let unused = |t: &&TensorInfo| !self.used.contains(t.name.as_str()) && !optional(&t.name);
        match self.checkpoint.tensors.iter().find(unused) {
            Some(tensor) => Err(EngineError::Unsupported {
                what: "tensor",
                value: tensor.name.clone(),
                supported: "the tensors that models of this architecture have".to_owned(),
            }),
            None => Ok(self.times),
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

    /// Number of values of a tensor.
    pub(super) fn elements(&self, name: &str) -> Result<u64> {
        Ok(self.checkpoint.tensor(name)?.elements())
    }

    /// A small tensor as floats on the host.
    pub(super) async fn floats(&mut self, name: &str, count: u32) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.elements() != u64::from(count) {
            return Err(wrong_shape(tensor, &[u64::from(count)]));
        }
        if !tensor.dtype.is_supported() {
            return Err(FormatError::UnsupportedTensor { name: name.to_owned(), dtype: tensor.dtype }.into());
        }
        let Some(source) = self.source else {
            self.executor.note_read(span_of_rows(tensor, 0, tensor.rows())?);
            return Ok(vec![1.0; count as usize]);
        };
        let begin = Instant::now();
        let bytes = read_rows(source, tensor, 0, tensor.rows()).await?;
        add_since(begin, &mut self.times.read);
        let mut values = Vec::with_capacity(count as usize);
        dequantize(tensor.dtype, &bytes, &mut values)?;
        self.count(tensor.bytes);
        Ok(values)
    }

    /// Floats in a buffer of their own.
    pub(super) fn upload(&mut self, label: &str, values: &[f32]) -> Result<BufferId> {
        let buffer = self.executor.create_buffer(label, 4 * values.len() as u64)?;
        self.executor.write(buffer, 0, bytemuck::cast_slice(values));
        Ok(buffer)
    }

    /// A small tensor as floats in a buffer.
    pub(super) async fn vector(&mut self, name: &str, count: u32) -> Result<BufferId> {
        let values = self.floats(name, count).await?;
        self.upload(name, &values)
    }

    /// `<name>.weight` and, where there is one, `<name>.bias` of a norm.
    pub(super) async fn norm(&mut self, name: &str, dim: u32) -> Result<NormWeights> {
        let weight = self.vector(&format!("{name}.weight"), dim).await?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.vector(&bias, dim).await?) } else { None };
        Ok(NormWeights { weight, bias })
    }

    /// `<name>.weight` and, where there is one, `<name>.bias`.
    pub(super) async fn projection(&mut self, name: &str, rows: u32, cols: u32) -> Result<Projection> {
        self.stacked_projection(&[(name, rows)], cols).await
    }

    /// One projection from several of the same type and row length, one below the other. Missing biases are zero.
    pub(super) async fn stacked_projection(&mut self, parts: &[(impl AsRef<str>, u32)], cols: u32) -> Result<Projection> {
        let names: Vec<String> = parts.iter().map(|(name, _)| format!("{}.weight", name.as_ref())).collect();
        let matrices: Vec<Part<'_>> = names.iter().zip(parts).map(|(name, (_, rows))| Part { name, first_row: 0, rows: *rows }).collect();
        let weight = self.stacked(&matrices, cols).await?;
        let mut bias = Vec::new();
        let mut biased = false;
        for (name, rows) in parts {
            let name = format!("{}.bias", name.as_ref());
            if self.has(&name) {
                biased = true;
                bias.extend(self.floats(&name, *rows).await?);
            } else {
                bias.resize(bias.len() + *rows as usize, 0.0);
            }
        }
        let bias = if biased { Some(self.upload("bias", &bias)?) } else { None };
        Ok(Projection { weight, bias })
    }

    /// The type that a tensor's weights have on the device.
    pub(super) fn dtype(&mut self, name: &str) -> Result<DType> {
        let tensor = self.tensor(name)?;
        Ok((self.loaded_dtype)(tensor))
    }

    /// One matrix from tensors of the same type and row length, one below the other.
    pub(super) async fn stacked(&mut self, parts: &[Part<'_>], cols: u32) -> Result<Weight> {
        let weight = self.allocate(parts, cols)?;
        let mut first_row = 0;
        for part in parts {
            self.fill(&weight, part, first_row, 1).await?;
            first_row += part.rows;
        }
        Ok(weight)
    }

    /// One matrix from two parts whose rows alternate.
    pub(super) async fn interleaved(&mut self, parts: [Part<'_>; 2], cols: u32) -> Result<Weight> {
        let weight = self.allocate(&parts, cols)?;
        self.fill(&weight, &parts[0], 0, 2).await?;
        self.fill(&weight, &parts[1], 1, 2).await?;
        Ok(weight)
    }

    fn allocate(&mut self, parts: &[Part<'_>], cols: u32) -> Result<Weight> {
        let first = parts[0].name;
        let dtype = self.dtype(first)?;
        for part in parts {
            let tensor = self.tensor(part.name)?;
            let rows: u32 = parts.iter().filter(|p| p.name == part.name).map(|p| p.rows).sum();
            let shape = [u64::from(cols), u64::from(rows)];
            if tensor.shape != shape {
                return Err(wrong_shape(tensor, &shape));
            }
            let other = (self.loaded_dtype)(tensor);
            if other != dtype {
                return Err(EngineError::Unsupported {
                    what: "mixed types",
                    value: format!("{first} is {dtype}, {} is {other}", part.name),
                    supported: "one type for both".to_owned(),
                });
            }
        }
        let layout = WeightLayout::new(first, dtype, u64::from(cols))?;
        let rows: u32 = parts.iter().map(|part| part.rows).sum();
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

    /// Packs rows of a tensor, in the matrix's type, to rows `first_row + i * step` of the matrix.
    async fn fill(&mut self, weight: &Weight, part: &Part<'_>, first_row: u32, step: u32) -> Result<()> {
        let Part { name, first_row: first_in_file, rows } = *part;
        let tensor = self.tensor(name)?;
        let WeightLayout { dtype, cols, file_row_bytes, .. } = weight.layout;
        let file_bytes = row_bytes(tensor, tensor.dtype);
        let piece_rows = (self.piece / file_bytes.max(file_row_bytes.into())).max(1) as u32;
        let mut row = 0;
        while row < rows {
            let target = first_row + row * step;
            let slab = weight.slabs.iter().find(|s| target - s.first_row < s.rows).expect("slabs cover all rows");
            let left_in_slab = (slab.first_row + slab.rows - target).div_ceil(step);
            let count = piece_rows.min(rows - row).min(left_in_slab);
            let first = u64::from(first_in_file + row);
            row += count;
            let Some(source) = self.source else {
                self.executor.note_read(span_of_rows(tensor, first, count.into())?);
                continue;
            };
            let begin = Instant::now();
            let bytes = read_rows(source, tensor, first, count.into()).await?;
            add_since(begin, &mut self.times.read);
            let begin = Instant::now();
            let mut bytes = if tensor.dtype == dtype { bytes } else { convert_rows(tensor.dtype, dtype, cols.into(), &bytes)? };
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            self.executor.write(self.staging, 0, &bytes);
            let mut recording = Recording::new();
            let repack = Repack { layout: weight.layout, rows: count, first_row: target - slab.first_row, row_step: step };
            recording.dispatch(repack, RepackBindings { raw: self.staging, packed: slab.buffer });
            self.executor.run_once(name, recording)?;
            add_since(begin, &mut self.times.write);
            self.count(u64::from(count) * file_bytes);
            if self.in_flight >= IN_FLIGHT_BYTES {
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// Waits until the device has done everything so far.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.in_flight = 0;
        let begin = Instant::now();
        self.executor.submit_and_read(&[], self.staging, 0, 4)?.wait().await?;
        add_since(begin, &mut self.times.device);
        self.executor.check()
    }

    fn count(&mut self, bytes: u64) {
        self.loaded += bytes;
        self.in_flight += bytes;
        (self.progress)(self.loaded as f32 / self.total as f32);
    }
}

/// Bytes of a row of a tensor in this type.
fn row_bytes(tensor: &TensorInfo, dtype: DType) -> u64 {
    tensor.shape.first().map_or(0, |cols| cols / dtype.block_size() * dtype.block_bytes())
}

fn wrong_shape(tensor: &TensorInfo, expected: &[u64]) -> EngineError {
    EngineError::Tensor { name: tensor.name.clone(), problem: format!("has shape {:?} instead of {expected:?}", tensor.shape) }
}
