//! Matrix products with quantized weights, `out = x * weights^T`: their shapes and epilogue, and the product of many rows (prefill).

use super::gated::Activation;
use super::{
    Capabilities, Cost, Kernel, MAX_WORKGROUPS, MatmulBindings, MatmulCombineBindings, Plan, SubgroupMatrix, WeightLayout, dequantize_row,
    grid_2d,
};
use crate::buffer::{BufferId, HostMemory};
use crate::shaders::params::LinearParams;
use crate::shaders::variants::{MatmulCombineVariant, MatmulSubgroupTile, MatmulSubgroupVariant, MatmulTile, MatmulVariant};

/// Operations on a product `y`: `scale * soft_cap(activation(weight_scale * y + bias))`, stored or added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue {
    /// Factor on the weights.
    pub weight_scale: f32,
    /// Add the bias, which is bound.
    pub bias: bool,
    /// On the biased product.
    pub activation: Activation,
    /// Neighbouring outputs become one: `activation(even) * odd`, gate and up interleaved. [`super::Matvec`] and [`super::MatmulInt16`]
    /// only, without cap, scale, add.
    pub gated: bool,
    /// `cap * tanh(y / cap)`; 0: none.
    pub cap: f32,
    /// Factor.
    pub scale: f32,
    /// Add to the output (the residual stream).
    pub add: bool,
}

impl Epilogue {
    /// Stored as it is.
    pub const STORE: Self =
        Self { weight_scale: 1.0, bias: false, activation: Activation::None, gated: false, cap: 0.0, scale: 1.0, add: false };
    /// Added to the output.
    pub const ADD: Self = Self { add: true, ..Self::STORE };
}

/// Shapes and strides of a product.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Layout of the weights.
    pub layout: WeightLayout,
    /// Rows of the bound slab.
    pub n_out: u32,
    /// Rows of x.
    pub rows: u32,
    /// First element of x; a multiple of 4.
    pub x_offset: u32,
    /// Elements from a row of x to the next; a multiple of 4.
    pub x_stride: u32,
    /// First element of the output.
    pub out_offset: u32,
    /// Elements from a row of the output to the next.
    pub out_stride: u32,
    /// Elements from one output of a row to the next; 2 interleaves two products.
    pub out_step: u32,
    /// Row of the matrix that is the slab's first: the bias begins there.
    pub first_out: u32,
    /// Operations on the product.
    pub epilogue: Epilogue,
    /// Each row has the matrix of an expert: `n_out` is that of one, and rows are the choices of all rows.
    pub experts: Option<Experts>,
}

/// Experts in a slab, whose matrices lie one below the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Choices that share a row of x.
    pub share: u32,
    /// The slab's first.
    pub first: u32,
    /// Experts in the slab.
    pub count: u32,
    /// For products in tiles: what [`super::MoeSort`] makes, of which these are the tiles. 0: rows one by one.
    pub tiles: u32,
}

/// Most splits of a product.
pub(super) const MAX_SPLITS: u32 = 8;

/// Splits that fill a device with a product of so many tiles.
pub(super) fn split_k(linear: &Linear, tiles: u32, capabilities: &Capabilities) -> u32 {
    /// Blocks of 32 weights that are worth a split of their own.
    const MIN_BLOCKS: u32 = 8;
    (capabilities.tuning.matmul_tiles / tiles).min(MAX_SPLITS).min(linear.layout.cols / 32 / MIN_BLOCKS).max(1)
}

/// The product for many rows of x: tiles of both in workgroup memory. x is normalized beforehand; no gated [`Epilogue`].
#[derive(Debug)]
pub struct Matmul {
    /// Shapes and places. With several splits the output is `(splits, rows, n_out)`, without epilogue.
    pub linear: Linear,
    /// Split-K: parts of `n_in` with sums of their own, to be reduced by [`MatmulCombine`].
    pub splits: u32,
}

impl Matmul {
    /// Elements of `n_in` in a tile.
    const DEPTH: u32 = 32;

    /// Splits that fill the device; 1 where there are enough tiles.
    pub fn splits(linear: &Linear, capabilities: &Capabilities) -> u32 {
        split_k(linear, Self::tiles(linear, Self::tile(linear, capabilities)), capabilities)
    }

    fn half(capabilities: &Capabilities) -> bool {
        capabilities.shader_f16 && capabilities.tuning.matmul_half
    }

    /// Whether products of floats are those of single precision.
    pub(crate) fn is_exact(capabilities: &Capabilities) -> bool {
        !Self::half(capabilities) && !Self::multiplies_matrices(capabilities)
    }

    /// Whether a device with these capabilities multiplies with subgroup matrices.
    pub(crate) fn multiplies_matrices(capabilities: &Capabilities) -> bool {
        Self::matrices(capabilities).is_some()
    }

