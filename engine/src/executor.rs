//! One interface over the two executors.

pub use crate::counters::{Counters, Counts};
use crate::cpu::Cpu;
use crate::error::Result;
use crate::gpu::{DeviceTier, Gpu, GpuProgram, Preparation, Readback};
use crate::kernels::Capabilities;
use crate::recording::{BufferId, Recording};

/// Where recordings run.
#[derive(Debug)]
pub enum Executor {
    /// WebGPU.
    Gpu(Box<Gpu>),
    /// The kernels' references.
    Cpu(Cpu),
    /// Nowhere: buffers are only counted.
    Plan(Planner),
}

/// Counts buffers.
#[derive(Debug)]
pub struct Planner {
    capabilities: Capabilities,
    sizes: Vec<u64>,
    peak: u64,
}

impl Planner {
    /// A planner for a device with these capabilities.
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, sizes: Vec::new(), peak: 0 }
    }

    /// Most bytes at a time so far.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    fn allocated(&self) -> u64 {
        self.sizes.iter().sum()
    }

    fn create_buffer(&mut self, label: &str, bytes: u64) -> Result<BufferId> {
        self.sizes.push(self.capabilities.buffer_size(label, bytes)?);
        self.peak = self.peak.max(self.allocated());
        Ok(BufferId(self.sizes.len() as u32 - 1))
    }
}

/// Buffers that are freed together: those of a model, or of a measurement. [`Scope::free`] frees them, dropping does not: a buffer is
/// the executor's.
#[derive(Debug, Default)]
pub struct Scope {
    buffers: Vec<BufferId>,
}

impl Scope {
    /// Creates a buffer as [`Executor::create_buffer`] does, and frees it with the scope.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    pub fn create_buffer(&mut self, executor: &mut Executor, label: &str, bytes: u64) -> Result<BufferId> {
        let buffer = executor.create_buffer(label, bytes)?;
        self.buffers.push(buffer);
        Ok(buffer)
    }

    /// Frees all buffers that are left.
    pub fn free(self, executor: &mut Executor) {
        for buffer in self.buffers {
            executor.destroy_buffer(buffer);
        }
    }
}

/// A recording made ready to be run many times.
#[derive(Debug)]
pub enum Program {
    /// Pipelines, bind groups and geometry.
    Gpu(GpuProgram),
    /// The recording itself.
    Cpu(Recording),
}

/// A result on its way from the device.
#[derive(Debug)]
pub enum Pending {
    /// A mapping in progress.
    Gpu(Readback),
    /// Already here.
    Cpu(Vec<u8>),
}

impl Pending {
    /// Waits for the bytes.
    ///
    /// # Errors
    /// When the device was lost or reported an error meanwhile.
    pub async fn wait(self) -> Result<Vec<u8>> {
        match self {
            Self::Gpu(readback) => readback.wait().await,
            Self::Cpu(bytes) => Ok(bytes),
        }
    }
}

