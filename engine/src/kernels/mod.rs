//! The kernels: typed parameters, choice of variant, dispatch geometry, and a plain CPU reference each.
//!
//! A kernel's WGSL is `shaders/<name>.wesl`; its twin is the file of the same name here. To add one, see `docs/kernels.md`.

mod attention;
mod cache;
mod embed;
mod gated;
mod linear;
mod matmul_int8;
mod norm;
mod pool;
mod repack;
mod roofline;
mod rope;
mod sample;
mod weights;

pub use attention::{AttentionCombine, AttentionDecode, AttentionPrefill, AttentionShape, AttentionTier, Splits};
pub use cache::{KvFormat, PAGE};
pub use embed::{Embed, EmbedIndex};
pub use gated::{Activation, Gated};
pub use linear::{Epilogue, Linear, Matmul, MatmulCombine, Matvec};
pub use matmul_int8::{Interleave, MatmulInt8, QuantizeRows};
pub use norm::{Norm, NormKind, QkNorm};
pub use pool::Pool;
pub use repack::Repack;
pub use roofline::{RooflineMultiply, RooflineRead};
pub use rope::{RopeKv, RopePairing, Rotary, Temperature};
pub use sample::{Best, Group, NO_TOKEN, Row, Sample, SampleDraw, SampleGroups, Sampler, Sampling, sample_reference};
pub use weights::{WeightLayout, dequantize_row};

pub use crate::shaders::bindings::*;

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::buffer::HostMemory;
use crate::error::{EngineError, Result};
use crate::shaders::{Bindings, Shader, Variant};

/// Matrices that the invocations of a subgroup multiply together: elements, rows and columns. Sums are in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubgroupMatrix {
    /// 16 x 16 in half precision: NVIDIA's and AMD's.
    F16x16,
    /// 8 x 8 in half precision.
    F16x8,
    /// 8 x 8 in single precision: Apple's.
    F32x8,
}

impl SubgroupMatrix {
    /// All, the fastest first.
    pub const ALL: [Self; 3] = [Self::F16x16, Self::F16x8, Self::F32x8];

    /// Rows, and as many columns.
    pub const fn side(self) -> u32 {
        if matches!(self, Self::F16x16) { 16 } else { 8 }
    }

    /// Whether elements are in half precision.
    pub const fn half(self) -> bool {
        !matches!(self, Self::F32x8)
    }
}

/// What a device can do, as far as a kernel's variant and geometry depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    /// `shader-f16`: arithmetic in half precision.
    pub shader_f16: bool,
    /// Invocations in the smallest subgroup, where the device has `subgroups`.
    pub subgroup_size: Option<u32>,
    /// Matrices that subgroups multiply, where all subgroups are of one size: 8, 16 or 32.
    pub matrices: Option<SubgroupMatrix>,
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
    /// Largest storage buffer binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Whether it is a GPU with memory of its own.
    pub discrete: bool,
    /// How kernels are set up for it.
    pub tuning: Tuning,
}

/// Choices between ways to compute the same, by how a device performs. Results may differ in rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Invocations in a workgroup of [`Matvec`]: 64 or, with subgroups, 256. A larger one reads x less often.
    pub matvec_workgroup: u32,
    /// Invocations in a workgroup of [`AttentionDecode`]: 64 or 256.
    pub decode_workgroup: u32,
    /// Workgroups of [`AttentionDecode`] from which each serves several query heads.
    pub decode_workgroups: u32,
    /// Workgroups of a [`Matvec`] that fill the device. Where outputs make more, a workgroup takes several turns; where they make
    /// fewer, more invocations share an output.
    pub matvec_workgroups: u32,
    /// Workgroups of an [`AttentionPrefill`] that fill the device: where there are fewer, each has a part of the cache only.
    pub prefill_workgroups: u32,
    /// Most rows of a prompt that are read in a step.
    pub prefill_rows: u32,
    /// Workgroups of a [`Matmul`] from which larger tiles pay.
    pub matmul_tiles: u32,
    /// Whether a [`Matmul`] with neither matrices nor bytes sums a tile in half precision where the device has it: less exact, and no
    /// faster on an NVIDIA H200.
    pub matmul_half: bool,
    /// Whether a [`Matmul`] multiplies with [`SubgroupMatrix`] where the device has them.
    pub matmul_matrices: bool,
    /// Whether x is rounded to bytes for a product of many rows with weights of a byte or less, and [`MatmulInt8`] used: where
    /// [`SubgroupMatrix`] is not. Less exact, and twice as fast where packed products are instructions.
    pub matmul_int8: bool,
}

