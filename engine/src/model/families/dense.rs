//! Dense transformers with attention in every layer: GGUF's keys, and the properties of a family, to a [`ModelSpec`].
//!
//! Names and defaults are those that llama.cpp's converter writes and its loader assumes; what a model computes is what its
//! implementation in Hugging Face transformers computes. Whether there are biases, norms of queries and keys, fused or separate
//! projections, and output weights of their own is read from the tensors that a file has.

use super::header::{Header, MAX_CONTEXT, MAX_DIM, MAX_HEAD_DIM, MAX_LAYERS};
use super::mixture::Mixture;
use super::rope;
use crate::error::{EngineError, Result};
use crate::kernels::{Activation, NormKind, RopePairing};
use crate::model::rope::RopeSpec;
use crate::model::spec::{
    AttentionSpec, DenseSpec, EmbeddingSpec, FfnSpec, HeadSpec, LayerSpec, MixerSpec, ModelSpec, MoeSpec, NormPlacement, NormSpec, Pooling,
    QkNormSpec, Window,
};

/// Rotary embedding of the layers that see a window only.
#[derive(Clone, Copy, Debug)]
pub(super) enum LocalRope {
    /// As the others.
    Same,
    /// Without scaling; with this base where the file gives none, or the others'.
    Unscaled(Option<f32>),
}

/// Weights of norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NormWeights {
    /// In the file.
    Stored,
    /// All one.
    Ones,
}

/// The meaning of `logit_scale`.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogitScale {
    /// Logits are divided by it.
    Divides,
    /// Logits are multiplied by it.
    Multiplies,
}

/// Properties that all models of a family share, and its defaults for keys that a file lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense {
    /// Places of the norms. Without a norm before the feed-forward network in its file, a layer of [`NormPlacement::PRE`] is parallel.
    pub(super) norms: NormPlacement,
    /// Name in files of the norm before the feed-forward network.
    pub(super) ffn_norm: &'static str,
    /// Kind of all norms.
    pub(super) norm: NormKind,
    /// Weights of all norms.
    pub(super) norm_weights: NormWeights,
    /// Span of the norms of queries and keys, where a file has them.
    pub(super) qk_norm: QkNormSpec,
    /// Pairs of the rotary embedding; `None`: positions have learned embeddings, or none.
    pub(super) rope: Option<RopePairing>,
    /// Base of the rotary embedding where the file has none: transformers' for the family.
    pub(super) rope_base: f32,
    /// Layers with a rotary embedding, by their number and whether they see a window only, where the file does not say.
    pub(super) rotates: fn(u32, bool) -> bool,
    /// Of the feed-forward network.
    pub(super) activation: Activation,
    /// Gate and up instead of up alone.
    pub(super) gated: bool,
    /// Tokens see only those before them, where the file does not say.
    pub(super) causal: bool,
    /// Embeddings grow by the square root of their width.
    pub(super) scaled_embedding: bool,
    /// Length of the window where the file has none; 0: no window.
    pub(super) default_window: u32,
    /// Layers that see a window only, where there is one and the file does not say which.
    pub(super) windowed: fn(u32) -> bool,
    /// Rotary embedding of those layers.
    pub(super) local_rope: LocalRope,
    /// The meaning of `logit_scale`.
    pub(super) logit_scale: LogitScale,
    /// Soft caps of scores and logits where the file has none.
    pub(super) caps: (f32, f32),
    /// The model with this many layers divides scores by the square root of the width per head, not of the head.
    pub(super) scores_by_width: Option<u32>,
    /// How a layer with a router chooses its experts, in families that have such layers.
    pub(super) mixture: Option<Mixture>,
}

/// Of [`Dense::windowed`]: every layer.
pub(super) fn every_layer(_: u32) -> bool {
    true
}

/// Of [`Dense::windowed`]: the last of four layers sees everything.
pub(super) fn all_but_each_fourth(layer: u32) -> bool {
    !(layer + 1).is_multiple_of(4)
}

