//! Opening an adapter: features and limits that kernels can use, and where its errors go.

use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::{AdapterSummary, DeviceTier};
use crate::device::{Capabilities, SubgroupMatrix, Tuning};
use crate::error::{EngineError, Result};

/// Which adapter to open and how much of it to use.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Native only: take the adapter whose name contains this (any case), instead of the system's choice.
    pub adapter: Option<String>,
    /// Use at most this many bytes in a storage binding, as if it were the device's limit.
    pub max_binding: Option<u64>,
    /// Use at most this many bytes in all buffers together, as if the device had no more.
    pub memory: Option<u64>,
    /// Use at most this much workgroup memory, as if it were the device's limit.
    pub workgroup_storage: Option<u32>,
    /// Do not use half-precision arithmetic.
    pub without_f16: bool,
    /// Do not use subgroup operations.
    pub without_subgroups: bool,
    /// Native only: work as if subgroups multiplied such matrices. Plain code does it, for tests.
    pub matrices: Option<SubgroupMatrix>,
    /// Set kernels up in this way, instead of the one for such devices.
    pub tuning: Option<Tuning>,
}

/// The first error of a device. Everything after it is a consequence.
#[derive(Debug, Default)]
pub(super) struct Fault(Mutex<Option<FaultKind>>);

#[derive(Debug)]
enum FaultKind {
    Lost(String),
    Error(String),
    NoMemory,
}

impl Fault {
    fn set(&self, fault: FaultKind) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device explains any error seen just before it.
        if slot.is_none() || matches!(fault, FaultKind::Lost(_)) {
            *slot = Some(fault);
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            None => Ok(()),
            // What failed is said once: the device goes on, with what is freed.
            Some(FaultKind::NoMemory) => {
                *slot = None;
                Err(EngineError::NoMemory { available: None })
            }
            Some(FaultKind::Lost(reason)) => Err(EngineError::DeviceLost { reason: reason.clone() }),
            Some(FaultKind::Error(reason)) => Err(EngineError::Gpu { operation: "run the model".to_owned(), reason: reason.clone() }),
        }
    }
}

/// What failed where an adapter gives no device.
const OPEN: &str = "open a device";

pub(super) struct Opened {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) adapter: AdapterSummary,
    pub(super) capabilities: Capabilities,
    pub(super) fault: Arc<Fault>,
}

