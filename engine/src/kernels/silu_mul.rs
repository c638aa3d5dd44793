//! The gated activation of `SwiGLU` (Shazeer 2020) on interleaved gate and up.

use super::{Capabilities, HostBindings, Kernel, Plan, grid_2d};
use crate::shaders::{self, params::SiluMulParams};

/// `out[r, i] = silu(x[r, 2i]) * x[r, 2i + 1]`.
#[derive(Debug)]
pub struct SiluMul {
    /// Rows.
    pub rows: u32,
    /// Elements of a row of the output; even.
    pub dim: u32,
}

impl Kernel for SiluMul {
    fn plan(&self, _: &Capabilities) -> Plan {
        let params = SiluMulParams { rows: self.rows, ff: self.dim };
        Plan::new(shaders::find("silu_mul", &[]), &params, grid_2d((self.rows * self.dim / 2).div_ceil(256)))
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let count = (self.rows * self.dim) as usize;
        let y: Vec<f32> = memory.view::<f32>("gate_up").chunks_exact(2).take(count).map(|pair| silu(pair[0]) * pair[1]).collect();
        memory.view_mut::<f32>("out")[..count].copy_from_slice(&y);
    }
}

/// `x * sigmoid(x)` (Elfwing et al. 2017).
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}
