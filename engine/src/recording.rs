//! Commands as data: a forward pass records kernels; an executor runs them.
//!
//! [`crate::gpu::Gpu`] encodes a recording for WebGPU, [`crate::cpu::Cpu`] interprets it with the kernels' references.

use crate::kernels::Kernel;

/// A buffer of an executor. Freed buffers' ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub(crate) u32);

/// One step of a [`Recording`]: a kernel and what it runs on.
#[derive(Debug)]
pub struct Command {
    /// What to run.
    pub kernel: Box<dyn Kernel>,
    /// Buffers in the order of its shader's storage bindings.
    pub buffers: Vec<BufferId>,
}

/// A list of commands without any backend in it.
#[derive(Debug, Default)]
pub struct Recording {
    /// The commands in order; each sees the effects of those before it.
    pub commands: Vec<Command>,
}

impl Recording {
    /// An empty recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a kernel.
    pub fn dispatch(&mut self, kernel: impl Kernel + 'static, buffers: &[BufferId]) {
        self.commands.push(Command { kernel: Box::new(kernel), buffers: buffers.to_vec() });
    }
}