impl Dense {
    /// The spec of a checkpoint.
    ///
    /// # Errors
    /// When a key is missing, a value makes no sense, or the model needs something that the engine does not do.
    pub(super) fn spec(&self, header: &Header<'_>) -> Result<ModelSpec> {
        // Embedding models made of decoders see both ways.
        let causal = header.flag("attention.causal")?.unwrap_or(self.causal);
        Self { causal, ..*self }.read(header)
    }

    fn read(&self, header: &Header<'_>) -> Result<ModelSpec> {
        if let Some(experts) = header.integer("expert_count")?.filter(|n| *n != 0 && self.mixture.is_none()) {
            return Err(EngineError::Unsupported {
                what: "mixture of experts",
                value: format!("{experts} experts"),
                supported: "dense models of this family".to_owned(),
            });
        }
        let eps = match self.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let dim = header.size("embedding_length", MAX_DIM)?;
        let scale = if self.scaled_embedding { (dim as f32).sqrt() } else { 1.0 };
        let context = header.size("context_length", MAX_CONTEXT)?;
        Ok(ModelSpec {
            name: header.metadata().str_opt("general.name")?.unwrap_or(header.family).to_owned(),
            family: header.family,
            dim,
            vocab: header.need_rows("token_embd.weight")?,
            context,
            norm: NormSpec {
                kind: self.norm,
                eps: header.metadata().f32(&header.key(eps))?,
                weighted: self.norm_weights == NormWeights::Stored,
            },
            embedding: EmbeddingSpec {
                scale: header.factor("embedding_scale")?.unwrap_or(scale),
                positions: header.rows("position_embd.weight"),
                token_types: header.rows("token_types.weight"),
                norm: header.has("token_embd_norm.weight"),
            },
            layers: self.layers(header, dim, context)?,
            head: self.head(header)?,
        })
    }

    fn layers(&self, header: &Header<'_>, dim: u32, context: u32) -> Result<Vec<LayerSpec>> {
        let layers = header.size("block_count", MAX_LAYERS)?;
        let need = |suffix: &str| -> Result<Vec<u32>> {
            let sizes = header.layer_sizes(suffix, layers, MAX_DIM)?;
            Ok(sizes.ok_or_else(|| crate::formats::FormatError::MissingKey { key: header.key(suffix) })?)
        };
        let mixture = self.mixture.map(|mixture| mixture.spec(header, self.activation)).transpose()?.flatten();
        let heads = need("attention.head_count")?;
        let kv_heads = header.layer_sizes("attention.head_count_kv", layers, MAX_DIM)?.unwrap_or_else(|| heads.clone());
        // Where all layers are mixtures some files state the width of an expert alone.
        let widths = match (header.layer_sizes("feed_forward_length", layers, MAX_DIM)?, &mixture) {
            (Some(widths), _) => widths,
            (None, Some(moe)) => vec![moe.width; layers as usize],
            (None, None) => need("feed_forward_length")?,
        };
        let windows = self.windows(header, layers)?;
        let length = |suffix: &str, default: u32| header.within(suffix, header.integer(suffix)?.unwrap_or(default), MAX_HEAD_DIM);
        // Without the key heads share the width: those of the first layer, as in llama.cpp.
        let key_dim = length("attention.key_length", dim / heads[0])?;
        let value_dim = length("attention.value_length", key_dim)?;
        let global = self.rope.map(|pairing| rope::global(header, pairing, self.rope_base, key_dim, context)).transpose()?;
        let local = match (&global, self.local_rope) {
            (Some(global), LocalRope::Unscaled(base)) => Some(rope::local(header, global, base)?),
            _ => global.clone(),
        };
        let rotates = header.layer_flags("attention.rope_pattern", layers)?;
        let is_pre_norm = self.norm_weights == NormWeights::Stored && self.norms == NormPlacement::PRE;
        let states_parallel = header.flag("use_parallel_residual")?.unwrap_or(false);
        let residual_scale = header.factor("residual_scale")?.unwrap_or(1.0);
        let scale = header.factor("attention.scale")?;
        let cap = header.number("attn_logit_softcapping")?.unwrap_or(self.caps.0);
        let layer = |i: u32| {
            let heads = heads[i as usize];
            let window = windows[i as usize];
            let has = |part: &str| header.has(&format!("blk.{i}.{part}.weight"));
            let rope: Option<&RopeSpec> = if window > 0 { local.as_ref() } else { global.as_ref() };
            let score_dim = if self.scores_by_width == Some(layers) { dim / heads } else { key_dim };
            LayerSpec {
                norms: self.norms,
                ffn_norm: self.ffn_norm,
                parallel: states_parallel || is_pre_norm && !has(self.ffn_norm),
                mixer: MixerSpec::Attention(AttentionSpec {
                    heads,
                    kv_heads: kv_heads[i as usize],
                    key_dim,
                    value_dim,
                    rope: rope
                        .filter(|_| rotates.as_ref().map_or_else(|| (self.rotates)(i, window > 0), |flags| flags[i as usize]))
                        .cloned(),
                    window: self.window(window),
                    qk_norm: (has("attn_q_norm") || has("attn_k_norm")).then_some(self.qk_norm),
                    sub_norm: has("attn_sub_norm"),
                    scale: scale.unwrap_or(1.0 / (score_dim as f32).sqrt()),
                    cap,
                    sinks: has("attn_sinks"),
                }),
                ffn: match mixture.filter(|_| has("ffn_gate_inp")) {
                    Some(moe) => {
                        let selection_bias = header.has(&format!("blk.{i}.exp_probs_b.bias"));
                        FfnSpec::Moe(MoeSpec { selection_bias, shared: moe.shared.filter(|_| has("ffn_down_shexp")), ..moe })
                    }
                    None => FfnSpec::Dense(DenseSpec {
                        width: widths[i as usize],
                        activation: self.activation,
                        xielu: None,
                        gated: self.gated,
                        sub_norm: has("ffn_sub_norm"),
                    }),
                },
                residual_scale,
            }
        };
        Ok((0..layers).map(layer).collect())
    }