    /// The subgroup matrices to multiply with, and the invocations of a subgroup.
    fn matrices(capabilities: &Capabilities) -> Option<(SubgroupMatrix, u32)> {
        let fits =
            |matrix: &SubgroupMatrix| Tile::least(Some(*matrix)).storage(Some(*matrix), matrix.half()) <= capabilities.workgroup_storage;
        let matrix = capabilities.matrices.filter(|_| capabilities.tuning.matmul_matrices).filter(fits)?;
        Some((matrix, capabilities.subgroup_size?))
    }

    fn tiles(linear: &Linear, tile: Tile) -> u32 {
        linear.rows.div_ceil(tile.rows) * linear.n_out.div_ceil(tile.outputs)
    }

    /// The large tile, which reads least, where there are enough of them and workgroup memory holds it.
    fn tile(linear: &Linear, capabilities: &Capabilities) -> Tile {
        let matrix = Self::matrices(capabilities).map(|(matrix, _)| matrix);
        let half = matrix.map_or(Self::half(capabilities), SubgroupMatrix::half);
        // With small matrices the large tile has more accumulators than subgroups have registers for.
        let fits = Tile::LARGE.storage(matrix, half) <= capabilities.workgroup_storage && matrix.is_none_or(|m| m.side() == 16);
        let enough = MAX_SPLITS * Self::tiles(linear, Tile::LARGE) >= capabilities.tuning.matmul_tiles;
        let least = Tile::least(matrix);
        // Tiles of choices are sorted for the least.
        if linear.experts.is_none() && fits && enough && linear.rows > least.rows { Tile::LARGE } else { least }
    }
}

/// Rows and outputs that a workgroup of [`Matmul`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    rows: u32,
    outputs: u32,
}

impl Tile {
    const SMALL: Self = Self { rows: 64, outputs: 64 };
    const WIDE: Self = Self { rows: 64, outputs: 128 };
    const LARGE: Self = Self { rows: 128, outputs: 128 };

    /// For few rows: with matrices of 16 x 16 as many as keep four subgroups busy.
    fn least(matrix: Option<SubgroupMatrix>) -> Self {
        if matrix.is_some_and(|matrix| matrix.side() == 16) { Self::WIDE } else { Self::SMALL }
    }

    /// Bytes of workgroup memory.
    fn storage(self, matrix: Option<SubgroupMatrix>, half: bool) -> u32 {
        let element = if half { 2 } else { 4 };
        let sides = self.rows + self.outputs;
        match matrix {
            None => sides * Matmul::DEPTH * element,
            // Rows have a gap behind them, and four subgroups keep a matrix of sums each.
            Some(matrix) => sides * (Matmul::DEPTH + 8) * element + 4 * 4 * matrix.side().pow(2),
        }
    }
}

impl Kernel for Matmul {
    type Bindings = MatmulBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        let l = &self.linear;
        debug_assert!(!l.epilogue.gated, "the tile kernel does not pair outputs");
        let tile = Self::tile(l, capabilities);
        debug_assert!(l.n_out.div_ceil(tile.outputs) <= MAX_WORKGROUPS);
        let params = LinearParams { splits: self.splits, ..l.params(0.0) };
        let workgroups = [l.n_out.div_ceil(tile.outputs), l.row_tiles(tile.rows), self.splits];
        let weights = l.layout.weights();
        if let Some((matrix, lanes)) = Self::matrices(capabilities) {
            let tile = match matrix {
                SubgroupMatrix::F32x8 => MatmulSubgroupTile::Tile64x64F32_8x8,
                SubgroupMatrix::F16x8 => MatmulSubgroupTile::Tile64x64F16_8x8,
                SubgroupMatrix::F16x16 if tile == Tile::LARGE => MatmulSubgroupTile::Tile128x128F16_16x16,
                SubgroupMatrix::F16x16 => MatmulSubgroupTile::Tile64x128F16_16x16,
            };
            let plan = l.specialize(Plan::new(MatmulSubgroupVariant { weights, tile }, &params, workgroups));
            return plan.with("LANES", lanes).with("SHARE", l.share());
        }
        let tile = if tile == Tile::LARGE { MatmulTile::Tile128x128 } else { MatmulTile::Tile64x64 };
        l.specialize(Plan::new(MatmulVariant { weights, tile, half: Self::half(capabilities) }, &params, workgroups))
            .with("SHARE", l.share())
    }

    fn cost(&self, _: u32) -> Cost {
        let parts = 4 * u64::from(self.splits - 1) * u64::from(self.linear.rows) * u64::from(self.linear.n_out);
        let whole = self.linear.cost();
        Cost { bytes: whole.bytes + parts, ..whole }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let x = self.linear.x(memory, b.x);
        let operands = Operands { weights: b.weights, out: b.out, bias: b.bias, chosen: b.chosen };
        self.linear.multiply_splits(memory, operands, &x, self.splits);
    }
}

