//! Pipelines: one for each variant and set of constants, made when it is first used, or together with others before.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::kernels::Plan;
use crate::shaders::{BindingKind, Shader};

/// The pipelines of a device.
#[derive(Debug)]
pub(super) struct Pipelines {
    device: wgpu::Device,
    made: RefCell<HashMap<PipelineKey, Pipeline>>,
}

/// A variant with the values of its `override` constants.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PipelineKey {
    kernel: &'static str,
    variant: &'static str,
    constants: Vec<(&'static str, u64)>,
}

impl PipelineKey {
    fn of(plan: &Plan) -> Self {
        Self {
            kernel: plan.shader.kernel,
            variant: plan.shader.variant,
            constants: plan.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect(),
        }
    }
}

/// A pipeline and the layout of its one bind group.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

impl Pipelines {
    pub(super) fn new(device: wgpu::Device) -> Self {
        Self { device, made: RefCell::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.made.borrow().len()
    }

    /// The pipeline of a plan, made now if it was not before.
    pub(super) fn get(&self, plan: &Plan) -> Pipeline {
        self.made.borrow_mut().entry(PipelineKey::of(plan)).or_insert_with(|| make(&self.device, plan)).clone()
    }

    /// Begins to make what is not there yet.
    pub(super) fn prepare(&self, plans: impl IntoIterator<Item = Plan>) -> Preparation {
        let missing: HashMap<_, _> = plans.into_iter().map(|plan| (PipelineKey::of(&plan), plan)).collect();
        let made = self.made.borrow();
        Preparation::begin(&self.device, missing.into_iter().filter(|(key, _)| !made.contains_key(key)).collect())
    }

    /// Waits for what is being made, to use it from now on.
    pub(super) async fn finish(&self, preparation: Preparation) {
        let made = preparation.made(&self.device).await;
        self.made.borrow_mut().extend(made);
    }
}

fn make(device: &wgpu::Device, plan: &Plan) -> Pipeline {
    let shader = plan.shader;
    let layout = bind_group_layout(device, shader);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(shader.kernel),
        source: wgpu::ShaderSource::Wgsl(shader.wgsl().into()),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(shader.kernel),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&format!("{} {}", shader.kernel, shader.variant)),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(shader.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &plan.constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    Pipeline { pipeline, layout }
}

fn bind_group_layout(device: &wgpu::Device, shader: &Shader) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = shader
        .bindings
        .iter()
        .map(|binding| wgpu::BindGroupLayoutEntry {
            binding: binding.index,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding.kind {
                    BindingKind::Uniform { .. } => wgpu::BufferBindingType::Uniform,
                    BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(shader.kernel), entries: &entries })
}

pub use preparation::Preparation;

/// Natively threads make them, until nobody wants them any more.
#[cfg(not(target_arch = "wasm32"))]
mod preparation {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use futures::StreamExt;
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};

    use super::{Pipeline, PipelineKey, make};
    use crate::kernels::Plan;

    /// Pipelines that are being made.
    #[derive(Debug)]
    pub struct Preparation(UnboundedReceiver<(PipelineKey, Pipeline)>);

    impl Preparation {
        pub(super) fn begin(device: &wgpu::Device, missing: Vec<(PipelineKey, Plan)>) -> Self {
            let (sender, receiver) = unbounded();
            let threads = thread::available_parallelism().map_or(1, usize::from).min(missing.len());
            let missing = Arc::new(Mutex::new(missing.into_iter()));
            for _ in 0..threads {
                let (device, missing, sender) = (device.clone(), Arc::clone(&missing), sender.clone());
                thread::spawn(move || {
                    let next = || missing.lock().unwrap_or_else(PoisonError::into_inner).next();
                    while !sender.is_closed()
                        && let Some((key, plan)) = next()
                    {
                        let _ = sender.unbounded_send((key, make(&device, &plan)));
                    }
                });
            }
            Self(receiver)
        }

        pub(super) async fn made(self, _: &wgpu::Device) -> Vec<(PipelineKey, Pipeline)> {
            self.0.collect().await
        }
    }
}

/// In a browser its own threads do: it makes a pipeline at once if it has an equal one already.
#[cfg(target_arch = "wasm32")]
mod preparation {
    use wasm_bindgen_futures::JsFuture;

    use super::super::web;
    use super::{Pipeline, PipelineKey, make};
    use crate::kernels::Plan;

    /// Pipelines that are being made, until nobody wants them any more.
    #[derive(Debug)]
    pub struct Preparation {
        plans: Vec<(PipelineKey, Plan)>,
        queue: web::PipelineQueue,
    }

    impl Drop for Preparation {
        fn drop(&mut self) {
            self.queue.stop();
        }
    }

    impl Preparation {
        pub(super) fn begin(device: &wgpu::Device, missing: Vec<(PipelineKey, Plan)>) -> Self {
            web::note_pipelines();
            for (_, plan) in &missing {
                make(device, plan);
            }
            Self { plans: missing, queue: web::make_noted() }
        }

        pub(super) async fn made(mut self, device: &wgpu::Device) -> Vec<(PipelineKey, Pipeline)> {
            // What the browser has made is held until here. Why it made none is told when it is asked for.
            let _held = JsFuture::from(self.queue.made()).await;
            std::mem::take(&mut self.plans).into_iter().map(|(key, plan)| (key, make(device, &plan))).collect()
        }
    }
}
