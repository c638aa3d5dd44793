//! Matrix products of many rows with int8 activations and int8 quants (dp4a).

use super::linear::{Linear, MAX_SPLITS, Operands, split_k};
use super::{Capabilities, Cost, Interleave, Kernel, Matmul, MatmulInt8Bindings, Plan, QuantizeRowsBindings, WeightLayout, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::params::{LinearParams, QuantizeRowsParams};
use crate::shaders::variants::{MatmulInt8Variant, QuantizeRowsVariant, Quants};

/// Elements that share a scale.
const BLOCK: u32 = 32;

/// Quantizes activations to int8 with a scale for each 32: GGUF's `Q8_0` with scales in single precision. The normalized error of normally
/// distributed activations is 3e-5.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeRows {
    /// Rows.
    pub rows: u32,
    /// Elements of a row, a multiple of 32.
    pub n_in: u32,
    /// First element of x; a multiple of 4.
    pub x_offset: u32,
    /// Elements from a row of x to the next; a multiple of 4.
    pub x_stride: u32,
    /// Order of the bytes: see [`WeightLayout::interleave`].
    pub order: Interleave,
}

impl QuantizeRows {
    /// Bytes of the two buffers for `rows` rows of `n_in`.
    pub fn sizes(rows: u32, n_in: u32) -> [u64; 2] {
        let bytes = u64::from(rows) * u64::from(n_in);
        [bytes, bytes.div_ceil(u64::from(BLOCK)) * 4]
    }
}

impl Kernel for QuantizeRows {
    type Bindings = QuantizeRowsBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.n_in.is_multiple_of(BLOCK), "whole blocks");
        let params = QuantizeRowsParams { rows: self.rows, n_in: self.n_in, x_offset: self.x_offset / 4, x_stride: self.x_stride / 4 };
        Plan::new(QuantizeRowsVariant, &params, grid_2d((self.rows * self.n_in / BLOCK).div_ceil(64)))
            .with("LINEAR", u32::from(self.order == Interleave::None))
    }

    fn cost(&self, _: u32) -> Cost {
        let [bytes, scales] = Self::sizes(self.rows, self.n_in);
        Cost { bytes: 5 * bytes + scales, multiply_adds: 0 }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let n_in = self.n_in as usize;
        for r in 0..self.rows as usize {
            let at = self.x_offset as usize + r * self.x_stride as usize;
            let x = memory.read::<f32>(b.x)[at..][..n_in].to_vec();
            for (i, block) in x.chunks_exact(BLOCK as usize).enumerate() {
                let largest = block.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                let factor = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
                let first = r * n_in + i * BLOCK as usize;
                for (i, v) in block.iter().enumerate() {
                    memory.write::<i8>(b.bytes)[first + self.order.place(i)] = (factor * v).round_ties_even() as i8;
                }
                memory.write::<f32>(b.scales)[first / BLOCK as usize] = largest / 127.0;
            }
        }
    }
}

/// The product of activations from [`QuantizeRows`] with quantized weights. Ignores `x_offset` and `x_stride`; no gated
/// [`super::Epilogue`]. Split-K as in [`Matmul`].
#[derive(Debug)]
pub struct MatmulInt8 {
    /// Shapes and places.
    pub linear: Linear,
    /// Split-K: parts of `n_in` with sums of their own, to be reduced by [`super::MatmulCombine`].
    pub splits: u32,
}

impl MatmulInt8 {
    /// Rows, and as many outputs, of a tile.
    const TILE: u32 = 64;

    /// Whether a device with these capabilities uses int8 activations.
    pub fn used(capabilities: &Capabilities) -> bool {
        capabilities.tuning.matmul_int8 && !Matmul::multiplies_matrices(capabilities)
    }

    /// Whether weights of this layout are multiplied with int8 activations.
    pub fn suits(layout: &WeightLayout, capabilities: &Capabilities) -> bool {
        Self::used(capabilities) && Quants::of(layout.dtype).is_some()
    }

    /// Splits that fill the device; 1 where there are enough tiles.
    pub fn splits(linear: &Linear, capabilities: &Capabilities) -> u32 {
        split_k(linear, linear.rows.div_ceil(Self::TILE) * linear.n_out.div_ceil(Self::TILE), capabilities)
    }
}

impl Kernel for MatmulInt8 {
    type Bindings = MatmulInt8Bindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let l = &self.linear;
        debug_assert!(!l.epilogue.gated, "the tile kernel does not pair outputs");
        debug_assert!(self.splits <= MAX_SPLITS);
        let params = LinearParams { splits: self.splits, ..l.params(0.0) };
        let quants = Quants::of(l.layout.dtype).expect("weights that are not floats");
        l.specialize(Plan::new(MatmulInt8Variant { quants }, &params, [l.n_out.div_ceil(Self::TILE), l.row_tiles(Self::TILE), self.splits]))
            .with("SHARE", l.share())
    }

    fn cost(&self, positions: u32) -> Cost {
        let (rows, n_in) = (self.linear.rows, self.linear.layout.cols);
        let floats = Matmul { linear: self.linear, splits: self.splits }.cost(positions);
        let [bytes, scales] = QuantizeRows::sizes(rows, n_in);
        Cost { bytes: floats.bytes - 4 * bytes + bytes + scales, ..floats }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let n_in = self.linear.layout.cols as usize;
        let order = self.linear.layout.interleave();
        let bytes = memory.read::<i8>(b.x);
        let scales = memory.read::<f32>(b.activation_scales);
        let element = |at: usize| scales[at / BLOCK as usize] * f32::from(bytes[order.place(at)]);
        let x: Vec<Vec<f32>> = (0..self.linear.x_rows() as usize).map(|r| (r * n_in..(r + 1) * n_in).map(element).collect()).collect();
        let operands = Operands { weights: b.weights, out: b.out, bias: b.bias, chosen: b.chosen };
        self.linear.multiply_splits(memory, operands, &x, self.splits);
    }
}
