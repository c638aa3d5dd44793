//! The kernels: typed parameters, choice of variant, dispatch geometry, and a plain CPU reference each.
//!
//! A kernel's WGSL is `shaders/<name>.wesl`; its host side is the file of the same name here. To add one, see `docs/developing.md`.

mod attention;
mod batch_rows;
mod cache;
mod embed;
mod gated;
mod gather;
mod linear;
mod matmul_int16;
mod matmul_int8;
mod matvec;
mod moe;
mod norm;
mod pool;
mod repack;
mod roofline;
mod rope;
mod sample;
mod weights;
mod xielu;

pub use attention::{AttentionCombine, AttentionDecode, AttentionPrefill, AttentionShape, AttentionTier, HeadNorm, Splits};
pub use batch_rows::BatchRows;
pub use cache::{KvFormat, PAGE};
pub use embed::{Embed, EmbedIndex};
pub use gated::{Activation, Gated};
pub use gather::Gather;
pub use linear::{Epilogue, Experts, Linear, Matmul, MatmulCombine};
pub use matmul_int8::{MatmulInt8, QuantizeRows};
pub use matmul_int16::{MatmulInt16, QuantizeInt16};
pub use matvec::Matvec;
pub use moe::{Gating, MoeCombine, MoeSort, MoeTopk, Shared, TopK};
pub use norm::{Norm, NormKind, QkNorm};
pub use pool::{Pool, Span};
pub use repack::Repack;
pub use roofline::{RooflineMultiply, RooflineRead};
pub use rope::{RopeKv, RopePairing, Rotary, Temperature};
pub use sample::{Best, Group, NO_TOKEN, Row, Sample, SampleDraw, SampleGroups, Sampler, Sampling, sample_reference};
pub use weights::{Interleave, WeightLayout, dequantize_row};
pub use xielu::{Xielu, XieluParameters};

pub use crate::device::{Capabilities, SubgroupMatrix, Tuning};
pub use crate::shaders::bindings::*;

use std::fmt::Debug;
use std::marker::PhantomData;

use crate::buffer::HostMemory;
use crate::shaders::{Bindings, Shader, Variant};

/// How a kernel runs on a device: variant and geometry, decided together. `B` is the type of its bindings.
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

/// The least that a dispatch moves and computes: every operand is read once.
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

    /// Its cost with this many positions in the cache, its own rows included; zero where that does not determine its time.
    fn cost(&self, _positions: u32) -> Cost {
        Cost::default()
    }

    /// The CPU reference: the same computation on host memory.
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
