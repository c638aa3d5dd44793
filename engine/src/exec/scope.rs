//! Buffers with a common life.

use super::{BufferId, Executor};
use crate::error::Result;

/// Buffers that are freed together: those of a model, or of a measurement. [`Scope::free`] frees them, dropping does not: a buffer is
/// the executor's.
#[derive(Debug, Default)]
pub struct Scope {
    buffers: Vec<BufferId>,
}

impl Scope {
    /// Creates a buffer as [`Device::create_buffer`](super::Device::create_buffer) does, and frees it with the scope.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    pub fn create_buffer(&mut self, executor: &Executor, label: &str, bytes: u64) -> Result<BufferId> {
        let buffer = executor.create_buffer(label, bytes)?;
        self.buffers.push(buffer);
        Ok(buffer)
    }

    /// Frees all buffers that are left.
    pub fn free(self, executor: &Executor) {
        for buffer in self.buffers {
            executor.destroy_buffer(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Capabilities;
    use crate::exec::DryRun;

    #[test]
    fn scope_free_keeps_buffers_of_other_scopes() {
        let executor = Executor::Dry(DryRun::new(Capabilities::BASELINE));
        let (mut one, mut other) = (Scope::default(), Scope::default());
        let buffer = |scope: &mut Scope, bytes| scope.create_buffer(&executor, "test", bytes).unwrap();
        let first = buffer(&mut one, 256);
        buffer(&mut other, 512);
        buffer(&mut one, 1024);
        executor.destroy_buffer(first);
        assert_eq!(executor.allocated_bytes(), 512 + 1024);
        one.free(&executor);
        assert_eq!(executor.allocated_bytes(), 512);
        other.free(&executor);
        assert_eq!(executor.allocated_bytes(), 0);
        let Executor::Dry(dry) = &executor else { unreachable!("made above") };
        assert_eq!(dry.peak(), 256 + 512 + 1024);
    }
}
