//! The CPU executor: interprets recordings with the kernels' references. For tests and for finding a wrong kernel.

use crate::buffer::{BufferId, HostMemory};
use crate::kernels::Capabilities;
use crate::recording::Recording;

/// Buffers in host memory.
#[derive(Debug)]
pub struct Cpu {
    capabilities: Capabilities,
    memory: HostMemory,
}

impl Cpu {
    /// An executor that pretends to have these capabilities, so that models are set up as for such a device.
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, memory: HostMemory::default() }
    }

    /// What it pretends to be.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(crate) fn create_buffer(&mut self, bytes: u64) -> BufferId {
        self.memory.create(bytes)
    }

    pub(crate) fn destroy_buffer(&mut self, id: BufferId) {
        self.memory.destroy(id);
    }

    pub(crate) fn write(&mut self, id: BufferId, offset: u64, data: &[u8]) {
        self.memory.write(id)[offset as usize..][..data.len()].copy_from_slice(data);
    }

    pub(crate) fn read(&self, id: BufferId, offset: u64, bytes: u64) -> Vec<u8> {
        self.memory.read(id)[offset as usize..][..bytes as usize].to_vec()
    }

    pub(crate) fn run(&mut self, recording: &Recording) {
        for command in &recording.commands {
            command.run_reference(&mut self.memory);
        }
    }
}