/// Reduces the split-K workspace of a [`Matmul`] or a [`super::MatmulInt8`] and applies the epilogue.
#[derive(Debug)]
pub struct MatmulCombine {
    /// Shapes and places of the product.
    pub linear: Linear,
    /// Parts.
    pub splits: u32,
}

impl MatmulCombine {
    /// Bytes of the split-K workspace, `(splits, rows, n_out)`.
    pub fn workspace_bytes(&self) -> u64 {
        4 * u64::from(self.splits) * u64::from(self.linear.rows) * u64::from(self.linear.n_out)
    }
}

impl Kernel for MatmulCombine {
    type Bindings = MatmulCombineBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let l = &self.linear;
        let params = LinearParams { splits: self.splits, ..l.params(0.0) };
        l.specialize(Plan::new(MatmulCombineVariant, &params, grid_2d((l.rows * l.n_out).div_ceil(64))))
    }

    fn cost(&self, _: u32) -> Cost {
        let product = u64::from(self.linear.rows) * u64::from(self.linear.n_out);
        Cost { bytes: 4 * product * (u64::from(self.splits) + 1), multiply_adds: 0 }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let l = &self.linear;
        let all = (l.rows * l.n_out) as usize;
        let workspace = memory.read::<f32>(b.workspace)[..all * self.splits as usize].to_vec();
        let sum = |i: usize| workspace.iter().skip(i).step_by(all).map(|v| f64::from(*v)).sum::<f64>() as f32;
        let products = (0..all).map(sum).collect::<Vec<_>>().chunks_exact(l.n_out as usize).map(<[f32]>::to_vec).collect();
        l.store(memory, b.out, b.bias, products);
    }
}

/// Buffers of a product's reference.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) weights: BufferId,
    pub(super) out: BufferId,
    pub(super) bias: Option<BufferId>,
    pub(super) chosen: Option<BufferId>,
}

impl Linear {
    pub(super) fn params(&self, eps: f32) -> LinearParams {
        LinearParams {
            n_in: self.layout.cols,
            n_out: self.n_out,
            row_stride: self.layout.stride,
            rows: self.rows,
            x_offset: self.x_offset / 4,
            x_stride: self.x_stride / 4,
            out_offset: self.out_offset,
            out_stride: self.out_stride,
            out_step: self.out_step,
            first_out: self.first_out,
            eps,
            scale: self.epilogue.scale,
            cap: self.epilogue.cap,
            splits: 1,
            weight_scale: self.epilogue.weight_scale,
            first_expert: self.experts.map_or(0, |experts| experts.first),
            experts: self.experts.map_or(0, |experts| experts.count),
            tiles: self.experts.map_or(0, |experts| experts.tiles),
        }
    }

    /// The shader's constant.
    pub(super) fn share(&self) -> u32 {
        self.experts.map_or(0, |experts| experts.share)
    }

    /// Tiles of so many rows.
    pub(super) fn row_tiles(&self, rows: u32) -> u32 {
        self.experts.map_or_else(|| self.rows.div_ceil(rows), |experts| experts.tiles)
    }

    /// Rows of x.
    pub(super) fn x_rows(&self) -> u32 {
        self.rows / self.share().max(1)
    }

    /// The expert of each row, where this slab has it.
    fn experts_of_rows(&self, memory: &HostMemory, chosen: Option<BufferId>) -> Option<Vec<Option<usize>>> {
        let Experts { first, count, tiles, .. } = self.experts?;
        let chosen = memory.read::<u32>(chosen.expect("choices"));
        let here = |expert: u32| (first..first + count).contains(&expert).then_some(expert as usize);
        if tiles == 0 {
            return Some(chosen[..self.rows as usize].iter().map(|expert| here(*expert)).collect());
        }
        let tile = super::MoeSort::TILE as usize;
        let mut of_rows = vec![None; self.rows as usize];
        let (experts, choices) = chosen.split_at(tiles as usize);
        for (expert, choices) in experts.iter().zip(choices.chunks_exact(tile)) {
            for choice in choices.iter().filter(|choice| **choice < self.rows) {
                of_rows[*choice as usize] = here(*expert);
            }
        }
        Some(of_rows)
    }

    pub(super) fn cost(&self) -> Cost {
        let (rows, n_out, n_in) = (u64::from(self.rows), u64::from(self.n_out), u64::from(self.layout.cols));
        // Of experts those that are chosen are read: at most one for each row.
        let matrices = self.experts.map_or(1, |experts| rows.min(experts.count.into()));
        Cost { bytes: 4 * (matrices * n_out * u64::from(self.layout.stride) + rows * (n_in + n_out)), multiply_adds: rows * n_in * n_out }
    }

