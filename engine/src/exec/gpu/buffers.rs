//! The buffers of a device by id.

use super::super::BufferId;

/// Live buffers and their bytes.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// By id; `None` once one is freed.
    list: Vec<Option<wgpu::Buffer>>,
    allocated: u64,
}

impl Buffers {
    /// Bytes of all live buffers.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    pub(super) fn get(&self, id: BufferId) -> &wgpu::Buffer {
        self.list[id.0 as usize].as_ref().expect("a buffer is used after it was destroyed")
    }

    pub(super) fn add(&mut self, buffer: wgpu::Buffer) -> BufferId {
        self.allocated += buffer.size();
        self.list.push(Some(buffer));
        BufferId(self.list.len() as u32 - 1)
    }

    /// Frees a buffer, unless it was freed before.
    pub(super) fn destroy(&mut self, id: BufferId) {
        if let Some(buffer) = self.list[id.0 as usize].take() {
            self.allocated -= buffer.size();
            buffer.destroy();
        }
    }
}
