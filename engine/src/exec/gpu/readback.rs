//! Reading results late: a pool of mappable buffers, so that the device never waits for the host.

use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::oneshot;

use super::device::Fault;
use crate::error::{EngineError, Result};

/// Mappable buffers, kept by size for reuse.
#[derive(Clone, Debug, Default)]
pub(super) struct StagingPool(Arc<Mutex<Vec<wgpu::Buffer>>>);

impl StagingPool {
    pub(super) fn take(&self, device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = free.iter().position(|b| b.size() == bytes) {
            return free.swap_remove(i);
        }
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    fn release(&self, buffer: wgpu::Buffer) {
        /// More than the reads in flight at any time; the rest are one-off sizes.
        const KEPT: usize = 8;
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() == KEPT {
            free.remove(0).destroy();
        }
        free.push(buffer);
    }
}

/// A range of a buffer on its way to the host.
#[derive(Debug)]
pub struct Readback {
    buffer: wgpu::Buffer,
    mapped: oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
    pool: StagingPool,
    fault: Arc<Fault>,
    #[cfg(not(target_arch = "wasm32"))]
    device: wgpu::Device,
    #[cfg(not(target_arch = "wasm32"))]
    submission: wgpu::SubmissionIndex,
}

impl Readback {
    #[cfg_attr(target_arch = "wasm32", allow(unused_variables, clippy::needless_pass_by_value))]
    pub(super) fn begin(
        device: &wgpu::Device,
        submission: wgpu::SubmissionIndex,
        buffer: wgpu::Buffer,
        bytes: u64,
        pool: &StagingPool,
        fault: &Arc<Fault>,
    ) -> Self {
        let (sender, mapped) = oneshot::channel();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver is gone when the request was aborted: nobody wants the bytes.
            let _ = sender.send(result);
        });
        Self {
            buffer,
            mapped,
            pool: pool.clone(),
            fault: Arc::clone(fault),
            #[cfg(not(target_arch = "wasm32"))]
            device: device.clone(),
            #[cfg(not(target_arch = "wasm32"))]
            submission,
        }
    }

    /// Waits for the bytes. In the browser this yields to the event loop; natively it blocks on the submission.
    ///
    /// # Errors
    /// When the device was lost or reported an error.
    pub async fn wait(self) -> Result<Vec<u8>> {
        #[cfg(not(target_arch = "wasm32"))]
        self.device
            .poll(wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None })
            .map_err(|e| gpu_error(&e))?;
        let mapped = self.mapped.await;
        self.fault.check()?;
        mapped.map_err(|e| gpu_error(&e))?.map_err(|e| gpu_error(&e))?;
        let bytes = self.buffer.get_mapped_range(..).map_err(|e| gpu_error(&e))?.to_vec();
        self.buffer.unmap();
        self.pool.release(self.buffer);
        Ok(bytes)
    }
}

fn gpu_error(error: &impl std::fmt::Display) -> EngineError {
    EngineError::Gpu { operation: "read a result".to_owned(), reason: error.to_string() }
}
