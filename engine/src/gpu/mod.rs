//! The WebGPU executor: device, buffers, pipeline cache, encoding, and late read-back.

mod device;
#[cfg(any(target_arch = "wasm32", test))]
mod matrices;
mod pipelines;
mod profile;
mod readback;
#[cfg(target_arch = "wasm32")]
mod web;

pub use device::{AdapterSummary, DeviceTier, GpuOptions, MatrixSupport};
pub use pipelines::Preparation;
pub use profile::KernelTime;
pub use readback::Readback;

use std::sync::Arc;

use crate::buffer::BufferId;
use crate::counters::Counters;
use crate::error::{EngineError, Result};
use crate::kernels::{Capabilities, Plan, Tuning};
use crate::recording::{Command, Recording};
use crate::shaders::BindingKind;
use device::Fault;
use pipelines::{Pipeline, Pipelines};
use readback::StagingPool;

/// Offset alignment of the uniform slices (WebGPU's default limit).
const UNIFORM_ALIGNMENT: usize = 256;

/// A WebGPU device with its buffers and pipelines.
#[derive(Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: AdapterSummary,
    capabilities: Capabilities,
    fault: Arc<Fault>,
    buffers: Vec<Option<wgpu::Buffer>>,
    /// Zeros, for bindings that are absent.
    zeros: wgpu::Buffer,
    allocated: u64,
    /// Bytes that buffers may take together.
    memory: Option<u64>,
    pipelines: Pipelines,
    staging: StagingPool,
    counters: Counters,
}

/// A recording with its pipelines and bind groups made.
#[derive(Debug)]
pub struct GpuProgram {
    label: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// Otherwise a browser frees what the device holds only when its garbage collector comes by.
impl Drop for Gpu {
    fn drop(&mut self) {
        self.device.destroy();
    }
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// When there is none that fits `options`, or it refuses to make a device.
    pub async fn open(options: &GpuOptions) -> Result<Self> {
        let opened = device::open(options).await?;
        let zeros = opened.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("zeros"),
            size: 16,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        Ok(Self {
            pipelines: Pipelines::new(opened.device.clone()),
            device: opened.device,
            queue: opened.queue,
            adapter: opened.adapter,
            capabilities: opened.capabilities,
            fault: opened.fault,
            buffers: Vec::new(),
            zeros,
            allocated: 0,
            memory: options.memory,
            staging: StagingPool::default(),
            counters: Counters::default(),
        })
    }

    /// Whether a GPU that is not there now may be later: a browser without WebGPU never has one.
    pub fn may_come() -> bool {
        #[cfg(target_arch = "wasm32")]
        return web::has_webgpu();
        #[cfg(not(target_arch = "wasm32"))]
        true
    }

    /// Names of adapter and driver.
    pub fn adapter(&self) -> &AdapterSummary {
        &self.adapter
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Sets kernels up in this way from the next model on.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.capabilities.tuning = tuning;
    }

    /// Bytes of all live buffers.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    /// Pipelines that were made so far.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.count()
    }

