//! The feed-forward network of a layer.

use super::super::loader::Loader;
use super::super::pass::{Act, PassRecorder};
use super::super::spec::DenseSpec;
use super::linear::{Operand, Projection};
use super::norm::NormWeights;
use super::packed::GateUp;
use crate::error::Result;
use crate::kernels::{Xielu, XieluBindings};

/// `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    spec: DenseSpec,
    up: GateUp,
    /// From the hidden layer to the residual stream.
    pub(super) down: Projection,
    /// Before [`Self::down`].
    pub(super) sub_norm: Option<NormWeights>,
}

impl Mlp {
    /// Loads the network of layer `i`, whose residual stream has rows of `dim` elements.
    pub(super) fn load(loader: &mut Loader<'_>, spec: DenseSpec, dim: u32, i: u32) -> Result<Self> {
        Self::load_named(loader, spec, dim, i, "")
    }

    /// The same, with a suffix of its tensors' names.
    pub(super) fn load_named(loader: &mut Loader<'_>, spec: DenseSpec, dim: u32, i: u32, suffix: &str) -> Result<Self> {
        let [gate, up, down, sub_norm] = ["ffn_gate", "ffn_up", "ffn_down", "ffn_sub_norm"].map(|part| format!("blk.{i}.{part}{suffix}"));
        Ok(Self {
            spec,
            up: GateUp::load(loader, [&gate, &up], spec.gated, spec.width, dim)?,
            down: loader.projection(&down, dim, spec.width)?,
            sub_norm: loader.sub_norm(&sub_norm, spec.width, spec.sub_norm)?,
        })
    }

    /// The hidden layer, activated.
    pub(super) fn record_hidden(&self, pass: &mut PassRecorder<'_>, x: Operand) -> Act {
        let hidden = self.up.record(pass, x, self.spec.width, self.spec.activation);
        if let Some(parameters) = self.spec.xielu {
            pass.dispatch(Xielu { rows: hidden.rows, dim: self.spec.width, parameters }, XieluBindings { x: hidden.buffer });
        }
        hidden
    }
}
