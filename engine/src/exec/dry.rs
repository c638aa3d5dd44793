//! A device that counts buffers and runs nothing: the memory plan of a model is its load on this device.

use std::cell::{Cell, RefCell};

use super::{BufferId, Device, Pending, Program, Recording};
use crate::device::Capabilities;
use crate::error::Result;

/// Counts buffers.
#[derive(Debug)]
pub struct DryRun {
    capabilities: Capabilities,
    /// Bytes of each buffer; 0 once it is freed.
    sizes: RefCell<Vec<u64>>,
    allocated: Cell<u64>,
    peak: Cell<u64>,
}

impl DryRun {
    /// A dry run for a device with these capabilities.
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, sizes: RefCell::default(), allocated: Cell::new(0), peak: Cell::new(0) }
    }

    /// Most bytes of live buffers so far.
    pub fn peak(&self) -> u64 {
        self.peak.get()
    }
}

impl Device for DryRun {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn create_buffer(&self, label: &str, bytes: u64) -> Result<BufferId> {
        let size = self.capabilities.buffer_size(label, bytes)?;
        let mut sizes = self.sizes.borrow_mut();
        sizes.push(size);
        self.allocated.update(|allocated| allocated + size);
        self.peak.update(|peak| peak.max(self.allocated.get()));
        Ok(BufferId(sizes.len() as u32 - 1))
    }

    fn destroy_buffer(&self, id: BufferId) {
        let size = std::mem::take(&mut self.sizes.borrow_mut()[id.0 as usize]);
        self.allocated.update(|allocated| allocated - size);
    }

    fn write(&self, _: BufferId, _: u64, _: &[u8]) {}

    fn allocated_bytes(&self) -> u64 {
        self.allocated.get()
    }

    fn compile(&self, _: &str, recording: Recording) -> Program {
        Program::Recording(recording)
    }

    fn submit(&self, _: &[&Program]) -> Result<()> {
        Ok(())
    }

    fn submit_and_read(&self, _: &[&Program], _: BufferId, _: u64, bytes: u64) -> Result<Pending> {
        Ok(Pending::Ready(vec![0; bytes as usize]))
    }
}
