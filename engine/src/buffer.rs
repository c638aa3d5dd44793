//! Names of an executor's buffers, and buffers in host memory.

use bytemuck::Pod;

/// A buffer of an executor. Freed buffers' ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub(crate) u32);

/// Buffers in host memory: those of the CPU executor, which kernels' references read and write.
#[derive(Debug, Default)]
pub struct HostMemory(Vec<Option<Vec<u32>>>);

impl HostMemory {
    /// Makes a buffer of zeros, of whole words.
    pub(crate) fn create(&mut self, bytes: u64) -> BufferId {
        self.0.push(Some(vec![0; bytes.div_ceil(4) as usize]));
        BufferId(self.0.len() as u32 - 1)
    }

    /// Frees a buffer.
    pub(crate) fn destroy(&mut self, id: BufferId) {
        self.0[id.0 as usize] = None;
    }

    /// The elements of a buffer.
    pub fn read<T: Pod>(&self, id: BufferId) -> &[T] {
        bytemuck::cast_slice(self.0[id.0 as usize].as_deref().expect("live buffer"))
    }

    /// The elements of a buffer, to write.
    pub fn write<T: Pod>(&mut self, id: BufferId) -> &mut [T] {
        bytemuck::cast_slice_mut(self.0[id.0 as usize].as_deref_mut().expect("live buffer"))
    }
}
