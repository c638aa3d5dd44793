//! The CPU executor: interprets recordings with the kernels' references. For tests and for finding a wrong kernel.

use crate::kernels::{Capabilities, HostBindings};
use crate::recording::{BufferId, Command, Recording};

/// Buffers in host memory.
#[derive(Debug)]
pub struct Cpu {
    capabilities: Capabilities,
    memory: Vec<Option<Vec<u32>>>,
}

impl Cpu {
    /// An executor that pretends to have these capabilities, so that it runs the twins of the same variants.
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, memory: Vec::new() }
    }

    /// What it pretends to be.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(crate) fn create_buffer(&mut self, bytes: u64) -> BufferId {
        self.memory.push(Some(vec![0; bytes.div_ceil(4) as usize]));
        BufferId(self.memory.len() as u32 - 1)
    }

    pub(crate) fn buffer_count(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn destroy_buffer(&mut self, id: BufferId) {
        self.memory[id.0 as usize] = None;
    }

    pub(crate) fn write(&mut self, id: BufferId, offset: u64, data: &[u8]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.memory[id.0 as usize].as_deref_mut().expect("live buffer"));
        bytes[offset as usize..][..data.len()].copy_from_slice(data);
    }

    pub(crate) fn read(&self, id: BufferId, offset: u64, bytes: u64) -> Vec<u8> {
        let all: &[u8] = bytemuck::cast_slice(self.memory[id.0 as usize].as_deref().expect("live buffer"));
        all[offset as usize..][..bytes as usize].to_vec()
    }

    pub(crate) fn run(&mut self, recording: &Recording) {
        for Command { kernel, buffers } in &recording.commands {
            let shader = kernel.plan(&self.capabilities).shader;
            kernel.reference(&mut HostBindings { shader, buffers, memory: &mut self.memory });
        }
    }
}
