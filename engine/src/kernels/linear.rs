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

/// The product for at most a few rows of x: a workgroup computes whole dot products, each weight is read once.
#[derive(Debug)]
pub struct Matvec {
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
    /// Normalize x first (`RMSNorm`) with this epsilon and the weights bound last.
    pub norm: Option<f32>,
}

impl Kernel for Matvec {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const WORKGROUP: u32 = 64;
        const OUTPUTS: u32 = 4;
        let params = MatvecParams {
            n_in: self.layout.cols,
            n_out: self.n_out,
            row_stride: self.layout.stride,
            rows: self.rows,
            x_offset: self.x_offset / 4,
            x_stride: self.x_stride / 4,
            out_offset: self.out_offset,
            out_stride: self.out_stride,
            eps: self.norm.unwrap_or_default(),
        };
        // As many lanes as a subgroup, so that sums need no workgroup memory; the rest of the workgroup takes other outputs.
        let lanes = capabilities.subgroup_size.unwrap_or(32).next_power_of_two().clamp(4, WORKGROUP);
        let (rows_feature, rows_at_once) = if self.rows == 1 { ("rows_1", 1) } else { ("rows_4", 4) };
        let shader = shaders::find(
            "matvec",
            &[self.layout.feature(), rows_feature, if self.norm.is_some() { "norm" } else { "" }, capabilities.subgroups()],
        );
        let [x, y, _] = grid_2d(self.n_out.div_ceil(OUTPUTS * (WORKGROUP / lanes)));
        Plan::new(shader, &params, [x, y, self.rows.div_ceil(rows_at_once)]).with("LANES", lanes).with("EPILOGUE", self.epilogue as u32)
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let mut x = rows_of(memory, self.x_offset, self.x_stride, self.rows, self.layout.cols);
        if let Some(eps) = self.norm {
            let weight = memory.view::<f32>("norm_weight").to_vec();
            for row in &mut x {
                super::rms_norm::rms_norm(row, &weight, eps);
            }
        }
        product(memory, &self.layout, self.n_out, &x, (self.out_offset, self.out_stride), self.epilogue);
    }
}

/// The product for many rows of x: tiles of both in workgroup memory. x is normalized beforehand.
#[derive(Debug)]
pub struct Matmul {
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
    /// [`Epilogue::Store`] or [`Epilogue::Add`].
    pub epilogue: Epilogue,
}

impl Kernel for Matmul {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        const TILE: u32 = 64;
        let params = MatmulParams {
            n_in: self.layout.cols,
            n_out: self.n_out,
            row_stride: self.layout.stride,
            rows: self.rows,
            x_offset: self.x_offset / 4,
            x_stride: self.x_stride / 4,
            out_offset: self.out_offset,
            out_stride: self.out_stride,
        };
        debug_assert_ne!(self.epilogue, Epilogue::SiluMul, "the tile kernel does not pair outputs");
        let half = if capabilities.shader_f16 { "half" } else { "" };
        let columns = self.n_out.div_ceil(TILE);
        debug_assert!(columns <= MAX_WORKGROUPS);
        Plan::new(shaders::find("matmul", &[self.layout.feature(), half]), &params, [columns, self.rows.div_ceil(TILE), 1])
            .with("EPILOGUE", self.epilogue as u32)
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let x = rows_of(memory, self.x_offset, self.x_stride, self.rows, self.layout.cols);
        product(memory, &self.layout, self.n_out, &x, (self.out_offset, self.out_stride), self.epilogue);
    }
}

fn rows_of(memory: &HostBindings<'_>, offset: u32, stride: u32, rows: u32, n_in: u32) -> Vec<Vec<f32>> {
    let x = memory.view::<f32>("x");
    (0..rows).map(|r| x[(offset + r * stride) as usize..][..n_in as usize].to_vec()).collect()
}

fn product(memory: &mut HostBindings<'_>, layout: &WeightLayout, n_out: u32, x: &[Vec<f32>], out: (u32, u32), epilogue: Epilogue) {
    let stride = layout.stride as usize;
    let weights: Vec<Vec<f32>> =
        memory.view::<u32>("weights").chunks_exact(stride).take(n_out as usize).map(|row| dequantize_row(layout, row)).collect();
    let target = memory.view_mut::<f32>("out");
    for (r, x) in x.iter().enumerate() {
        let y: Vec<f32> = weights.iter().map(|w| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32).collect();
        let target = &mut target[out.0 as usize + r * out.1 as usize..];
        match epilogue {
            Epilogue::Store => target[..y.len()].copy_from_slice(&y),
            Epilogue::Add => target.iter_mut().zip(&y).for_each(|(t, y)| *t += y),
            Epilogue::SiluMul => target.iter_mut().zip(y.chunks_exact(2)).for_each(|(t, pair)| *t = silu(pair[0]) * pair[1]),
        }
    }
}
