//! Some rows of many.

use super::{Capabilities, GatherBindings, Kernel, Plan};
use crate::buffer::HostMemory;
use crate::shaders::{params::GatherParams, variants::GatherVariant};

/// `out[i] = x[numbers[i]]`.
#[derive(Debug)]
pub struct Gather {
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// Rows of the output.
    pub rows: u32,
}

impl Kernel for Gather {
    type Bindings = GatherBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = GatherParams { dim: self.dim, rows: self.rows };
        Plan::new(GatherVariant, &params, [(self.dim / 4).div_ceil(64), self.rows, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let dim = self.dim as usize;
        for i in 0..self.rows as usize {
            let from = memory.read::<u32>(b.numbers)[i] as usize;
            let row = memory.read::<f32>(b.x)[from * dim..][..dim].to_vec();
            memory.write::<f32>(b.out)[i * dim..][..dim].copy_from_slice(&row);
        }
    }
}
