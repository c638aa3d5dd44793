//! Raw GGUF rows into the layout that the matmuls read.

use super::{HostBindings, Kernel, Plan, WeightLayout, grid_2d};
use crate::kernels::Capabilities;
use crate::shaders::{self, params::RepackParams};

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
    fn plan(&self, _: &Capabilities) -> Plan {
        let params = RepackParams {
            rows: self.rows,
            cols: self.layout.cols,
            row_stride: self.layout.stride,
            first_row: self.first_row,
            row_step: self.row_step,
            raw_row_bytes: self.layout.file_row_bytes,
        };
        let groups = self.rows * (self.layout.cols / 8);
        Plan::new(shaders::find("repack", &[self.layout.feature()]), &params, grid_2d(groups.div_ceil(64)))
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let raw: Vec<u8> = memory.view::<u8>("raw").to_vec();
        let packed = memory.view_mut::<u32>("packed");
        let stride = self.layout.stride as usize;
        for (i, row) in raw.chunks_exact(self.layout.file_row_bytes as usize).take(self.rows as usize).enumerate() {
            let target = (self.first_row as usize + i * self.row_step as usize) * stride;
            self.layout.pack_row(row, &mut packed[target..][..stride]);
        }
    }
}
