//! The embeddings of texts from the rows of their tokens.

use bytemuck::{Pod, Zeroable};

use super::{Capabilities, Kernel, Plan, PoolBindings};
use crate::buffer::HostMemory;
use crate::shaders::{params::PoolParams, variants::PoolVariant};

/// `out[text] = mean(x[first..first + count])` of the [`Span`] of each text.
#[derive(Debug)]
pub struct Pool {
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// Number of texts.
    pub texts: u32,
}

/// The rows of a text that count: `Span` in `shaders/pool.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Span {
    /// First row.
    pub first: u32,
    /// Number of rows; at least 1.
    pub count: u32,
}

impl Kernel for Pool {
    type Bindings = PoolBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        Plan::new(PoolVariant, &PoolParams { dim: self.dim }, [(self.dim / 4).div_ceil(64), self.texts, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let dim = self.dim as usize;
        let mut means = Vec::new();
        for span in &memory.read::<Span>(b.spans)[..self.texts as usize] {
            let rows = &memory.read::<f32>(b.x)[span.first as usize * dim..][..span.count as usize * dim];
            let mean = |i: usize| rows.iter().skip(i).step_by(dim).map(|v| f64::from(*v)).sum::<f64>() / f64::from(span.count);
            means.extend((0..dim).map(|i| mean(i) as f32));
        }
        memory.write::<f32>(b.out)[..means.len()].copy_from_slice(&means);
    }
}
