//! Root mean square normalization (Zhang & Sennrich 2019).

use super::{Capabilities, HostBindings, Kernel, MAX_WORKGROUPS, Plan};
use crate::shaders::{self, params::RmsNormParams};

/// `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`.
#[derive(Debug)]
pub struct RmsNorm {
    /// Rows, at most 65,535.
    pub rows: u32,
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// Epsilon.
    pub eps: f32,
}

impl Kernel for RmsNorm {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        debug_assert!(self.rows <= MAX_WORKGROUPS);
        let params = RmsNormParams { rows: self.rows, dim: self.dim, eps: self.eps };
        Plan::new(shaders::find("rms_norm", &[capabilities.subgroups()]), &params, [self.rows, 1, 1])
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let dim = self.dim as usize;
        let weight = memory.view::<f32>("weight").to_vec();
        let mut x = memory.view::<f32>("x")[..dim * self.rows as usize].to_vec();
        for row in x.chunks_exact_mut(dim) {
            rms_norm(row, &weight, self.eps);
        }
        memory.view_mut::<f32>("out")[..x.len()].copy_from_slice(&x);
    }
}

/// Normalizes a row in place.
pub(super) fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / row.len() as f64;
    let factor = 1.0 / (mean + f64::from(eps)).sqrt();
    for (v, w) in row.iter_mut().zip(weight) {
        *v = (f64::from(*v) * factor * f64::from(*w)) as f32;
    }
}