    /// Positions that a layer sees through a window of the file's length; 0: all. An encoder's lies around a token, half of it on each
    /// side.
    fn window(&self, length: u32) -> Window {
        match (self.causal, length) {
            (true, 0) => Window { left: None, right: Some(0) },
            (true, _) => Window { left: Some(length), right: Some(0) },
            (false, 0) => Window { left: None, right: None },
            (false, _) => Window { left: Some(length / 2 + 1), right: Some(length / 2) },
        }
    }

    /// The length of each layer's window; 0: it sees everything.
    fn windows(&self, header: &Header<'_>, layers: u32) -> Result<Vec<u32>> {
        let window = header.integer("attention.sliding_window")?.unwrap_or(self.default_window);
        let pattern = "attention.sliding_window_pattern";
        let windowed: Vec<bool> = if let Some(flags) = header.layer_flags(pattern, layers)? {
            flags
        } else if let Some(period) = header.integer(pattern)? {
            (0..layers).map(|i| period == 0 || !(i + 1).is_multiple_of(period)).collect()
        } else {
            (0..layers).map(self.windowed).collect()
        };
        Ok(windowed.into_iter().map(|windowed| if windowed { window } else { 0 }).collect())
    }

    fn head(&self, header: &Header<'_>) -> Result<HeadSpec> {
        let pooling = match header.integer("pooling_type")? {
            None | Some(0) if self.causal => None,
            None | Some(0 | 1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::First),
            Some(3) => Some(Pooling::Last),
            Some(other) => {
                return Err(EngineError::Unsupported {
                    what: "pooling_type",
                    value: other.to_string(),
                    supported: "1 (mean), 2 (first token), 3 (last token)".to_owned(),
                });
            }
        };
        Ok(HeadSpec {
            norm: self.norms != NormPlacement::RESIDUAL,
            tied: !header.has("output.weight"),
            scale: header.factor("logit_scale")?.map_or(1.0, |scale| match self.logit_scale {
                LogitScale::Divides => 1.0 / scale,
                LogitScale::Multiplies => scale,
            }),
            cap: header.number("final_logit_softcapping")?.unwrap_or(self.caps.1),
            pooling,
            dense: if header.has("dense_2.weight") { Some(header.need_rows("dense_2.weight")?) } else { None },
        })
    }
}
