//! Embeddings of tokens and positions.

use super::sample::Row;
use super::{Capabilities, EmbedBindings, Kernel, Plan, WeightLayout, dequantize_row, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::{params::EmbedParams, variants::EmbedVariant};

/// Which row of the embedding is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbedIndex {
    /// The token's.
    Token = 0,
    /// The position's.
    Position = 1,
    /// Always the first.
    First = 2,
}

/// `out[r] = scale * embedding[i]`, or added to the output, for the rows in the bound slab.
#[derive(Debug)]
pub struct Embed {
    /// Layout of the embedding.
    pub layout: WeightLayout,
    /// Rows to embed.
    pub rows: u32,
    /// Row of the embedding that is the slab's first.
    pub first_index: u32,
    /// Rows of the slab.
    pub slab_rows: u32,
    /// The source of i.
    pub index: EmbedIndex,
    /// Add to the output.
    pub add: bool,
    /// Factor on the embedding (Gemma's square root of the width; 1 elsewhere).
    pub scale: f32,
}

impl Kernel for Embed {
    type Bindings = EmbedBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = EmbedParams {
            rows: self.rows,
            dim: self.layout.cols,
            row_stride: self.layout.stride,
            first_index: self.first_index,
            slab_rows: self.slab_rows,
            scale: self.scale,
        };
        let groups = self.rows * (self.layout.cols / 8);
        Plan::new(EmbedVariant { weights: self.layout.weights() }, &params, grid_2d(groups.div_ceil(64)))
            .with("INDEX", self.index as u32)
            .with("ADD", u32::from(self.add))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (dim, stride) = (self.layout.cols as usize, self.layout.stride as usize);
        for r in 0..self.rows as usize {
            let row = memory.read::<Row>(b.rows)[r];
            let index = match self.index {
                EmbedIndex::Token => row.token,
                EmbedIndex::Position => row.position,
                EmbedIndex::First => 0,
            };
            if let Some(index) = index.checked_sub(self.first_index).filter(|i| *i < self.slab_rows) {
                let row = dequantize_row(&self.layout, &memory.read::<u32>(b.weights)[index as usize * stride..][..stride]);
                for (out, w) in memory.write::<f32>(b.out)[r * dim..][..dim].iter_mut().zip(row) {
                    *out = if self.add { *out } else { 0.0 } + self.scale * w;
                }
            }
        }
    }
}
