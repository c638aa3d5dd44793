//! From the residual stream to logits or the embedding of a text.

use super::super::loader::{Loader, Part};
use super::super::pass::{Act, PassRecorder};
use super::super::spec::{HeadSpec, ModelSpec};
use super::embedding::Embedding;
use super::linear::{Operand, Projection, Target};
use super::norm::{NormWeights, operand};
use crate::error::Result;
use crate::kernels::{Epilogue, Gather, GatherBindings, Pool, PoolBindings};

/// What follows the last layer.
#[derive(Debug)]
pub(crate) struct Head {
    spec: HeadSpec,
    norm: Option<NormWeights>,
    /// To logits.
    output: Projection,
    /// The two matrices that the pooled vector is multiplied by.
    dense: Option<[Projection; 2]>,
}

impl Head {
    /// Loads the head; tied to `embedding` where the spec says so.
    pub(crate) fn load(loader: &mut Loader<'_>, spec: &ModelSpec, embedding: &Embedding) -> Result<Self> {
        let norm = if spec.head.norm { Some(loader.norm("output_norm", spec)?) } else { None };
        let output = if spec.head.tied {
            Projection { weight: embedding.tokens.clone(), bias: None }
        } else {
            loader.projection("output", spec.vocab, spec.row())?
        };
        let dense = match spec.head.dense {
            Some(width) => Some([
                load_unbiased(loader, "dense_2.weight", width, spec.row())?,
                load_unbiased(loader, "dense_3.weight", spec.row(), width)?,
            ]),
            None => None,
        };
        Ok(Self { spec: spec.head, norm, output, dense })
    }

    /// The logits of all rows of x, in the first rows of [`Buffers::logits`](super::super::pass::Buffers::logits).
    pub(crate) fn record_logits(&self, pass: &mut PassRecorder<'_>, x: &Act) {
        let mut input = operand(self.norm.as_ref(), x);
        let epilogue = Epilogue { cap: self.spec.cap, scale: self.spec.scale, ..Epilogue::STORE };
        let logits = Act::named(pass.buffers.logits, 0, x.rows, self.output.weight.rows);
        self.output.record(pass, &mut input, Target::rows(&logits), epilogue);
    }

    /// A vector of each text, in [`Buffers::embeddings`](super::super::pass::Buffers::embeddings).
    pub(crate) fn record_embeddings(&self, pass: &mut PassRecorder<'_>, x: Act, texts: u32) {
        let x = match &self.norm {
            Some(norm) => norm.record_new(pass, &x),
            None => x,
        };
        let (spans, out) = (pass.buffers.spans, pass.buffers.embeddings);
        pass.dispatch(Pool { dim: x.stride, texts }, PoolBindings { x: x.buffer, spans, out });
        let Some([wide, narrow]) = &self.dense else { return };
        // One by one: a product of several rows may add in another order, and an embedding would depend on who else asks.
        for text in 0..texts {
            let embedding = Act::named(out, text * x.stride, 1, x.stride);
            let hidden = pass.rows(1, wide.weight.rows);
            wide.record(pass, &mut Operand::plain(embedding.clone()), Target::rows(&hidden), Epilogue::STORE);
            narrow.record(pass, &mut Operand::plain(hidden), Target::rows(&embedding), Epilogue::STORE);
        }
    }
}

/// A matrix whose products have no bias.
fn load_unbiased(loader: &mut Loader<'_>, name: &str, rows: u32, cols: u32) -> Result<Projection> {
    Ok(Projection { weight: loader.stacked(&[Part { name, first_row: 0, rows }], cols)?, bias: None })
}

/// The rows of x whose numbers are in [`Buffers::output_numbers`](super::super::pass::Buffers::output_numbers).
pub(crate) fn record_gather(pass: &mut PassRecorder<'_>, x: &Act, rows: u32) -> Act {
    let out = pass.rows(rows, x.stride);
    let bindings = GatherBindings { x: x.buffer, numbers: pass.buffers.output_numbers, out: out.buffer };
    pass.dispatch(Gather { dim: x.stride, rows }, bindings);
    out
}