pub(super) async fn open(options: &GpuOptions) -> Result<Opened> {
    let adapter = choose(options).await?;
    let offered = adapter.limits();
    let f16 = adapter.features().contains(wgpu::Features::SHADER_F16) && !options.without_f16;
    #[cfg(not(target_arch = "wasm32"))]
    let subgroups = adapter.features().contains(wgpu::Features::SUBGROUP) && !options.without_subgroups;
    // wgpu's web backend does not know the features (gfx-rs/wgpu #10146): web.rs asks for them around wgpu.
    #[cfg(target_arch = "wasm32")]
    for feature in ["subgroups", "chromium-experimental-subgroup-matrix"] {
        super::web::request_feature(feature, !options.without_subgroups);
    }

    let mut features = wgpu::Features::empty();
    features.set(wgpu::Features::SHADER_F16, f16);
    // For the bench: see profile.rs.
    features.set(wgpu::Features::TIMESTAMP_QUERY, adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY));
    #[cfg(not(target_arch = "wasm32"))]
    features.set(wgpu::Features::SUBGROUP, subgroups);

    let limits = wgpu::Limits {
        max_buffer_size: offered.max_buffer_size,
        max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size.min(options.max_binding.unwrap_or(u64::MAX)),
        max_compute_workgroup_storage_size: offered.max_compute_workgroup_storage_size.min(options.workgroup_storage.unwrap_or(u32::MAX)),
        ..wgpu::Limits::default()
    };
    let (device, queue) = adapter
        .request_device(&wgpu::DeviceDescriptor {
            label: Some("doppler"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        })
        .await
        .map_err(|e| EngineError::Gpu { operation: OPEN.to_owned(), reason: e.to_string() })?;
    #[cfg(target_arch = "wasm32")]
    let subgroup_size = super::web::granted_feature("subgroups").then(super::web::subgroup_min_size);
    #[cfg(not(target_arch = "wasm32"))]
    let subgroup_size = subgroups.then(|| adapter.get_info().subgroup_min_size);
    #[cfg(target_arch = "wasm32")]
    let (matrices, support) = match subgroup_size.and_then(|_| super::web::matrices()) {
        Some(offer) => {
            let (matrix, support) = super::matrices::choose(&offer, f16);
            (matrix, Some(support))
        }
        None => (None, None),
    };
    #[cfg(not(target_arch = "wasm32"))]
    let (matrices, support) = (options.matrices, None);

    let fault = Arc::new(Fault::default());
    let seen = Arc::clone(&fault);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        log::error!("WebGPU: {error}");
        seen.set(match error {
            wgpu::Error::OutOfMemory { .. } => FaultKind::NoMemory,
            error => FaultKind::Error(error.to_string()),
        });
    }));
    let seen = Arc::clone(&fault);
    device.set_device_lost_callback(move |reason, message| {
        log::warn!("WebGPU device lost: {reason:?} {message}");
        seen.set(FaultKind::Lost(if message.is_empty() { format!("{reason:?}") } else { message }));
    });

    let (vendor, description, tier) = kind(&adapter.get_info());
    let mut capabilities = Capabilities {
        shader_f16: f16,
        subgroup_size,
        matrices,
        workgroup_storage: limits.max_compute_workgroup_storage_size,
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        discrete: tier == DeviceTier::Discrete,
        tuning: Capabilities::BASELINE.tuning,
    };
    capabilities.tuning = options.tuning.unwrap_or_else(|| capabilities.default_tuning());
    log::info!("adapter {} {capabilities:?}", adapter.get_info().name);
    let adapter = AdapterSummary { vendor, description, tier, features: features_of(&capabilities), matrices: support };
    Ok(Opened { device, queue, adapter, capabilities, fault })
}

async fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let Some(wanted) = &options.adapter else {
        return instance
            .request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                ..Default::default()
            })
            .await
            .map_err(|reason| {
                log::warn!("no adapter: {reason}");
                EngineError::NoAdapter
            });
    };
    let all = instance.enumerate_adapters(wgpu::Backends::all()).await;
    if all.is_empty() {
        return Err(EngineError::NoAdapter);
    }
    let names: Vec<_> = all.iter().map(|a| a.get_info().name).collect();
    let matches = |name: &String| name.to_lowercase().contains(&wanted.to_lowercase());
    let found = all.into_iter().zip(&names).find(|(_, name)| matches(name)).map(|(adapter, _)| adapter);
    found.ok_or_else(|| EngineError::AdapterNotFound { wanted: wanted.clone(), names })
}

/// Vendor, description and kind of an adapter.
fn kind(info: &wgpu::AdapterInfo) -> (String, String, DeviceTier) {
    #[cfg(target_arch = "wasm32")]
    {
        let _ = info;
        let (vendor, description) = super::web::adapter_names();
        // The browser does not tell the kind of a device, but its vendor.
        let tier = match vendor.as_str() {
            "apple" | "intel" | "qualcomm" | "arm" | "img-tec" => DeviceTier::Unified,
            "nvidia" | "amd" => DeviceTier::Discrete,
            _ => DeviceTier::Basic,
        };
        (vendor, description, tier)
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let tier = match info.device_type {
            wgpu::DeviceType::IntegratedGpu => DeviceTier::Unified,
            wgpu::DeviceType::DiscreteGpu => DeviceTier::Discrete,
            _ => DeviceTier::Basic,
        };
        (format!("{:?}", info.backend), info.name.clone(), tier)
    }
}

/// The optional features that are used.
fn features_of(capabilities: &Capabilities) -> Vec<&'static str> {
    let features = [
        ("shader-f16", capabilities.shader_f16),
        ("subgroups", capabilities.subgroup_size.is_some()),
        ("subgroup-matrix", capabilities.matrices.is_some()),
    ];
    features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
}