impl Executor {
    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        match self {
            Self::Gpu(gpu) => gpu.capabilities(),
            Self::Cpu(cpu) => cpu.capabilities(),
            Self::Plan(planner) => &planner.capabilities,
        }
    }

    /// Creates a zeroed buffer of at least `bytes`.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    pub fn create_buffer(&mut self, label: &str, bytes: u64) -> Result<BufferId> {
        match self {
            Self::Gpu(gpu) => gpu.create_buffer(label, bytes),
            Self::Cpu(cpu) => Ok(cpu.create_buffer(bytes)),
            Self::Plan(planner) => planner.create_buffer(label, bytes),
        }
    }

    /// Frees a buffer at once, unless it was freed before.
    pub fn destroy_buffer(&mut self, id: BufferId) {
        match self {
            Self::Gpu(gpu) => gpu.destroy_buffer(id),
            Self::Cpu(cpu) => cpu.destroy_buffer(id),
            Self::Plan(planner) => planner.sizes[id.0 as usize] = 0,
        }
    }

    /// Writes bytes, ordered with the submissions around it. Offset and length are multiples of 4.
    pub fn write(&mut self, id: BufferId, offset: u64, data: &[u8]) {
        match self {
            Self::Gpu(gpu) => gpu.write(id, offset, data),
            Self::Cpu(cpu) => cpu.write(id, offset, data),
            Self::Plan(_) => {}
        }
    }

    /// Whether there is no device of its own behind it, as far as one can tell.
    pub fn is_software(&self) -> bool {
        if let Self::Gpu(gpu) = self { gpu.adapter().tier == DeviceTier::Basic } else { true }
    }

    /// Begins to make what recordings need, all at a time and while the device does other work: making it one by one when it is
    /// needed takes seconds. Nothing runs, and the buffers may be those of another executor.
    pub fn prepare<'a>(&self, recordings: impl IntoIterator<Item = &'a Recording>) -> Option<Preparation> {
        match self {
            Self::Gpu(gpu) => Some(gpu.prepare(recordings)),
            Self::Cpu(_) | Self::Plan(_) => None,
        }
    }

    /// Waits for what [`Self::prepare`] began.
    pub async fn prepared(&mut self, preparation: Option<Preparation>) {
        if let (Self::Gpu(gpu), Some(preparation)) = (self, preparation) {
            gpu.prepared(preparation).await;
        }
    }

    /// Makes a recording ready to run.
    pub fn compile(&mut self, label: &str, recording: Recording) -> Program {
        match self {
            Self::Gpu(gpu) => Program::Gpu(gpu.compile(label, &recording)),
            Self::Cpu(_) | Self::Plan(_) => Program::Cpu(recording),
        }
    }

    /// Runs programs in order, in one submission.
    ///
    /// # Errors
    /// When the device was lost or reported an error before.
    pub fn submit(&mut self, programs: &[&Program]) -> Result<()> {
        match self {
            Self::Gpu(gpu) => {
                gpu.submit(programs.iter().filter_map(|p| if let Program::Gpu(p) = p { Some(p) } else { None }), None).map(|_| ())
            }
            Self::Cpu(cpu) => {
                run_on_cpu(cpu, programs);
                Ok(())
            }
            Self::Plan(_) => Ok(()),
        }
    }

    /// Runs programs in order and begins to read `bytes` at `offset` of a buffer after them.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_and_read(&mut self, programs: &[&Program], from: BufferId, offset: u64, bytes: u64) -> Result<Pending> {
        match self {
            Self::Gpu(gpu) => {
                let programs = programs.iter().filter_map(|p| if let Program::Gpu(p) = p { Some(p) } else { None });
                let readback = gpu.submit(programs, Some((from, offset, bytes)))?;
                Ok(Pending::Gpu(readback.expect("asked for")))
            }
            Self::Cpu(cpu) => {
                run_on_cpu(cpu, programs);
                Ok(Pending::Cpu(cpu.read(from, offset, bytes)))
            }
            Self::Plan(_) => Ok(Pending::Cpu(vec![0; bytes as usize])),
        }
    }

    /// Records, compiles and submits once.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn run_once(&mut self, label: &str, recording: Recording) -> Result<()> {
        let program = self.compile(label, recording);
        self.submit(&[&program])
    }

    /// Fails when the device reported an error or was lost.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Gpu(gpu) => gpu.check(),
            Self::Cpu(_) | Self::Plan(_) => Ok(()),
        }
    }

    /// What it has done so far; only the GPU counts.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Gpu(gpu) => gpu.counters().clone(),
            Self::Cpu(_) | Self::Plan(_) => Counters::default(),
        }
    }

    /// Whether buffers of so many bytes together could be made now. It is tried: WebGPU does not tell how much memory there is.
    pub(crate) async fn could_hold(&self, bytes: u64) -> bool {
        match self {
            Self::Gpu(gpu) => gpu.could_hold(bytes).await,
            Self::Cpu(_) | Self::Plan(_) => true,
        }
    }

    /// Bytes that all buffers together may take, where that is known.
    pub fn memory_limit(&self) -> Option<u64> {
        match self {
            Self::Gpu(gpu) => gpu.memory_limit(),
            Self::Cpu(_) | Self::Plan(_) => None,
        }
    }

    /// Bytes of all live buffers.
    pub fn allocated_bytes(&self) -> u64 {
        match self {
            Self::Gpu(gpu) => gpu.allocated_bytes(),
            Self::Cpu(_) => 0,
            Self::Plan(planner) => planner.allocated(),
        }
    }
}

fn run_on_cpu(cpu: &mut Cpu, programs: &[&Program]) {
    for program in programs {
        if let Program::Cpu(recording) = program {
            cpu.run(recording);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freeing_a_scope_leaves_the_buffers_of_others() {
        let mut executor = Executor::Plan(Planner::new(Capabilities::BASELINE));
        let (mut one, mut other) = (Scope::default(), Scope::default());
        let mut buffer = |scope: &mut Scope, bytes| scope.create_buffer(&mut executor, "test", bytes).unwrap();
        let first = buffer(&mut one, 256);
        buffer(&mut other, 512);
        buffer(&mut one, 1024);
        executor.destroy_buffer(first);
        assert_eq!(executor.allocated_bytes(), 512 + 1024);
        one.free(&mut executor);
        assert_eq!(executor.allocated_bytes(), 512);
        other.free(&mut executor);
        assert_eq!(executor.allocated_bytes(), 0);
    }
}