impl Tuning {
    /// For a device with subgroups of this size: discrete GPUs and Apple's have 32 invocations or more. Those of discrete GPUs have packed
    /// products, Apple's have none, and what others do with them is to be measured.
    pub const fn of(subgroup_size: Option<u32>, discrete: bool) -> Self {
        let large = matches!(subgroup_size, Some(32..));
        let (workgroup, workgroups, decode_workgroups) = if large { (256, 256, 64) } else { (64, 16, 1) };
        Self {
            matvec_workgroup: workgroup,
            matvec_workgroups: workgroups,
            decode_workgroup: workgroup,
            decode_workgroups,
            prefill_workgroups: if discrete { 1024 } else { 1 },
            prefill_rows: if discrete { 512 } else { 256 },
            matmul_tiles: workgroups,
            matmul_half: false,
            matmul_matrices: true,
            matmul_int8: discrete,
        }
    }
}

impl Capabilities {
    /// What every WebGPU device can do: the specification's default limits and no optional feature.
    pub const BASELINE: Self = Self {
        shader_f16: false,
        subgroup_size: None,
        matrices: None,
        workgroup_storage: 16 << 10,
        max_binding: 128 << 20,
        max_buffer: 256 << 20,
        discrete: false,
        tuning: Tuning::of(None, false),
    };

    /// How kernels are set up for such a device unless it is known better.
    pub fn default_tuning(&self) -> Tuning {
        Tuning::of(self.subgroup_size, self.discrete)
    }

    /// Whether kernels use subgroup operations.
    pub(crate) fn has_subgroups(&self) -> bool {
        self.subgroup_size.is_some()
    }

    /// The size that a buffer of at least `bytes` has on such a device.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    pub(crate) fn buffer_size(&self, label: &str, bytes: u64) -> Result<u64> {
        let size = bytes.next_multiple_of(16).max(16);
        let limit = self.max_binding.min(self.max_buffer);
        if size > limit {
            return Err(EngineError::TooLarge { what: label.to_owned(), needed: size, limit });
        }
        Ok(size)
    }
}

/// How a kernel runs on a device: the variant and the geometry, decided together. `B` is what it binds.
#[derive(Clone, Debug)]
pub struct Plan<B = ()> {
    /// The compiled variant.
    pub shader: &'static Shader,
    /// Values of the shader's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The uniform `params`, as bytes.
    pub params: Vec<u8>,
    /// Workgroups in x, y, z. Each is at most 65,535.
    pub workgroups: [u32; 3],
    bindings: PhantomData<B>,
}

impl<B> Plan<B> {
    /// A plan without `override` constants.
    pub fn new<V: Variant<Bindings = B>>(variant: V, params: &V::Params, workgroups: [u32; 3]) -> Self {
        let shader = variant.shader();
        debug_assert!(workgroups.iter().all(|&n| n <= MAX_WORKGROUPS), "{}: {workgroups:?}", shader.kernel);
        Self { shader, constants: Vec::new(), params: bytemuck::bytes_of(params).to_vec(), workgroups, bindings: PhantomData }
    }

    /// Sets an `override` constant.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, f64::from(value)));
        self
    }

    /// The plan of any kernel.
    pub(crate) fn erased(self) -> Plan {
        let Self { shader, constants, params, workgroups, .. } = self;
        Plan { shader, constants, params, workgroups, bindings: PhantomData }
    }
}

/// What a dispatch moves and computes at least: every operand is read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: u64,
    /// Multiplications of two numbers of a product, each with its sum.
    pub multiply_adds: u64,
}

/// A unit of GPU work with its reference on the CPU.
pub trait Kernel: Debug {
    /// The buffers that it runs on.
    type Bindings: Bindings;

    /// Chooses variant and geometry for a device.
    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings>;

    /// What it takes while the cache holds so many positions, its own rows included; nothing where that tells little of its time.
    fn cost(&self, _positions: u32) -> Cost {
        Cost::default()
    }

    /// Does the same on host memory, plainly.
    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings);
}

/// WebGPU's limit on workgroups per dimension.
pub const MAX_WORKGROUPS: u32 = 65_535;

/// Spreads `count` workgroups over x and y. The shader recovers the index as `y * num_workgroups.x + x` and must ignore
/// indices past `count`.
pub fn grid_2d(count: u32) -> [u32; 3] {
    if count <= MAX_WORKGROUPS {
        return [count.max(1), 1, 1];
    }
    let rows = count.div_ceil(MAX_WORKGROUPS);
    [count.div_ceil(rows), rows, 1]
}
