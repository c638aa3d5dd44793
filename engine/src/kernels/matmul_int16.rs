//! The product of some rows with quantized weights: those of sequences that decode together.

use super::linear::{Linear, Operands};
use super::norm::{NormKind, normalize};
use super::{Capabilities, Cost, Interleave, Kernel, MatvecInt16Bindings, Plan, QuantizeInt16Bindings, WeightLayout, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::params::QuantizeInt16Params;
use crate::shaders::variants::{MatmulInt16Tile, MatmulInt16Variant, MatvecInt16Rows, MatvecInt16Variant, QuantizeInt16Variant, Quants};

/// Elements that share a scale.
const BLOCK: usize = 32;

/// Largest fixed-point number: its high byte is 127.
const LARGEST: f32 = 32512.0;

/// Rows of x as 16-bit fixed point with a scale for each 32 elements, normalized first or not. [`super::Matvec`] rounds its rows alike.
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
    /// Most elements of a row that is normalized on the way.
    pub const MAX_NORM: u32 = 8192;

    /// Bytes of the two buffers for `rows` rows of `n_in`.
    pub fn sizes(rows: u32, n_in: u32) -> [u64; 2] {
        let elements = u64::from(rows) * u64::from(n_in);
        [2 * elements, elements / 2]
    }
}

/// Places of element `i` of a row in the bytes of [`QuantizeInt16`]: of its high byte and of its low one.
fn places(row: usize, i: usize, n_in: usize, order: Interleave) -> [usize; 2] {
    let (blocks, block, i) = (n_in / BLOCK, i / BLOCK, i % BLOCK);
    [0, 2].map(|part| 16 * ((4 * row + part + i / 16) * blocks + block) + order.place(i % 16))
}

impl Kernel for QuantizeInt16 {
    type Bindings = QuantizeInt16Bindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.n_in.is_multiple_of(32), "whole blocks");
        debug_assert!(self.norm.is_none() || self.n_in <= Self::MAX_NORM, "a workgroup has a whole row");
        let params = QuantizeInt16Params {
            n_in: self.n_in,
            x_offset: self.x_offset / 4,
            x_stride: self.x_stride / 4,
            eps: self.norm.unwrap_or_default(),
        };
        // With a norm a workgroup has a whole row.
        let workgroups = if self.norm.is_some() { 1 } else { (self.n_in / 8).div_ceil(256) };
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
            for (block, x) in x.chunks_exact(BLOCK).enumerate() {
                let largest = x.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                let to_fixed = if largest > 1e-30 { LARGEST / largest } else { 0.0 };
                let fixed: Vec<i32> = x.iter().map(|v| (to_fixed * v).round_ties_even() as i32).collect();
                let bytes = memory.write::<i8>(b.bytes);
                for (i, n) in fixed.iter().enumerate() {
                    let [high, low] = places(row, BLOCK * block + i, n_in, self.order);
                    bytes[high] = ((n + 128) >> 8) as i8;
                    bytes[low] = *n as i8;
                }
                let scale = factor * (largest / LARGEST);
                let [first, last] = [0, 16].map(|i| scale * fixed[i..i + 16].iter().sum::<i32>() as f32);
                memory.write::<f32>(b.factors)[4 * (row * n_in / BLOCK + block)..][..4].copy_from_slice(&[scale, first, last, 0.0]);
            }
        }
    }
}

/// The product of some rows from [`QuantizeInt16`] with quantized weights: a weight is read once for all rows of a workgroup. Ignores
/// `x_offset` and `x_stride`.
#[derive(Debug)]
pub struct MatmulInt16 {
    /// Shapes and places.
    pub linear: Linear,
}

impl MatmulInt16 {
    /// Most rows of [`Self::few_rows`]: more are multiplied in tiles.
    const FEW: u32 = 4;
    /// Outputs of a tile.
    const OUTPUTS: u32 = 32;

    /// Whether weights of this layout are multiplied so.
    pub fn suits(layout: &WeightLayout) -> bool {
        Quants::of(layout.dtype).is_some()
    }

    fn quants(&self) -> Quants {
        Quants::of(self.linear.layout.dtype).expect("weights that are not floats")
    }

