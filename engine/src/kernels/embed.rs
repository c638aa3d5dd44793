//! Token embeddings.

use super::sample::Row;
use super::{HostBindings, Kernel, Plan, WeightLayout, dequantize_row, grid_2d};
use crate::kernels::Capabilities;
use crate::shaders::{self, params::EmbedParams};

/// `out[r] = scale * embedding[rows[r].token]` for the tokens that the bound slab holds.
#[derive(Debug)]
pub struct Embed {
    /// Layout of the embedding.
    pub layout: WeightLayout,
    /// Rows to embed.
    pub rows: u32,
    /// Token of the slab's first row.
    pub first_token: u32,
    /// Rows of the slab.
    pub tokens: u32,
    /// Factor on the embedding (Gemma's square root of the width; 1 elsewhere).
    pub scale: f32,
}

impl Kernel for Embed {
    fn plan(&self, _: &Capabilities) -> Plan {
        let params = EmbedParams {
            rows: self.rows,
            dim: self.layout.cols,
            row_stride: self.layout.stride,
            first_token: self.first_token,
            tokens: self.tokens,
            scale: self.scale,
        };
        let groups = self.rows * (self.layout.cols / 8);
        Plan::new(shaders::find("embed", &[self.layout.feature()]), &params, grid_2d(groups.div_ceil(64)))
    }

    fn reference(&self, memory: &mut HostBindings<'_>) {
        let (dim, stride) = (self.layout.cols as usize, self.layout.stride as usize);
        for r in 0..self.rows as usize {
            let token = memory.view::<Row>("rows")[r].token;
            if let Some(token) = token.checked_sub(self.first_token).filter(|t| *t < self.tokens) {
                let row = dequantize_row(&self.layout, &memory.view::<u32>("weights")[token as usize * stride..][..stride]);
                for (out, w) in memory.view_mut::<f32>("out")[r * dim..][..dim].iter_mut().zip(row) {
                    *out = self.scale * w;
                }
            }
        }
    }
}
