//! The WebGPU executor: device, buffers, pipeline cache, encoding, and late read-back.

mod adapter;
mod buffers;
mod device;
#[cfg(any(target_arch = "wasm32", test))]
mod matrices;
mod pipelines;
mod profile;
mod readback;
#[cfg(target_arch = "wasm32")]
mod web;

pub use adapter::{AdapterSummary, DeviceTier, MatrixSupport};
pub use device::GpuOptions;
pub use pipelines::Preparation;
pub use profile::KernelTime;
pub use readback::Readback;

use std::cell::RefCell;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::recording::{Command, Recording};
use super::{BufferId, Counters, Device, Pending, Program};
use crate::device::{Capabilities, Tuning};
use crate::error::{EngineError, Result};
use crate::kernels::Plan;
use crate::shaders::BindingKind;
use buffers::Buffers;
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
    buffers: RefCell<Buffers>,
    /// Zeros, for bindings that are absent.
    zeros: wgpu::Buffer,
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
            buffers: RefCell::default(),
            zeros,
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

    /// Pipelines that were made so far.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.count()
    }

    /// Makes pipelines, bind groups and parameters of a recording.
    fn program(&self, label: &str, recording: &Recording) -> GpuProgram {
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

    fn compile_dispatch(&self, command: &dyn Command, plan: &Plan, params: &wgpu::Buffer, offset: u64) -> Step {
        let Pipeline { pipeline, layout } = self.pipelines.get(plan);
        let buffers = self.buffers.borrow();
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
                    _ => command.buffer(binding.index).map_or(&self.zeros, |id| buffers.get(id)).as_entire_binding(),
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

    /// Encodes programs for one submission.
    fn encode(&self, programs: &[&Program], read_bytes: u64) -> Result<wgpu::CommandEncoder> {
        self.fault.check()?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let dispatches = encode(&mut encoder, programs.iter().filter_map(|program| program.gpu()));
        self.counters.add(dispatches, read_bytes);
        Ok(encoder)
    }

    /// Submits what is encoded and begins to read a range of a buffer after it.
    fn finish_and_read(&self, mut encoder: wgpu::CommandEncoder, from: &wgpu::Buffer, offset: u64, bytes: u64) -> Readback {
        let staging = self.staging.take(&self.device, bytes);
        encoder.copy_buffer_to_buffer(from, offset, &staging, 0, bytes);
        let submission = self.queue.submit([encoder.finish()]);
        Readback::begin(&self.device, submission, staging, bytes, &self.staging, &self.fault)
    }

    async fn try_to_hold(&self, bytes: u64) -> bool {
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
}

impl Device for Gpu {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn create_buffer(&self, label: &str, bytes: u64) -> Result<BufferId> {
        let size = self.capabilities.buffer_size(label, bytes)?;
        let mut buffers = self.buffers.borrow_mut();
        if let Some(limit) = self.memory.filter(|limit| buffers.allocated() + size > *limit) {
            return Err(EngineError::NoMemory { available: Some(limit) });
        }
        Ok(buffers.add(self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })))
    }

    fn destroy_buffer(&self, id: BufferId) {
        self.buffers.borrow_mut().destroy(id);
    }

    fn write(&self, id: BufferId, offset: u64, data: &[u8]) {
        self.queue.write_buffer(self.buffers.borrow().get(id), offset, data);
    }

    fn allocated_bytes(&self) -> u64 {
        self.buffers.borrow().allocated()
    }

    fn compile(&self, label: &str, recording: Recording) -> Program {
        Program::Gpu(self.program(label, &recording))
    }

    fn submit(&self, programs: &[&Program]) -> Result<()> {
        let encoder = self.encode(programs, 0)?;
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn submit_and_read(&self, programs: &[&Program], from: BufferId, offset: u64, bytes: u64) -> Result<Pending> {
        let encoder = self.encode(programs, bytes)?;
        Ok(Pending::Gpu(self.finish_and_read(encoder, self.buffers.borrow().get(from), offset, bytes)))
    }

    fn check(&self) -> Result<()> {
        self.fault.check()
    }

    fn is_software(&self) -> bool {
        self.adapter.tier == DeviceTier::Basic
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn memory_limit(&self) -> Option<u64> {
        self.memory
    }

    fn could_hold(&self, bytes: u64) -> LocalBoxFuture<'_, bool> {
        self.try_to_hold(bytes).boxed_local()
    }

    fn prepare(&self, recordings: &mut dyn Iterator<Item = &Recording>) -> Option<Preparation> {
        let commands = recordings.flat_map(|recording| &recording.commands);
        Some(self.pipelines.prepare(commands.map(|command| command.plan(&self.capabilities))))
    }

    fn prepared(&self, preparation: Preparation) -> LocalBoxFuture<'_, ()> {
        self.pipelines.finish(preparation).boxed_local()
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
