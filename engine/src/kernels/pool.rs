//! The embedding of a text from the rows of its tokens.

use super::{Capabilities, Kernel, Plan, PoolBindings};
use crate::buffer::HostMemory;
use crate::shaders::{params::PoolParams, variants::PoolVariant};

/// `out = mean(x[first..first + count])`.
#[derive(Debug)]
pub struct Pool {
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// First row that counts.
    pub first: u32,
    /// Rows that count; at least 1.
    pub count: u32,
}

impl Kernel for Pool {
    type Bindings = PoolBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = PoolParams { dim: self.dim, first: self.first, count: self.count };
        Plan::new(PoolVariant, &params, [(self.dim / 4).div_ceil(64), 1, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let dim = self.dim as usize;
        let rows = &memory.read::<f32>(b.x)[self.first as usize * dim..][..self.count as usize * dim];
        let mean = |i: usize| rows.iter().skip(i).step_by(dim).map(|v| f64::from(*v)).sum::<f64>() / f64::from(self.count);
        let means: Vec<f32> = (0..dim).map(|i| mean(i) as f32).collect();
        memory.write::<f32>(b.out)[..dim].copy_from_slice(&means);
    }
}
