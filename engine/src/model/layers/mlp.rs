//! The feed-forward network of a layer.

use super::super::loader::Loader;
use super::super::pass::{Act, PassRecorder};
use super::super::spec::DenseSpec;
use super::linear::{Operand, Projection};
use super::packed::GateUp;
use crate::error::Result;

/// `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    spec: DenseSpec,
    up: GateUp,
    /// From the hidden layer to the residual stream.
    pub(super) down: Projection,
}

impl Mlp {
    /// Loads the network of layer `i`, whose residual stream has rows of `dim` elements.
    pub(super) fn load(loader: &mut Loader<'_>, spec: DenseSpec, dim: u32, i: u32) -> Result<Self> {
        let [gate, up, down] = ["ffn_gate", "ffn_up", "ffn_down"].map(|part| format!("blk.{i}.{part}"));
        Ok(Self {
            spec,
            up: GateUp::load(loader, [&gate, &up], spec.gated, spec.width, dim)?,
            down: loader.projection(&down, dim, spec.width)?,
        })
    }

    /// The hidden layer, activated.
    pub(super) fn record_hidden(&self, pass: &mut PassRecorder<'_>, x: Operand) -> Act {
        self.up.record(pass, x, self.spec.width, self.spec.activation)
    }
}
