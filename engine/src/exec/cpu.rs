//! The CPU executor: interprets recordings with the kernels' references. For tests and for finding a wrong kernel.

use std::cell::RefCell;

use super::{Device, Pending, Program, Recording};
use crate::buffer::{BufferId, HostMemory};
use crate::device::Capabilities;
use crate::error::Result;

/// Buffers in host memory.
#[derive(Debug)]
pub struct Cpu {
    capabilities: Capabilities,
    memory: RefCell<HostMemory>,
}

impl Cpu {
    /// An executor that pretends to have these capabilities, so that models are set up as for such a device.
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, memory: RefCell::default() }
    }
}

impl Device for Cpu {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn create_buffer(&self, _: &str, bytes: u64) -> Result<BufferId> {
        Ok(self.memory.borrow_mut().create(bytes))
    }

    fn destroy_buffer(&self, id: BufferId) {
        self.memory.borrow_mut().destroy(id);
    }

    fn write(&self, id: BufferId, offset: u64, data: &[u8]) {
        self.memory.borrow_mut().write(id)[offset as usize..][..data.len()].copy_from_slice(data);
    }

    /// Not counted.
    fn allocated_bytes(&self) -> u64 {
        0
    }

    fn compile(&self, _: &str, recording: Recording) -> Program {
        Program::Recording(recording)
    }

    fn submit(&self, programs: &[&Program]) -> Result<()> {
        let mut memory = self.memory.borrow_mut();
        for command in programs.iter().filter_map(|program| program.recording()).flat_map(|recording| &recording.commands) {
            command.run_reference(&mut memory);
        }
        Ok(())
    }

    fn submit_and_read(&self, programs: &[&Program], from: BufferId, offset: u64, bytes: u64) -> Result<Pending> {
        self.submit(programs)?;
        let memory = self.memory.borrow();
        Ok(Pending::Ready(memory.read(from)[offset as usize..][..bytes as usize].to_vec()))
    }
}