    /// Up to four rows: `matvec_int16`.
    fn few_rows(&self) -> Plan<MatvecInt16Bindings> {
        const WORKGROUP: u32 = 64;
        // A group of lanes has four outputs.
        const OUTPUTS: u32 = 4;
        // Together they read 128 bytes of a row of weights.
        const MIN_LANES: u32 = 8;
        // More than hide the latency of reads only where outputs are few. On an NVIDIA H200, 4 rows and 28,672 outputs of 4,096 Q4_K
        // weights take 47 µs with 16, 40 with 32, 45 with 64.
        const USUAL_LANES: u32 = 32;
        const MIN_WORKGROUPS: u32 = 1536;
        let l = &self.linear;
        let (rows, rows_at_once) = if l.rows <= 2 { (MatvecInt16Rows::Rows2, 2) } else { (MatvecInt16Rows::Rows4, 4) };
        let workgroups = |lanes: u32| l.n_out.div_ceil(OUTPUTS * (WORKGROUP / lanes));
        let blocks = l.layout.cols / 32;
        let mut lanes = MIN_LANES;
        while lanes < WORKGROUP && 2 * lanes <= blocks && (lanes < USUAL_LANES || workgroups(lanes) < MIN_WORKGROUPS) {
            lanes *= 2;
        }
        let [x, y, _] = grid_2d(workgroups(lanes));
        let variant = MatvecInt16Variant { quants: self.quants(), rows };
        Plan::new(variant, &l.params(0.0), [x, y, l.rows.div_ceil(rows_at_once)]).with("LANES", lanes)
    }

    /// More rows: tiles in workgroup memory.
    fn tiles(&self, capabilities: &Capabilities) -> Plan<MatvecInt16Bindings> {
        let l = &self.linear;
        let (tile, rows) = match l.rows {
            0..=8 => (MatmulInt16Tile::Tile8x32, 8),
            9..=16 => (MatmulInt16Tile::Tile16x32, 16),
            _ => (MatmulInt16Tile::Tile32x32, 32),
        };
        let workgroups = l.n_out.div_ceil(Self::OUTPUTS);
        let z = l.rows.div_ceil(rows);
        // More slices of n_in where tiles are few, and as many as workgroup memory holds.
        let wanted = if 2 * workgroups * z <= capabilities.tuning.matmul_tiles { 256 } else { 128 };
        let fits = |workgroup: &u32| Self::storage(rows, *workgroup) <= capabilities.workgroup_storage;
        let workgroup = [256, 128].into_iter().filter(|workgroup| *workgroup <= wanted).find(fits).unwrap_or(64);
        let [x, y, _] = grid_2d(workgroups);
        Plan::new(MatmulInt16Variant { quants: self.quants(), tile }, &l.params(0.0), [x, y, z]).with("WORKGROUP", workgroup)
    }

    /// Bytes of workgroup memory of a tile of so many rows, at most.
    fn storage(rows: u32, workgroup: u32) -> u32 {
        // An invocation has four by four outputs.
        let slices = workgroup * 16 / (rows * Self::OUTPUTS);
        let blocks = if rows == 32 { 2 * slices } else { slices };
        let tiles = 16 * blocks * (4 * (rows + 1) + 2 * (Self::OUTPUTS + 1));
        let factors = 16 * blocks * (rows + Self::OUTPUTS);
        tiles + factors + 4 * slices * rows * Self::OUTPUTS
    }
}

impl Kernel for MatmulInt16 {
    type Bindings = MatvecInt16Bindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        let plan = if self.linear.rows <= Self::FEW { self.few_rows() } else { self.tiles(capabilities) };
        self.linear.specialize(plan).with("GATED", u32::from(self.linear.epilogue.gated))
    }

    fn cost(&self, _: u32) -> Cost {
        self.linear.cost()
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let l = &self.linear;
        let (n_in, order) = (l.layout.cols as usize, l.layout.interleave());
        let (bytes, factors) = (memory.read::<i8>(b.x), memory.read::<f32>(b.factors));
        let element = |row: usize, i: usize| {
            let [high, low] = places(row, i, n_in, order).map(|at| i32::from(bytes[at]));
            factors[4 * (row * n_in / BLOCK + i / BLOCK)] * (256 * high + low) as f32
        };
        let x: Vec<Vec<f32>> = (0..l.rows as usize).map(|row| (0..n_in).map(|i| element(row, i)).collect()).collect();
        l.finish(memory, Operands { weights: b.weights, out: b.out, bias: b.bias, chosen: None }, &x);
    }
}
