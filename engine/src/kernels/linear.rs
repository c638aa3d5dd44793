//! Matrix products with quantized weights: `out = x * weights^T`, for few rows (decode) and for many (prefill).

use super::silu_mul::silu;
use super::{Capabilities, HostBindings, Kernel, MAX_WORKGROUPS, Plan, WeightLayout, dequantize_row, grid_2d};
use crate::shaders::{
    self,
    params::{MatmulParams, MatvecParams},
};

/// What happens to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Stored.
    Store,
    /// Added to what the output holds (the residual stream).
    Add,
    /// `silu(even) * odd` of neighbouring outputs, half as many: gate and up interleaved. [`Matvec`] only.
    SiluMul,
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
    /// What to do with the product.
    pub epilogue: Epilogue,
}

/// The product for at most a few rows of x: a workgroup computes whole dot products, each weight is read once.
#[derive(Debug)]
pub struct Matvec {
    /// Shapes and places.
    pub linear: Linear,
    /// Normalize x first (`RMSNorm`) with this epsilon and the weights bound last.
    pub norm: Option<f32>,
}

impl Kernel for Matvec {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const WORKGROUP: u32 = 64;
        const OUTPUTS: u32 = 4;
        let l = &self.linear;
        let params = MatvecParams {
            n_in: l.layout.cols,
            n_out: l.n_out,
            row_stride: l.layout.stride,
            rows: l.rows,
            x_offset: l.x_offset / 4,
            x_stride: l.x_stride / 4,
            out_offset: l.out_offset,
            out_stride: l.out_stride,
            eps: self.norm.unwrap_or_default(),
        };
        // As many lanes as a subgroup, so that sums need no workgroup memory; the rest of the workgroup takes other outputs.
        let lanes = capabilities.subgroup_size.unwrap_or(32).next_power_of_two().clamp(4, WORKGROUP);
        let (rows_feature, rows_at_once) = if l.rows == 1 { ("rows_1", 1) } else { ("rows_4", 4) };
        let shader = shaders::find(
            "matvec",
            &[l.layout.feature(), rows_feature, if self.norm.is_some() { "norm" } else { "" }, capabilities.subgroups()],
        );
        let [x, y, _] = grid_2d(l.n_out.div_ceil(OUTPUTS * (WORKGROUP / lanes)));
        Plan::new(shader, &params, [x, y, l.rows.div_ceil(rows_at_once)]).with("LANES", lanes).with("EPILOGUE", l.epilogue as u32)
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let mut x = self.linear.x(memory);
        if let Some(eps) = self.norm {
            let weight = memory.view::<f32>("norm_weight").to_vec();
            for row in &mut x {
                super::rms_norm::rms_norm(row, &weight, eps);
            }
        }
        self.linear.finish(memory, &x);
    }
}

/// The product for many rows of x: tiles of both in workgroup memory. x is normalized beforehand; no [`Epilogue::SiluMul`].
#[derive(Debug)]
pub struct Matmul(pub Linear);

impl Kernel for Matmul {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const TILE: u32 = 64;
        let l = &self.0;
        let params = MatmulParams {
            n_in: l.layout.cols,
            n_out: l.n_out,
            row_stride: l.layout.stride,
            rows: l.rows,
            x_offset: l.x_offset / 4,
            x_stride: l.x_stride / 4,
            out_offset: l.out_offset,
            out_stride: l.out_stride,
        };
        debug_assert_ne!(l.epilogue, Epilogue::SiluMul, "the tile kernel does not pair outputs");
        let half = if capabilities.shader_f16 { "half" } else { "" };
        let columns = l.n_out.div_ceil(TILE);
        debug_assert!(columns <= MAX_WORKGROUPS);
        Plan::new(shaders::find("matmul", &[l.layout.feature(), half]), &params, [columns, l.rows.div_ceil(TILE), 1])
            .with("EPILOGUE", l.epilogue as u32)
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let x = self.0.x(memory);
        self.0.finish(memory, &x);
    }
}

impl Linear {
    /// The rows of x.
    fn x(&self, memory: &HostBindings<'_>) -> Vec<Vec<f32>> {
        let x = memory.view::<f32>("x");
        (0..self.rows).map(|r| x[(self.x_offset + r * self.x_stride) as usize..][..self.layout.cols as usize].to_vec()).collect()
    }

    /// Multiplies and writes the output.
    fn finish(&self, memory: &mut HostBindings<'_>, x: &[Vec<f32>]) {
        let weights = memory.view::<u32>("weights").chunks_exact(self.layout.stride as usize).take(self.n_out as usize);
        let weights: Vec<Vec<f32>> = weights.map(|row| dequantize_row(&self.layout, row)).collect();
        let out = memory.view_mut::<f32>("out");
        for (r, x) in x.iter().enumerate() {
            let dot = |w: &Vec<f32>| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32;
            let y: Vec<f32> = weights.iter().map(dot).collect();
            let out = &mut out[self.out_offset as usize + r * self.out_stride as usize..];
            match self.epilogue {
                Epilogue::Store => out[..y.len()].copy_from_slice(&y),
                Epilogue::Add => out.iter_mut().zip(&y).for_each(|(o, y)| *o += y),
                Epilogue::SiluMul => out.iter_mut().zip(y.chunks_exact(2)).for_each(|(o, pair)| *o = silu(pair[0]) * pair[1]),
            }
        }
    }
}
