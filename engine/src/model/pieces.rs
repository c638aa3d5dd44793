//! What a load reads, piece by piece and in order, and what becomes of it.

use std::ops::Range;
use std::rc::Rc;

use web_time::Instant;

use crate::error::Result;
use crate::exec::{BufferId, Executor, Recording};
use crate::formats::{DType, TensorInfo, convert_rows, dequantize, read_rows, span_of_rows};
use crate::kernels::{Repack, RepackBindings};
use crate::source::Source;

/// Bytes handed to the device before waiting for it, so that its queue does not hold the whole model.
const IN_FLIGHT_BYTES: u64 = 64 << 20;

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

/// Rows of a tensor in the file.
#[derive(Debug)]
pub(super) struct Rows {
    tensor: Rc<TensorInfo>,
    first: u64,
    count: u64,
    /// Where they lie; empty: they are not stored.
    range: Range<u64>,
}

impl Rows {
    /// # Errors
    /// When the tensor has fewer rows or cannot be read in parts.
    pub(super) fn new(tensor: &Rc<TensorInfo>, first: u64, count: u64) -> Result<Self> {
        let range = span_of_rows(tensor, first, count)?;
        Ok(Self { tensor: Rc::clone(tensor), first, count, range })
    }

    /// Their bytes in the tensor's type.
    fn bytes(&self) -> u64 {
        self.count * row_bytes(&self.tensor, self.tensor.dtype)
    }
}

/// Rows of a matrix that are packed into a slab.
#[derive(Debug)]
pub(super) struct MatrixPiece {
    pub(super) rows: Rows,
    pub(super) repack: Repack,
    pub(super) slab: BufferId,
}

/// Makes floats of those of some tensors.
pub(super) type Compute = Box<dyn FnOnce(&[Vec<f32>]) -> Vec<f32>>;

/// Floats computed on the host from small tensors, each read whole.
pub(super) struct FloatPiece {
    pub(super) tensors: Vec<Rows>,
    /// How many there are.
    pub(super) count: u32,
    pub(super) compute: Compute,
    /// Buffers that get them, each with the element that is the first of them.
    pub(super) targets: Vec<(BufferId, u32)>,
}

/// A step of a load.
pub(super) enum Piece {
    /// Of a matrix.
    Matrix(MatrixPiece),
    /// Small tensors.
    Floats(FloatPiece),
}

impl Piece {
    /// What is read for it, in order.
    fn reads(&self) -> &[Rows] {
        match self {
            Self::Matrix(piece) => std::slice::from_ref(&piece.rows),
            Self::Floats(piece) => &piece.tensors,
        }
    }
}

/// All steps of a load. The buffers that they fill are there.
pub(super) struct Pieces {
    pub(super) list: Vec<Piece>,
    /// Takes the bytes of one piece at a time to the device; [`Pieces::load`] leaves it.
    pub(super) staging: BufferId,
    /// Bytes of all tensors.
    pub(super) total: u64,
}

impl Pieces {
    /// What is read of the file, in order; empty ranges are values that are not stored.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        self.list.iter().flat_map(Piece::reads).map(|rows| rows.range.clone()).collect()
    }

    /// Reads everything and brings it to the device. `progress` goes from 0 to 1.
    ///
    /// # Errors
    /// When the source or the device fails.
    pub(super) async fn load(self, executor: &Executor, source: &dyn Source, progress: &mut dyn FnMut(f32)) -> Result<LoadTimes> {
        executor.check()?;
        let Self { list, staging, total } = self;
        let mut load = Load { executor, source, progress, staging, total, loaded: 0, in_flight: 0, times: LoadTimes::default() };
        for piece in list {
            match piece {
                Piece::Matrix(piece) => load.matrix(piece).await?,
                Piece::Floats(piece) => load.floats(piece).await?,
            }
        }
        load.settle().await?;
        Ok(load.times)
    }
}

/// A load under way.
struct Load<'a> {
    executor: &'a Executor,
    source: &'a dyn Source,
    progress: &'a mut dyn FnMut(f32),
    staging: BufferId,
    total: u64,
    loaded: u64,
    in_flight: u64,
    times: LoadTimes,
}

impl Load<'_> {
    async fn read(&mut self, rows: &Rows) -> Result<Vec<u8>> {
        let begin = Instant::now();
        let bytes = read_rows(self.source, &rows.tensor, rows.first, rows.count).await?;
        add_since(begin, &mut self.times.read);
        Ok(bytes)
    }

    async fn matrix(&mut self, piece: MatrixPiece) -> Result<()> {
        let MatrixPiece { rows, repack, slab } = piece;
        let bytes = self.read(&rows).await?;
        let begin = Instant::now();
        let (stored, wanted, cols) = (rows.tensor.dtype, repack.layout.dtype, repack.layout.cols);
        let mut bytes = if stored == wanted { bytes } else { convert_rows(stored, wanted, cols.into(), &bytes)? };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.executor.write(self.staging, 0, &bytes);
        let mut recording = Recording::new();
        recording.dispatch(repack, RepackBindings { raw: self.staging, packed: slab });
        self.executor.run_once(&rows.tensor.name, recording)?;
        add_since(begin, &mut self.times.write);
        self.count(rows.bytes());
        if self.in_flight >= IN_FLIGHT_BYTES {
            self.settle().await?;
        }
        Ok(())
    }

    async fn floats(&mut self, piece: FloatPiece) -> Result<()> {
        let mut tensors = Vec::with_capacity(piece.tensors.len());
        for rows in &piece.tensors {
            let bytes = self.read(rows).await?;
            let mut values = Vec::new();
            dequantize(rows.tensor.dtype, &bytes, &mut values)?;
            tensors.push(values);
            self.count(rows.tensor.bytes);
        }
        let values = (piece.compute)(&tensors);
        debug_assert_eq!(values.len(), piece.count as usize);
        for (buffer, first) in piece.targets {
            self.executor.write(buffer, 4 * u64::from(first), bytemuck::cast_slice(&values));
        }
        Ok(())
    }

    /// Waits until the device has done everything so far.
    async fn settle(&mut self) -> Result<()> {
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
pub(super) fn row_bytes(tensor: &TensorInfo, dtype: DType) -> u64 {
    tensor.shape.first().map_or(0, |cols| cols / dtype.block_size() * dtype.block_bytes())
}