    /// What was done so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes that all buffers together may take, where that is known.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.memory
    }

    /// Fails when the device reported an error or was lost.
    pub(crate) fn check(&self) -> Result<()> {
        self.fault.check()
    }

    pub(crate) fn create_buffer(&mut self, label: &str, bytes: u64) -> Result<BufferId> {
        let size = self.capabilities.buffer_size(label, bytes)?;
        if let Some(limit) = self.memory.filter(|limit| self.allocated + size > *limit) {
            return Err(EngineError::NoMemory { available: Some(limit) });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        self.allocated += size;
        self.buffers.push(Some(buffer));
        Ok(BufferId(self.buffers.len() as u32 - 1))
    }

    /// Whether buffers of so many bytes together could be made now, once what was destroyed is free.
    pub(crate) async fn could_hold(&self, bytes: u64) -> bool {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let most = self.capabilities.max_binding.min(self.capabilities.max_buffer).min(1 << 30);
        let buffer = |first| {
            let size = most.min(bytes - first).next_multiple_of(4);
            let usage = wgpu::BufferUsages::STORAGE;
            self.device.create_buffer(&wgpu::BufferDescriptor { label: Some("trial"), size, usage, mapped_at_creation: false })
        };
        let buffers: Vec<wgpu::Buffer> = (0..bytes).step_by(most as usize).map(buffer).collect();
        let failed = scope.pop().await.is_some();
        buffers.iter().for_each(wgpu::Buffer::destroy);
        // What the load that did not fit left behind is said already.
        !failed && !matches!(self.fault.check(), Err(EngineError::DeviceLost { .. }))
    }

    pub(crate) fn destroy_buffer(&mut self, id: BufferId) {
        if let Some(buffer) = self.buffers[id.0 as usize].take() {
            self.allocated -= buffer.size();
            buffer.destroy();
        }
    }

    pub(crate) fn write(&mut self, id: BufferId, offset: u64, data: &[u8]) {
        self.queue.write_buffer(self.buffer(id), offset, data);
    }

    fn buffer(&self, id: BufferId) -> &wgpu::Buffer {
        self.buffers[id.0 as usize].as_ref().expect("a buffer is used after it was destroyed")
    }

    /// Begins to make the pipelines that recordings need. Their buffers may be those of another executor.
    pub(crate) fn prepare<'a>(&self, recordings: impl IntoIterator<Item = &'a Recording>) -> Preparation {
        let commands = recordings.into_iter().flat_map(|recording| &recording.commands);
        self.pipelines.prepare(commands.map(|command| command.plan(&self.capabilities)))
    }

    /// Waits for these pipelines.
    pub(crate) async fn prepared(&mut self, preparation: Preparation) {
        self.pipelines.finish(preparation).await;
    }

    pub(crate) fn compile(&mut self, label: &str, recording: &Recording) -> GpuProgram {
        let plans: Vec<Plan> = recording.commands.iter().map(|command| command.plan(&self.capabilities)).collect();
        let (params, offsets) = self.upload_params(label, &plans);
        let mut steps = Vec::with_capacity(plans.len());
        for ((command, plan), offset) in recording.commands.iter().zip(&plans).zip(offsets) {
            steps.push(self.compile_dispatch(command.as_ref(), plan, &params, offset));
        }
        GpuProgram { label: label.to_owned(), steps }
    }

    /// Puts all uniform blocks of a program into one buffer; returns it with each block's offset.
    fn upload_params(&self, label: &str, plans: &[Plan]) -> (wgpu::Buffer, Vec<u64>) {
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(plans.len());
        for plan in plans {
            bytes.resize(bytes.len().next_multiple_of(UNIFORM_ALIGNMENT), 0);
            offsets.push(bytes.len() as u64);
            bytes.extend_from_slice(&plan.params);
        }
        bytes.resize(bytes.len().next_multiple_of(UNIFORM_ALIGNMENT).max(UNIFORM_ALIGNMENT), 0);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, &bytes);
        (buffer, offsets)
    }

    fn compile_dispatch(&mut self, command: &dyn Command, plan: &Plan, params: &wgpu::Buffer, offset: u64) -> Step {
        let Pipeline { pipeline, layout } = self.pipelines.get(plan);
        let entries: Vec<_> = plan
            .shader
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupEntry {
                binding: binding.index,
                resource: match binding.kind {
                    BindingKind::Uniform { size } => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: params,
                        offset,
                        size: wgpu::BufferSize::new(u64::from(size)),
                    }),
                    _ => command.buffer(binding.index).map_or(&self.zeros, |id| self.buffer(id)).as_entire_binding(),
                },
            })
            .collect();
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(plan.shader.kernel),
            layout: &layout,
            entries: &entries,
        });
        Step { pipeline, bind_group, workgroups: plan.workgroups }
    }

    /// Encodes programs into one submission; optionally begins to read a range after them.
    pub(crate) fn submit<'a>(
        &mut self,
        programs: impl IntoIterator<Item = &'a GpuProgram>,
        read: Option<(BufferId, u64, u64)>,
    ) -> Result<Option<Readback>> {
        self.fault.check()?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let dispatches = encode(&mut encoder, programs);
        self.counters.add(dispatches, read.map_or(0, |(_, _, bytes)| bytes));
        let staging = read.map(|(from, offset, bytes)| {
            let staging = self.staging.take(&self.device, bytes);
            encoder.copy_buffer_to_buffer(self.buffer(from), offset, &staging, 0, bytes);
            (staging, bytes)
        });
        let submission = self.queue.submit([encoder.finish()]);
        Ok(staging.map(|(buffer, bytes)| Readback::begin(&self.device, submission, buffer, bytes, &self.staging, &self.fault)))
    }
}

impl Gpu {
    /// Submits what is encoded and begins to read the first bytes of a buffer after it.
    fn finish_and_read(&mut self, mut encoder: wgpu::CommandEncoder, from: &wgpu::Buffer, bytes: u64) -> Result<Readback> {
        self.fault.check()?;
        let staging = self.staging.take(&self.device, bytes);
        encoder.copy_buffer_to_buffer(from, 0, &staging, 0, bytes);
        let submission = self.queue.submit([encoder.finish()]);
        Ok(Readback::begin(&self.device, submission, staging, bytes, &self.staging, &self.fault))
    }
}

/// Encodes programs as one compute pass; returns the number of dispatches.
fn encode<'a>(encoder: &mut wgpu::CommandEncoder, programs: impl IntoIterator<Item = &'a GpuProgram>) -> u64 {
    let mut dispatches = 0;
    let mut pass: Option<wgpu::ComputePass<'_>> = None;
    for program in programs {
        let pass = pass.get_or_insert_with(|| {
            encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(&program.label), timestamp_writes: None })
                .forget_lifetime()
        });
        for Step { pipeline, bind_group, workgroups: [x, y, z] } in &program.steps {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
            dispatches += 1;
        }
    }
    dispatches
}
