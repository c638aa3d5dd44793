//! Raw GGUF rows into the layout that the matmuls read.

use super::{Capabilities, Kernel, Plan, RepackBindings, WeightLayout, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::{params::RepackParams, variants::RepackVariant};

/// Packs `rows` rows of a file (`raw`) into a slab (`packed`).
#[derive(Debug)]
pub struct Repack {
    /// Type and sizes.
    pub layout: WeightLayout,
    /// Rows in `raw`.
    pub rows: u32,
    /// Row of the slab that the first becomes.
    pub first_row: u32,
    /// Distance of the following ones: 2 interleaves two matrices row by row.
    pub row_step: u32,
}

impl Kernel for Repack {
    type Bindings = RepackBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let parts = self.layout.parts();
        let params = RepackParams {
            rows: self.rows,
            cols: self.layout.cols,
            row_stride: self.layout.stride,
            first_row: self.first_row,
            row_step: self.row_step,
            raw_row_bytes: self.layout.file_row_bytes,
            block: self.layout.block(),
            block_bytes: self.layout.block_bytes(),
            low_at: parts.low.at,
            low_bits: parts.low.bits,
            low_run: parts.low.run,
            high_at: parts.high.map_or(0, |high| high.at),
            high_bits: parts.high.map_or(0, |high| high.bits),
            high_run: parts.high.map_or(1, |high| high.run),
            scales_at: parts.scales.0,
            scales: parts.scales.1,
            more_scales_at: parts.more_scales.0,
            more_scales: parts.more_scales.1,
            scale_bytes: self.layout.scale_bytes(),
        };
        Plan::new(RepackVariant, &params, grid_2d((self.rows * self.layout.stride).div_ceil(64)))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let raw: Vec<u8> = memory.read::<u8>(b.raw).to_vec();
        let packed = memory.write::<u32>(b.packed);
        let stride = self.layout.stride as usize;
        for (i, row) in raw.chunks_exact(self.layout.file_row_bytes as usize).take(self.rows as usize).enumerate() {
            let target = (self.first_row as usize + i * self.row_step as usize) * stride;
            self.layout.pack_row(row, &mut packed[target..][..stride]);
        }
    }
}
