//! From tokens to the residual stream.

use super::super::loader::{Loader, Part};
use super::super::pass::{Act, PassRecorder};
use super::super::slab::Weight;
use super::super::spec::ModelSpec;
use super::norm::NormWeights;
use crate::error::Result;
use crate::kernels::{Embed, EmbedBindings, EmbedIndex};

/// `norm(scale * token + position + type)`.
#[derive(Debug)]
pub(crate) struct Embedding {
    /// Elements of a row of the residual stream.
    row: u32,
    scale: f32,
    /// `(vocab, dim)`.
    pub(super) tokens: Weight,
    positions: Option<Weight>,
    token_types: Option<Weight>,
    norm: Option<NormWeights>,
}

impl Embedding {
    /// Loads the tables that the spec names.
    pub(crate) fn load(loader: &mut Loader<'_>, spec: &ModelSpec) -> Result<Self> {
        let mut table = |name: &str, rows: u32| loader.stacked(&[Part { name, first_row: 0, rows }], spec.row());
        let tokens = table("token_embd.weight", spec.vocab)?;
        let mut optional = |name: &str, rows: Option<u32>| match rows {
            Some(rows) => table(name, rows).map(Some),
            None => Ok(None),
        };
        let positions = optional("position_embd.weight", spec.embedding.positions)?;
        let token_types = optional("token_types.weight", spec.embedding.token_types)?;
        let norm = if spec.embedding.norm { Some(loader.norm("token_embd_norm", spec)?) } else { None };
        Ok(Self { row: spec.row(), scale: spec.embedding.scale, tokens, positions, token_types, norm })
    }

    /// The rows of the pass.
    pub(crate) fn record(&self, pass: &mut PassRecorder<'_>) -> Act {
        let out = pass.act(self.row);
        record_table(pass, &self.tokens, EmbedIndex::Token, self.scale, &out);
        if let Some(positions) = &self.positions {
            record_table(pass, positions, EmbedIndex::Position, 1.0, &out);
        }
        if let Some(types) = &self.token_types {
            record_table(pass, types, EmbedIndex::First, 1.0, &out);
        }
        match &self.norm {
            Some(norm) => norm.record_new(pass, &out),
            None => out,
        }
    }
}

/// Rows of a table: stored for tokens, added for all others.
fn record_table(pass: &mut PassRecorder<'_>, weight: &Weight, index: EmbedIndex, scale: f32, out: &Act) {
    let add = index != EmbedIndex::Token;
    let scale = scale * weight.scale;
    for slab in &weight.slabs {
        let kernel = Embed { layout: weight.layout, rows: out.rows, first_index: slab.first_row, slab_rows: slab.rows, index, add, scale };
        pass.dispatch(kernel, EmbedBindings { weights: slab.buffer, rows: pass.rows_buffer, out: out.buffer });
    }
}
