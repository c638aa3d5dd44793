//! The product of one row with weights (decode), or of a few one by one.

use super::linear::{Linear, Operands};
use super::norm::{NormKind, normalize};
use super::{Capabilities, Cost, Kernel, MatvecBindings, Plan, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::variants::MatvecVariant;

/// The product of rows of x one by one: a workgroup computes whole dot products. Several rows re-read the weights; quantized weights have
/// [`super::MatmulInt16`] for those.
#[derive(Debug)]
pub struct Matvec {
    /// Shapes and places.
    pub linear: Linear,
    /// Normalize x first (`RMSNorm`) with this epsilon and the norm weights, which are bound.
    pub norm: Option<f32>,
}

impl Kernel for Matvec {
    type Bindings = MatvecBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        // A group of lanes has four outputs.
        const OUTPUTS: u32 = 4;
        /// Together they read 128 bytes of a row.
        const MIN_LANES: u32 = 8;
        /// So few outputs, such as a router's, are spread among smaller workgroups.
        const FEW_OUTPUTS: u32 = 512;
        let l = &self.linear;
        let params = l.params(self.norm.unwrap_or_default());
        let tuning = capabilities.tuning;
        let few = l.n_out <= FEW_OUTPUTS && l.experts.is_none();
        let workgroup = if few { tuning.matvec_workgroup.min(64) } else { tuning.matvec_workgroup };
        let tile = if l.layout.has_int8_quants() { 128 } else { 64 };
        let blocks = l.layout.cols.div_ceil(32);
        // As many lanes as a subgroup, so that sums need no workgroup memory, or more where outputs are few; no more than a row has
        // blocks. The rest of the workgroup takes other outputs.
        let subgroup = capabilities.subgroup_size.unwrap_or(32).next_power_of_two();
        // Where rows have experts all of them are at work.
        let parallel = if l.experts.is_some() { l.rows } else { 1 };
        let workgroups = |lanes: u32| parallel * l.n_out.div_ceil(OUTPUTS * (workgroup / lanes));
        let mut lanes = subgroup.min(blocks.next_power_of_two()).clamp(4, tile.min(workgroup));
        while 2 * lanes <= blocks.min(tile).min(workgroup) && 2 * workgroups(lanes) <= tuning.matvec_workgroups {
            lanes *= 2;
        }
        // Where outputs are many, fewer lanes: a workgroup then has more outputs in parallel, which is faster than iterating over them
        // (28,672 of 4,096 Q4_K weights: 28 µs, not 31), unless it has to iterate anyway (128,256 of Q6_K: 144 µs, not 126).
        if capabilities.subgroup_size.is_some() && workgroups(lanes) > tuning.matvec_workgroups {
            let fewer = [lanes / 2, lanes / 4].into_iter().filter(|lanes| *lanes >= MIN_LANES);
            lanes = fewer.into_iter().find(|lanes| workgroups(*lanes) <= tuning.matvec_workgroups).unwrap_or(lanes);
        }
        // A row of x that fits a tile is staged once for many outputs.
        let iterations = if blocks <= tile { workgroups(lanes).div_ceil(tuning.matvec_workgroups) } else { 1 };
        let of_row = workgroups(lanes) / parallel;
        let iterations = iterations.min(of_row);
        let variant = MatvecVariant { weights: l.layout.weights(), subgroups: capabilities.has_subgroups() };
        let [x, y, _] = grid_2d(of_row.div_ceil(iterations));
        l.specialize(Plan::new(variant, &params, [x, y, l.rows]))
            .with("WORKGROUP", workgroup)
            .with("LANES", lanes)
            .with("ITERATIONS", iterations)
            .with("NORM", u32::from(self.norm.is_some()))
            .with("GATED", u32::from(l.epilogue.gated))
            .with("SHARE", l.share())
    }

    fn cost(&self, _: u32) -> Cost {
        self.linear.cost()
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let mut x = self.linear.x(memory, b.x);
        if let Some(eps) = self.norm {
            let weight = memory.read::<f32>(b.norm_weight.expect("norm weights")).to_vec();
            for row in &mut x {
                normalize(row, NormKind::Rms, &weight, eps);
            }
        }
        self.linear.finish(memory, Operands { weights: b.weights, out: b.out, bias: b.bias, chosen: b.chosen }, &x);
    }
}
