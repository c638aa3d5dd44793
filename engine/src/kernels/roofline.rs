//! The device's roofline, to compare other kernels with: its peak bandwidth and its peak rate of multiply-adds.

use super::{Capabilities, Cost, Kernel, Plan, RooflineMultiplyBindings, RooflineReadBindings, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::params::{RooflineMultiplyParams, RooflineReadParams};
use crate::shaders::variants::{RooflineMultiplyVariant, RooflineReadVariant};

/// Invocations of a workgroup.
const WORKGROUP: u32 = 256;

/// Vectors read by an invocation.
const READS: u32 = 16;

/// Independent chains of multiply-adds in an invocation.
const CHAINS: u32 = 8;

/// Reads a buffer once; an invocation writes the sum of its [`READS`] vectors.
#[derive(Debug)]
pub struct RooflineRead {
    /// Vectors of four words.
    pub vectors: u32,
}

impl RooflineRead {
    /// Words of the output.
    pub fn sums(&self) -> u32 {
        self.vectors.div_ceil(WORKGROUP * READS) * WORKGROUP
    }
}

impl Kernel for RooflineRead {
    type Bindings = RooflineReadBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = RooflineReadParams { vectors: self.vectors };
        Plan::new(RooflineReadVariant, &params, grid_2d(self.vectors.div_ceil(WORKGROUP * READS)))
    }

    fn cost(&self, _: u32) -> Cost {
        Cost { bytes: 16 * u64::from(self.vectors) + 4 * u64::from(self.sums()), multiply_adds: 0 }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let x = memory.read::<[u32; 4]>(b.x)[..self.vectors as usize].to_vec();
        for (group, x) in x.chunks((WORKGROUP * READS) as usize).enumerate() {
            for lid in 0..x.len().min(WORKGROUP as usize) {
                let sum = x.iter().skip(lid).step_by(WORKGROUP as usize).flatten().fold(0u32, |sum, word| sum.wrapping_add(*word));
                memory.write::<u32>(b.out)[group * WORKGROUP as usize + lid] = sum;
            }
        }
    }
}

/// Multiplies and adds without reading memory.
#[derive(Debug)]
pub struct RooflineMultiply {
    /// Workgroups, each of 256 invocations with a number of the output.
    pub workgroups: u32,
    /// Rounds of 32 multiply-adds an invocation.
    pub rounds: u32,
}

impl Kernel for RooflineMultiply {
    type Bindings = RooflineMultiplyBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        Plan::new(RooflineMultiplyVariant, &RooflineMultiplyParams { rounds: self.rounds }, grid_2d(self.workgroups))
    }

    fn cost(&self, _: u32) -> Cost {
        let invocations = u64::from(self.workgroups) * u64::from(WORKGROUP);
        Cost { bytes: 4 * invocations, multiply_adds: invocations * u64::from(4 * CHAINS * self.rounds) }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let after = |begin: f64| (0..self.rounds).fold(begin, |x, _| x * 0.75 + 0.25);
        let sum = |lid: u32| (1..=CHAINS).flat_map(|chain| (0..4).map(move |i| after(f64::from(chain * (lid + i))))).sum::<f64>() as f32;
        let sums: Vec<f32> = (0..WORKGROUP).map(sum).collect();
        for out in memory.write::<f32>(b.out).chunks_exact_mut(WORKGROUP as usize).take(self.workgroups as usize) {
            out.copy_from_slice(&sums);
        }
    }
}
