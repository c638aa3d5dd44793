//! Devices that run recordings: the GPU, the kernels' references on the CPU, and a dry run that counts buffers.

pub mod counters;
pub mod cpu;
pub mod dry;
pub mod gpu;
pub mod recording;
mod scope;

pub use counters::{Counters, Counts};
pub use cpu::Cpu;
pub use dry::DryRun;
pub use gpu::Gpu;
pub use recording::Recording;
pub use scope::Scope;

use std::fmt::Debug;
use std::future::ready;
use std::ops::Deref;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

pub use crate::buffer::{self, BufferId};

use crate::device::Capabilities;
use crate::error::Result;
use gpu::{GpuProgram, Preparation, Readback};

/// A device with buffers. All methods take `&self`, so that several models can be on it.
pub trait Device: Debug {
    /// Features and limits of the device.
    fn capabilities(&self) -> &Capabilities;

    /// Creates a zeroed buffer of at least `bytes`.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    fn create_buffer(&self, label: &str, bytes: u64) -> Result<BufferId>;

    /// Frees a buffer at once, unless it was freed before.
    fn destroy_buffer(&self, id: BufferId);

    /// Writes bytes, ordered with the submissions around it. Offset and length are multiples of 4.
    fn write(&self, id: BufferId, offset: u64, data: &[u8]);

    /// Bytes of all live buffers, where they are counted.
    fn allocated_bytes(&self) -> u64;

    /// Makes a recording ready to run.
    fn compile(&self, label: &str, recording: Recording) -> Program;

    /// Runs programs of this device in order, in one submission.
    ///
    /// # Errors
    /// When the device was lost or reported an error before.
    fn submit(&self, programs: &[&Program]) -> Result<()>;

    /// Runs programs in order and begins to read `bytes` at `offset` of a buffer after them.
    ///
    /// # Errors
    /// As [`Self::submit`].
    fn submit_and_read(&self, programs: &[&Program], from: BufferId, offset: u64, bytes: u64) -> Result<Pending>;

    /// Compiles a recording and submits it once.
    ///
    /// # Errors
    /// As [`Self::submit`].
    fn run_once(&self, label: &str, recording: Recording) -> Result<()> {
        let program = self.compile(label, recording);
        self.submit(&[&program])
    }

    /// Fails when the device reported an error or was lost.
    ///
    /// # Errors
    /// That error.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether kernels run on the host's processor, as far as that is known.
    fn is_software(&self) -> bool {
        true
    }

    /// Submissions so far; only the GPU counts them.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Bytes that all buffers together may take, where that is known.
    fn memory_limit(&self) -> Option<u64> {
        None
    }

    /// Whether buffers of so many bytes together could be made now. It is tried: WebGPU does not tell how much memory there is.
    fn could_hold(&self, _bytes: u64) -> LocalBoxFuture<'_, bool> {
        ready(true).boxed_local()
    }

    /// Begins to make all pipelines of recordings together, while the device does other work: one after the other, when each is needed,
    /// takes seconds. Nothing runs, and the buffers may be those of another device.
    fn prepare(&self, _recordings: &mut dyn Iterator<Item = &Recording>) -> Option<Preparation> {
        None
    }

    /// Waits for the pipelines of [`Self::prepare`].
    fn prepared(&self, _preparation: Preparation) -> LocalBoxFuture<'_, ()> {
        ready(()).boxed_local()
    }
}

/// A device of any kind. All its work goes through [`Device`]; the kind matters only to those who open, tune or profile a device.
#[derive(Debug)]
pub enum Executor {
    /// WebGPU.
    Gpu(Box<Gpu>),
    /// The kernels' references.
    Cpu(Cpu),
    /// No device: buffers are only counted.
    Dry(DryRun),
}

impl Deref for Executor {
    type Target = dyn Device;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Gpu(gpu) => &**gpu,
            Self::Cpu(cpu) => cpu,
            Self::Dry(dry) => dry,
        }
    }
}

/// A recording that its device made ready to run many times.
#[derive(Debug)]
pub enum Program {
    /// Pipelines, bind groups and geometry.
    Gpu(GpuProgram),
    /// The recording itself, for devices that interpret it.
    Recording(Recording),
}

impl Program {
    fn gpu(&self) -> Option<&GpuProgram> {
        if let Self::Gpu(program) = self { Some(program) } else { None }
    }

    fn recording(&self) -> Option<&Recording> {
        if let Self::Recording(recording) = self { Some(recording) } else { None }
    }
}

/// A result on its way from the device.
#[derive(Debug)]
pub enum Pending {
    /// A mapping in progress.
    Gpu(Readback),
    /// Already here.
    Ready(Vec<u8>),
}

impl Pending {
    /// Waits for the bytes.
    ///
    /// # Errors
    /// When the device was lost or reported an error meanwhile.
    pub async fn wait(self) -> Result<Vec<u8>> {
        match self {
            Self::Gpu(readback) => readback.wait().await,
            Self::Ready(bytes) => Ok(bytes),
        }
    }
}
