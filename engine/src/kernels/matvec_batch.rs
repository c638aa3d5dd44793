//! The product of some rows with quantized weights: those of sequences that decode together.

use super::linear::{Linear, Operands};
use super::norm::{NormKind, normalize};
use super::{Capabilities, Cost, Interleave, Kernel, MatvecBatchBindings, Plan, QuantizeInt16Bindings, WeightLayout, grid_2d};
use crate::exec::buffer::HostMemory;
use crate::shaders::params::QuantizeInt16Params;
use crate::shaders::variants::{MatvecBatchRows, MatvecBatchVariant, QuantizeInt16Variant};

/// Elements that share a scale.
const OCTET: usize = 8;

/// Largest fixed-point number: its high byte is 127.
const LARGEST: f32 = 32512.0;

/// Rows of x as 16-bit fixed point with a scale for each eight elements, normalized first or not. [`super::Matvec`] rounds its row alike.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeInt16 {
    /// Rows.
    pub rows: u32,
    /// Elements of a row, a multiple of 32.
    pub n_in: u32,
    /// First element of x; a multiple of 4.
    pub x_offset: u32,
    /// Elements from a row of x to the next; a multiple of 4.
    pub x_stride: u32,
    /// Order of eight neighbours: see [`WeightLayout::interleave`].
    pub order: Interleave,
    /// Normalize the rows (`RMSNorm`) with this epsilon and the norm weights, which are bound.
    pub norm: Option<f32>,
}

impl QuantizeInt16 {
    /// Bytes of the two buffers for `rows` rows of `n_in`.
    pub fn sizes(rows: u32, n_in: u32) -> [u64; 2] {
        let elements = u64::from(rows) * u64::from(n_in);
        [2 * elements, elements]
    }
}

/// Places of eight elements in the two buffers of [`QuantizeInt16`]: the first of 16 bytes, and that of the scale.
fn places(row: usize, octet: usize, n_in: usize) -> [usize; 2] {
    let (blocks, block, i) = (n_in / 32, octet / 4, octet % 4);
    [16 * ((4 * row + i) * blocks + block), 4 * ((2 * row + i / 2) * blocks + block) + 2 * (i % 2)]
}

impl Kernel for QuantizeInt16 {
    type Bindings = QuantizeInt16Bindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.n_in.is_multiple_of(32), "whole blocks");
        let params = QuantizeInt16Params {
            n_in: self.n_in,
            x_offset: self.x_offset / 4,
            x_stride: self.x_stride / 4,
            eps: self.norm.unwrap_or_default(),
        };
        // With a norm a workgroup has a whole row.
        let workgroups = if self.norm.is_some() { 1 } else { (self.n_in / OCTET as u32).div_ceil(256) };
        Plan::new(QuantizeInt16Variant { subgroups: capabilities.has_subgroups() }, &params, [workgroups, self.rows, 1])
            .with("LINEAR", u32::from(self.order == Interleave::None))
            .with("NORM", u32::from(self.norm.is_some()))
    }

    fn cost(&self, _: u32) -> Cost {
        let [bytes, scales] = Self::sizes(self.rows, self.n_in);
        Cost { bytes: 3 * bytes + scales, multiply_adds: 0 }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let n_in = self.n_in as usize;
        for row in 0..self.rows as usize {
            let at = self.x_offset as usize + row * self.x_stride as usize;
            let mut x = memory.read::<f32>(b.x)[at..][..n_in].to_vec();
            let mut factor = 1.0;
            if let Some(eps) = self.norm {
                let weight = memory.read::<f32>(b.norm_weight.expect("norm weights")).to_vec();
                let mut unit = x.clone();
                normalize(&mut unit, NormKind::Rms, &vec![1.0; n_in], eps);
                // The largest element tells the factor best; a row of zeros has none.
                let largest = (0..n_in).max_by(|a, b| x[*a].abs().total_cmp(&x[*b].abs())).expect("elements");
                factor = if x[largest] == 0.0 { 0.0 } else { unit[largest] / x[largest] };
                x.iter_mut().zip(weight).for_each(|(x, weight)| *x *= weight);
            }
            for (octet, eight) in x.chunks_exact(OCTET).enumerate() {
                let largest = eight.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                let to_fixed = if largest > 1e-30 { LARGEST / largest } else { 0.0 };
                let fixed: Vec<i32> = eight.iter().map(|v| (to_fixed * v).round_ties_even() as i32).collect();
                let [bytes_at, scales_at] = places(row, octet, n_in);
                let bytes = &mut memory.write::<i8>(b.bytes)[bytes_at..][..2 * OCTET];
                for (i, n) in fixed.iter().enumerate() {
                    let place = self.order.place(i);
                    bytes[place] = ((n + 128) >> 8) as i8;
                    bytes[OCTET + place] = *n as i8;
                }
                let scale = largest / LARGEST;
                let sum = scale * fixed.iter().sum::<i32>() as f32;
                memory.write::<f32>(b.scales)[scales_at..][..2].copy_from_slice(&[factor * scale, factor * sum]);
            }
        }
    }
}

