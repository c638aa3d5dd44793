//! One layer of the model: mixer and feed-forward network around the residual stream.

use super::super::loader::Loader;
use super::super::pass::{Act, Output, PassRecorder};
use super::super::spec::{FfnSpec, LayerSpec, ModelSpec, OutputNorm};
use super::attention::{Attention, AttentionBuffers};
use super::linear::{Operand, Projection, Target};
use super::mlp::Mlp;
use super::moe::Moe;
use super::norm::{NormWeights, operand};
use crate::error::Result;
use crate::kernels::Epilogue;

/// The feed-forward network of a layer.
#[derive(Debug)]
enum Ffn {
    Dense(Box<Mlp>),
    Moe(Box<Moe>),
}

/// One layer. The norms that it has depend on the spec's [`NormPlacement`](super::super::spec::NormPlacement).
#[derive(Debug)]
pub(crate) struct Block {
    output_norm: OutputNorm,
    parallel: bool,
    residual_scale: f32,
    attention_norm: Option<NormWeights>,
    pub(super) attention: Attention,
    attention_post_norm: Option<NormWeights>,
    mlp_norm: Option<NormWeights>,
    ffn: Ffn,
    mlp_post_norm: Option<NormWeights>,
}

impl Block {
    /// Loads layer `i`.
    pub(crate) fn load(loader: &mut Loader<'_>, spec: &ModelSpec, i: u32) -> Result<Self> {
        let layer = &spec.layers[i as usize];
        let (attention_norm, mlp_norm) = load_input_norms(loader, spec, layer, i)?;
        let (mut attention_post_norm, mut mlp_post_norm) = (None, None);
        let post_norms = match layer.norms.output {
            OutputNorm::None => None,
            OutputNorm::Branch => Some(["post_attention_norm", "post_ffw_norm"]),
            OutputNorm::Sum => Some(["attn_output_norm", "layer_output_norm"]),
        };
        if let Some([attention, mlp]) = post_norms {
            attention_post_norm = Some(loader.norm(&format!("blk.{i}.{attention}"), spec)?);
            mlp_post_norm = Some(loader.norm(&format!("blk.{i}.{mlp}"), spec)?);
        }
        Ok(Self {
            output_norm: layer.norms.output,
            parallel: layer.parallel,
            residual_scale: layer.residual_scale,
            attention_norm,
            attention: Attention::load(loader, spec, layer.attention(), i)?,
            attention_post_norm,
            mlp_norm,
            ffn: match layer.ffn {
                FfnSpec::Dense(dense) => Ffn::Dense(Box::new(Mlp::load(loader, dense, spec.row(), i)?)),
                FfnSpec::Moe(moe) => Ffn::Moe(Box::new(Moe::load(loader, moe, spec.row(), i)?)),
            },
            mlp_post_norm,
        })
    }

    /// The residual stream behind the layer.
    pub(crate) fn record(&self, pass: &mut PassRecorder<'_>, x: Act, buffers: &AttentionBuffers) -> Act {
        let input = operand(self.attention_norm.as_ref(), &x);
        let heads = self.attention.record_heads(pass, input, buffers);
        let heads = operand(self.attention.sub_norm.as_ref(), &heads);
        let hidden = |pass: &mut PassRecorder<'_>, mlp: &Mlp, x: &Act| mlp.record_hidden(pass, operand(self.mlp_norm.as_ref(), x));
        match &self.ffn {
            Ffn::Dense(mlp) => {
                let parallel = self.parallel.then(|| hidden(pass, mlp, &x));
                let x = self.record_residual(pass, x, heads, &self.attention.output, self.attention_post_norm.as_ref());
                let hidden = parallel.unwrap_or_else(|| hidden(pass, mlp, &x));
                let hidden = operand(mlp.sub_norm.as_ref(), &hidden);
                self.record_residual(pass, x, hidden, &mlp.down, self.mlp_post_norm.as_ref())
            }
            Ffn::Moe(moe) => {
                let x = self.record_residual(pass, x, heads, &self.attention.output, self.attention_post_norm.as_ref());
                self.record_moe(pass, x, moe)
            }
        }
    }

    /// The residual stream with the mixture's output, with the norm that it has there.
    fn record_moe(&self, pass: &mut PassRecorder<'_>, x: Act, moe: &Moe) -> Act {
        let input = operand(self.mlp_norm.as_ref(), &x);
        match (self.output_norm, &self.mlp_post_norm) {
            (OutputNorm::Branch, Some(norm)) => {
                let out = pass.act(x.stride);
                moe.record(pass, input, &out, 1.0, false);
                norm.record(pass, &out, &x, true);
                x
            }
            (OutputNorm::Sum, Some(norm)) => {
                moe.record(pass, input, &x, self.residual_scale, true);
                norm.record_new(pass, &x)
            }
            _ => {
                moe.record(pass, input, &x, self.residual_scale, true);
                x
            }
        }
    }

    /// Whether a pass that ends with this layer needs nothing but [`Self::record_cache`] of it.
    pub(crate) fn ends_with_cache(&self, pass: &PassRecorder<'_>) -> bool {
        pass.pass.output == Output::Cache && !self.attention.fuses(pass.pass.attend)
    }

    /// Puts the layer's keys and values into the cache, and does nothing else.
    pub(crate) fn record_cache(&self, pass: &mut PassRecorder<'_>, x: &Act, buffers: &AttentionBuffers) {
        let input = operand(self.attention_norm.as_ref(), x);
        self.attention.record_cache(pass, input, buffers);
    }

    /// Multiplies the last rows of a branch and adds them to the residual stream `x`, with the norm that it has there.
    fn record_residual(
        &self,
        pass: &mut PassRecorder<'_>,
        x: Act,
        mut branch: Operand,
        projection: &Projection,
        norm: Option<&NormWeights>,
    ) -> Act {
        let add = Epilogue { scale: self.residual_scale, ..Epilogue::ADD };
        match (self.output_norm, norm) {
            (OutputNorm::Branch, Some(norm)) => {
                let out = pass.act(x.stride);
                projection.record(pass, &mut branch, Target::rows(&out), Epilogue::STORE);
                norm.record(pass, &out, &x, true);
                x
            }
            (OutputNorm::Sum, Some(norm)) => {
                projection.record(pass, &mut branch, Target::rows(&x), add);
                drop(branch);
                norm.record_new(pass, &x)
            }
            _ => {
                projection.record(pass, &mut branch, Target::rows(&x), add);
                x
            }
        }
    }
}

/// The norms before attention and before the feed-forward network.
fn load_input_norms(
    loader: &mut Loader<'_>,
    spec: &ModelSpec,
    layer: &LayerSpec,
    i: u32,
) -> Result<(Option<NormWeights>, Option<NormWeights>)> {
    if !layer.norms.input {
        return Ok((None, None));
    }
    let first = loader.norm(&format!("blk.{i}.attn_norm"), spec)?;
    let ffn_norm = format!("blk.{i}.{}", layer.ffn_norm);
    // GPT-NeoX: a norm of its own although parallel.
    if !layer.parallel || loader.has(&format!("{ffn_norm}.weight")) {
        return Ok((Some(first), Some(loader.norm(&ffn_norm, spec)?)));
    }
    // Falcon 40B: the first norm is the feed-forward network's alone.
    let second = format!("blk.{i}.attn_norm_2");
    let attention = if loader.has(&format!("{second}.weight")) { loader.norm(&second, spec)? } else { first };
    Ok((Some(attention), Some(first)))
}
