//! Matrix products with quantized weights: `out = x * weights^T`, for few rows (decode) and for many (prefill).

use super::gated::Activation;
use super::norm::{NormKind, normalize};
use super::{Capabilities, HostBindings, Kernel, MAX_WORKGROUPS, Plan, WeightLayout, dequantize_row, grid_2d};
use crate::shaders::{self, params::LinearParams};

/// What happens to a product `y`: `scale * soft_cap(activation(y + bias))`, stored or added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue {
    /// Add the bias that is bound; otherwise any buffer is.
    pub bias: bool,
    /// On the biased product.
    pub activation: Activation,
    /// Neighbouring outputs become one: `activation(even) * odd`, gate and up interleaved. [`Matvec`] only, without cap, scale, add.
    pub gated: bool,
    /// `cap * tanh(y / cap)`; 0: none.
    pub cap: f32,
    /// Factor.
    pub scale: f32,
    /// Add to what the output holds (the residual stream).
    pub add: bool,
}

impl Epilogue {
    /// Stored as it is.
    pub const STORE: Self = Self { bias: false, activation: Activation::None, gated: false, cap: 0.0, scale: 1.0, add: false };
    /// Added to the output.
    pub const ADD: Self = Self { add: true, ..Self::STORE };
}

/// Shapes and places of a product.
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
    /// What to do with the product.
    pub epilogue: Epilogue,
}

/// The product for at most a few rows of x: a workgroup computes whole dot products, each weight is read once.
#[derive(Debug)]
pub struct Matvec {
    /// Shapes and places.
    pub linear: Linear,
    /// Normalize x first (`RMSNorm`) with this epsilon and the norm weights that are bound; otherwise any buffer is.
    pub norm: Option<f32>,
}

impl Kernel for Matvec {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const WORKGROUP: u32 = 64;
        const OUTPUTS: u32 = 4;
        /// Outputs up to which one subgroup for four of them would leave a large device idle.
        const LONG_ROWS: u32 = 8192;
        let l = &self.linear;
        let params = l.params(self.norm.unwrap_or_default());
        // As many lanes as a subgroup, so that sums need no workgroup memory, or two where rows are long and few; no more than a row
        // has blocks. The rest of the workgroup takes other outputs.
        let blocks = l.layout.cols.div_ceil(32);
        let subgroup = capabilities.subgroup_size.unwrap_or(32).next_power_of_two();
        let lanes = if blocks >= 4 * subgroup && l.n_out <= LONG_ROWS { 2 * subgroup } else { subgroup };
        let (rows_feature, rows_at_once, most_lanes) = if l.rows == 1 { ("rows_1", 1, 64) } else { ("rows_4", 4, 16) };
        let lanes = lanes.min(blocks.next_power_of_two()).clamp(4, most_lanes);
        let shader = shaders::find("matvec", &[l.layout.feature(), rows_feature, capabilities.subgroups()]);
        let [x, y, _] = grid_2d(l.n_out.div_ceil(OUTPUTS * (WORKGROUP / lanes)));
        l.specialize(Plan::new(shader, &params, [x, y, l.rows.div_ceil(rows_at_once)]))
            .with("LANES", lanes)
            .with("NORM", u32::from(self.norm.is_some()))
            .with("GATED", u32::from(l.epilogue.gated))
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let mut x = self.linear.x(memory);
        if let Some(eps) = self.norm {
            let weight = memory.view::<f32>("norm_weight").to_vec();
            for row in &mut x {
                normalize(row, NormKind::Rms, &weight, eps);
            }
        }
        self.linear.finish(memory, &x);
    }
}

/// The product for many rows of x: tiles of both in workgroup memory. x is normalized beforehand; no gated [`Epilogue`].
#[derive(Debug)]
pub struct Matmul(pub Linear);

impl Kernel for Matmul {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const TILE: u32 = 64;
        let l = &self.0;
        debug_assert!(!l.epilogue.gated, "the tile kernel does not pair outputs");
        let half = if capabilities.shader_f16 { "half" } else { "" };
        let columns = l.n_out.div_ceil(TILE);
        debug_assert!(columns <= MAX_WORKGROUPS);
        let shader = shaders::find("matmul", &[l.layout.feature(), half]);
        l.specialize(Plan::new(shader, &l.params(0.0), [columns, l.rows.div_ceil(TILE), 1]))
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let x = self.0.x(memory);
        self.0.finish(memory, &x);
    }
}

impl Linear {
    fn params(&self, eps: f32) -> LinearParams {
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
        }
    }

    /// The pipeline constants of the epilogue.
    fn specialize(&self, plan: Plan) -> Plan {
        let e = &self.epilogue;
        plan.with("BIAS", u32::from(e.bias)).with("ACTIVATION", e.activation as u32).with("ADD", u32::from(e.add))
    }

    /// The rows of x.
    fn x(&self, memory: &HostBindings<'_>) -> Vec<Vec<f32>> {
        let x = memory.view::<f32>("x");
        (0..self.rows).map(|r| x[(self.x_offset + r * self.x_stride) as usize..][..self.layout.cols as usize].to_vec()).collect()
    }

    /// Multiplies and writes the output.
    fn finish(&self, memory: &mut HostBindings<'_>, x: &[Vec<f32>]) {
        let weights = memory.view::<u32>("weights").chunks_exact(self.layout.stride as usize).take(self.n_out as usize);
        let weights: Vec<Vec<f32>> = weights.map(|row| dequantize_row(&self.layout, row)).collect();
        let e = &self.epilogue;
        let mut bias = vec![0.0; self.n_out as usize];
        if e.bias {
            bias.copy_from_slice(&memory.view::<f32>("bias")[self.first_out as usize..][..self.n_out as usize]);
        }
        let out = memory.view_mut::<f32>("out");
        for (r, x) in x.iter().enumerate() {
            let dot = |w: &Vec<f32>| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32;
            let mut y: Vec<f32> = weights.iter().map(dot).zip(&bias).map(|(y, b)| y + b).collect();
            if e.gated {
                y = y.chunks_exact(2).map(|pair| e.activation.apply(pair[0]) * pair[1]).collect();
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
