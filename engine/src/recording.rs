//! Commands as data: a forward pass records kernels and copies; an executor runs them.
//!
//! [`crate::gpu::Gpu`] encodes a recording for WebGPU, [`crate::cpu::Cpu`] interprets it with the kernels' references.

use crate::kernels::Kernel;

/// A buffer of an executor. Freed buffers' ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub(crate) u32);

/// One step of a [`Recording`].
#[derive(Debug)]
pub enum Command {
    /// Run a kernel on buffers given in the order of its shader's storage bindings.
    Dispatch {
        /// What to run.
        kernel: Box<dyn Kernel>,
        /// One buffer a storage binding.
        buffers: Vec<BufferId>,
    },
    /// Copy bytes between buffers; offsets and length are multiples of 4.
    Copy {
        /// Source buffer.
        from: BufferId,
        /// Byte offset in the source.
        from_offset: u64,
        /// Destination buffer.
        to: BufferId,
        /// Byte offset in the destination.
        to_offset: u64,
        /// Bytes to copy.
        bytes: u64,
    },
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
        self.commands.push(Command::Dispatch { kernel: Box::new(kernel), buffers: buffers.to_vec() });
    }

    /// Appends a copy.
    pub fn copy(&mut self, from: (BufferId, u64), to: (BufferId, u64), bytes: u64) {
        self.commands.push(Command::Copy { from: from.0, from_offset: from.1, to: to.0, to_offset: to.1, bytes });
    }
}