/// The product of rows from [`QuantizeInt16`], or of plain ones where the weights are floats or have a codebook. A weight is read once for
/// several rows. Ignores `x_offset` and `x_stride` of rows from [`QuantizeInt16`].
#[derive(Debug)]
pub struct MatvecBatch {
    /// Shapes and places.
    pub linear: Linear,
}

impl MatvecBatch {
    /// Whether weights of this layout are multiplied by rows from [`QuantizeInt16`].
    pub fn takes_int16(layout: &WeightLayout) -> bool {
        layout.has_int8_quants()
    }
}

impl Kernel for MatvecBatch {
    type Bindings = MatvecBatchBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        const WORKGROUP: u32 = 64;
        // A group of lanes has four outputs.
        const OUTPUTS: u32 = 4;
        // Together they read 128 bytes of a row of weights.
        const MIN_LANES: u32 = 8;
        let l = &self.linear;
        let (rows, rows_at_once) = match l.rows {
            ..=2 => (MatvecBatchRows::Rows2, 2),
            ..=4 => (MatvecBatchRows::Rows4, 4),
            _ => (MatvecBatchRows::Rows8, 8),
        };
        let blocks = l.layout.cols.div_ceil(32);
        let workgroups = |lanes: u32| l.n_out.div_ceil(OUTPUTS * (WORKGROUP / lanes));
        let z = l.rows.div_ceil(rows_at_once);
        // More lanes where outputs are few, but each has a block.
        let target = std::env::var("B_TARGET").ok().and_then(|v| v.parse().ok()).unwrap_or(4 * capabilities.tuning.matvec_workgroups);
        let mut lanes = MIN_LANES;
        while 2 * lanes <= WORKGROUP.min(blocks) && workgroups(lanes) * z < target {
            lanes *= 2;
        }
        let [x, y, _] = grid_2d(workgroups(lanes));
        l.specialize(Plan::new(MatvecBatchVariant { weights: l.layout.weights(), rows }, &l.params(0.0), [x, y, z]))
            .with("LANES", lanes)
            .with("GATED", u32::from(l.epilogue.gated))
    }

    fn cost(&self, _: u32) -> Cost {
        self.linear.cost()
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let l = &self.linear;
        let x = if Self::takes_int16(&l.layout) {
            let n_in = l.layout.cols as usize;
            let order = l.layout.interleave();
            let (bytes, scales) = (memory.read::<i8>(b.x), memory.read::<f32>(b.scales.expect("scales")));
            let element = |row: usize, i: usize| {
                let [bytes_at, scales_at] = places(row, i / OCTET, n_in);
                let [high, low] = [0, OCTET].map(|part| i32::from(bytes[bytes_at + part + order.place(i % OCTET)]));
                scales[scales_at] * (256 * high + low) as f32
            };
            (0..l.rows as usize).map(|row| (0..n_in).map(|i| element(row, i)).collect()).collect()
        } else {
            l.x(memory, b.x)
        };
        l.finish(memory, Operands { weights: b.weights, out: b.out, bias: b.bias }, &x);
    }
}