    /// The pipeline constants of the epilogue.
    pub(super) fn specialize<B>(&self, plan: Plan<B>) -> Plan<B> {
        let e = &self.epilogue;
        plan.with("BIAS", u32::from(e.bias)).with("ACTIVATION", e.activation as u32).with("ADD", u32::from(e.add))
    }

    /// The rows of x.
    pub(super) fn x(&self, memory: &HostMemory, x: BufferId) -> Vec<Vec<f32>> {
        let x = memory.read::<f32>(x);
        (0..self.x_rows()).map(|r| x[(self.x_offset + r * self.x_stride) as usize..][..self.layout.cols as usize].to_vec()).collect()
    }

    /// The product of these rows; with several splits the workspace `(splits, rows, n_out)`, without epilogue.
    pub(super) fn multiply_splits(&self, memory: &mut HostMemory, operands: Operands, x: &[Vec<f32>], splits: u32) {
        if splits == 1 {
            self.finish(memory, operands, x);
            return;
        }
        // A split is the product with the rest of x zero.
        let part = 32 * (self.layout.cols.div_ceil(32).div_ceil(splits)) as usize;
        for split in 0..splits {
            let range = split as usize * part..(split as usize + 1) * part;
            let keep = |(i, v): (usize, &f32)| if range.contains(&i) { *v } else { 0.0 };
            let x: Vec<Vec<f32>> = x.iter().map(|row| row.iter().enumerate().map(keep).collect()).collect();
            let (out_offset, out_stride) = (split * self.rows * self.n_out, self.n_out);
            Self { out_offset, out_stride, out_step: 1, epilogue: Epilogue::STORE, ..*self }.finish(memory, operands, &x);
        }
    }

    /// Multiplies and writes the output.
    pub(super) fn finish(&self, memory: &mut HostMemory, operands: Operands, x: &[Vec<f32>]) {
        let experts = self.experts_of_rows(memory, operands.chosen);
        let matrices = self.experts.map_or(1, |experts| experts.count);
        let rows = memory.read::<u32>(operands.weights).chunks_exact(self.layout.stride as usize).take((matrices * self.n_out) as usize);
        let weights: Vec<Vec<f32>> = rows.map(|row| dequantize_row(&self.layout, row)).collect();
        let dot = |w: &Vec<f32>, x: &Vec<f32>| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32;
        let product = |matrix: &[Vec<f32>], x: &Vec<f32>| matrix.iter().map(|w| dot(w, x)).collect::<Vec<f32>>();
        let Some(experts) = experts else {
            let products = x.iter().map(|x| product(&weights, x)).collect();
            return self.store(memory, operands.out, operands.bias, products);
        };
        let Experts { share, first, .. } = self.experts.expect("experts");
        for (row, expert) in experts.into_iter().enumerate() {
            let Some(expert) = expert else { continue };
            let matrix = &weights[(expert - first as usize) * self.n_out as usize..][..self.n_out as usize];
            let products = vec![product(matrix, &x[row / share as usize])];
            // One row, with the bias of its expert.
            let (out_offset, first_out) = (self.out_offset + row as u32 * self.out_stride, expert as u32 * self.n_out);
            Self { rows: 1, out_offset, first_out, ..*self }.store(memory, operands.out, operands.bias, products);
        }
    }

    /// Applies the epilogue to the products `(rows, n_out)` and writes the output.
    fn store(&self, memory: &mut HostMemory, out: BufferId, bias: Option<BufferId>, products: Vec<Vec<f32>>) {
        let e = &self.epilogue;
        let mut biases = vec![0.0; self.n_out as usize];
        if e.bias {
            let bound = memory.read::<f32>(bias.expect("a bias"));
            biases.copy_from_slice(&bound[self.first_out as usize..][..self.n_out as usize]);
        }
        let out = memory.write::<f32>(out);
        for (r, products) in products.into_iter().enumerate() {
            let mut y: Vec<f32> = products.iter().zip(&biases).map(|(y, b)| e.weight_scale * y + b).collect();
            if e.gated {
                y = y.chunks_exact(2).map(|pair| e.activation.apply_gated(pair[0], pair[1])).collect();
            } else {
                let cap = |y: f32| if e.cap > 0.0 { e.cap * (y / e.cap).tanh() } else { y };
                for y in &mut y {
                    *y = e.scale * cap(e.activation.apply(*y));
                }
            }
            let out = out[self.out_offset as usize + r * self.out_stride as usize..].iter_mut().step_by(self.out_step as usize);
            for (out, y) in out.zip(y) {
                *out = if e.add { *out + y } else { y };
            }
        }
    }
}
