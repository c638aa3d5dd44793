//! A model as plain data: the computation of each layer, read from a checkpoint by its family ([`super::families`]) and recorded
//! as kernels by [`super::Model`].
//!
//! Sizes are in elements. Layers may differ in everything that a [`LayerSpec`] holds. A new kind of layer is a variant of
//! [`MixerSpec`] or [`FfnSpec`].

use super::rope::RopeSpec;
use crate::error::{EngineError, Result};
use crate::kernels::{Activation, KvFormat, NormKind, TopK, XieluParameters};

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Name for people, or the family's.
    pub name: String,
    /// `general.architecture`.
    pub family: &'static str,
    /// Width of the residual stream.
    pub dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Positions the model was trained for.
    pub context: u32,
    /// Kind and epsilon of all norms.
    pub norm: NormSpec,
    /// From tokens to the residual stream.
    pub embedding: EmbeddingSpec,
    /// The layers in order; at least one.
    pub layers: Vec<LayerSpec>,
    /// From the residual stream to logits or the embedding of a text.
    pub head: HeadSpec,
}

/// Kind and epsilon of a norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Root mean square or layer norm.
    pub kind: NormKind,
    /// Epsilon.
    pub eps: f32,
    /// What is normalized is multiplied by weights.
    pub weighted: bool,
}

/// From tokens to the residual stream: `norm(scale * token + position + type)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// Factor on the embeddings of tokens.
    pub scale: f32,
    /// Rows of a table of learned positions.
    pub positions: Option<u32>,
    /// Rows of a table of token types, of which the first is added.
    pub token_types: Option<u32>,
    /// The sum is normalized.
    pub norm: bool,
}

/// One layer: a mixer, which exchanges data between positions, and a feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Norms around mixer and feed-forward network.
    pub norms: NormPlacement,
    /// Name in files of the norm before the feed-forward network.
    pub ffn_norm: &'static str,
    /// The feed-forward network reads the layer's input instead of the sum behind the mixer (GPT-J's parallel layer).
    pub parallel: bool,
    /// The part that exchanges data between positions.
    pub mixer: MixerSpec,
    /// The feed-forward network.
    pub ffn: FfnSpec,
    /// Factor on what mixer and feed-forward network add to the residual stream.
    pub residual_scale: f32,
}

/// Where a layer normalizes, for `f` the mixer or the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPlacement {
    /// `f` reads `norm(x)` instead of x.
    pub input: bool,
    /// The norm behind `f`.
    pub output: OutputNorm,
}

/// The norm behind a mixer or a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputNorm {
    /// Nothing: `x + f`.
    None,
    /// The output: `x + norm(f)`.
    Branch,
    /// The sum: `norm(x + f)`.
    Sum,
}

impl NormPlacement {
    /// `x += f(norm(x))` (Llama, GPT-2).
    pub const PRE: Self = Self { input: true, output: OutputNorm::None };
    /// `x += norm(f(norm(x)))` (Gemma 2).
    pub const SANDWICH: Self = Self { input: true, output: OutputNorm::Branch };
    /// `x += norm(f(x))` (`OLMo` 2).
    pub const POST: Self = Self { input: false, output: OutputNorm::Branch };
    /// `x = norm(x + f(x))` (BERT).
    pub const RESIDUAL: Self = Self { input: false, output: OutputNorm::Sum };
}

/// The part of a layer that exchanges data between positions.
#[derive(Clone, Debug, PartialEq)]
pub enum MixerSpec {
    /// Attention with keys and values of all positions in the cache.
    Attention(AttentionSpec),
}

/// Attention with queries in groups (Ainslie et al. 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head of queries and keys.
    pub key_dim: u32,
    /// Elements of a head of values.
    pub value_dim: u32,
    /// Rotary position embedding, where the layer has one.
    pub rope: Option<RopeSpec>,
    /// Positions that a query sees.
    pub window: Window,
    /// Norms of queries and keys, where the layer has them.
    pub qk_norm: Option<QkNormSpec>,
    /// The heads' values are normalized together before they are multiplied by the output's matrix.
    pub sub_norm: bool,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap on the scores; 0: none.
    pub cap: f32,
    /// A sink for each head: a score that takes weight and has no value (gpt-oss).
    pub sinks: bool,
}

/// Positions that a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The nearest so many up to its own, which counts; `None`: all.
    pub left: Option<u32>,
    /// The nearest so many behind its own; `None`: all.
    pub right: Option<u32>,
}

/// Elements that a norm of queries and keys normalizes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNormSpec {
    /// Each head alone.
    Head,
    /// All heads of a position together (`OLMo` 2).
    Row,
    /// Each head alone, behind its rotation (Hunyuan).
    RotatedHead,
}

/// A layer's feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub enum FfnSpec {
    /// The same weights for all tokens.
    Dense(DenseSpec),
    /// Those of some experts for each token.
    Moe(MoeSpec),
}

/// A mixture of experts (Shazeer et al. 2017), each of them gated: `sum of weight * down(activation(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeSpec {
    /// The choice of experts.
    pub top_k: TopK,
    /// A bias of the scores, for the choice only.
    pub selection_bias: bool,
    /// Width of an expert's hidden layer.
    pub width: u32,
    /// Activation.
    pub activation: Activation,
    /// An expert that all tokens have.
    pub shared: Option<SharedExpert>,
}

/// An expert that all tokens have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedExpert {
    /// The network.
    pub dense: DenseSpec,
    /// Its output is multiplied by the sigmoid of a number for each token.
    pub gated: bool,
}

/// `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseSpec {
    /// Width of its hidden layer.
    pub width: u32,
    /// Activation.
    pub activation: Activation,
    /// The activation has parameters, which the layer has as its own.
    pub xielu: Option<XieluParameters>,
    /// Gate and up instead of up alone.
    pub gated: bool,
    /// The hidden layer is normalized before it is multiplied by the down matrix.
    pub sub_norm: bool,
}

/// From the residual stream to logits or the embedding of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSpec {
    /// The residual stream is normalized first.
    pub norm: bool,
    /// The matrix of the token embeddings gives the logits.
    pub tied: bool,
    /// Factor on the logits.
    pub scale: f32,
    /// Soft cap on the logits; 0: none.
    pub cap: f32,
    /// How one vector is made of a text, where the model embeds texts.
    pub pooling: Option<Pooling>,
    /// Width between the two matrices that the pooled vector is multiplied by.
    pub dense: Option<u32>,
}

/// How an encoder makes one vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Mean of all tokens.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
}

impl ModelSpec {
    /// The attention of each layer.
    pub fn attentions(&self) -> impl Iterator<Item = &AttentionSpec> {
        self.layers.iter().map(LayerSpec::attention)
    }

    /// Elements of a head; [`ModelSpec::check`] refuses models whose layers differ in it.
    pub fn head_dim(&self) -> u32 {
        self.layers.first().map_or(1, |layer| layer.attention().key_dim)
    }

    /// Tokens see none behind them: the model continues texts.
    pub fn is_causal(&self) -> bool {
        self.attentions().all(|attention| attention.window.right == Some(0))
    }

    /// Bytes that one position takes in the cache over all layers.
    pub fn kv_bytes_per_position(&self, kv: KvFormat) -> u64 {
        let bytes = |layer: &LayerSpec| match layer.state(kv) {
            StateSpec::Pages { bytes_per_position, .. } => bytes_per_position,
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Refuses what no kernel computes.
    ///
    /// # Errors
    /// With the size that is not supported, and what would be.
    pub fn check(&self) -> Result<()> {
        let refused = |what, value: String, supported: &str| Err(EngineError::Unsupported { what, value, supported: supported.to_owned() });
        if self.norm.kind == NormKind::Layer && self.row() != self.dim {
            let value = format!("{} with layer norms", self.dim);
            return refused("model width", value, "multiples of 8 with layer norms, any width with RMS norms");
        }
        for (i, layer) in self.layers.iter().enumerate() {
            // Their rows have no padding.
            let dense = layer.dense().map_or((false, 0), |dense| (dense.sub_norm, dense.width));
            let rows = [(layer.attention().sub_norm, layer.attention().output_row()), dense];
            if let Some((_, row)) = rows.iter().find(|(normalized, row)| *normalized && !(row | self.dim).is_multiple_of(8)) {
                return refused("width of a norm within a layer", format!("{row} in layer {i}"), "multiples of 8");
            }
            if let FfnSpec::Moe(moe) = &layer.ffn {
                moe.check(self.dim)?;
            }
            let attention = layer.attention();
            let AttentionSpec { heads, kv_heads, key_dim, value_dim, .. } = *attention;
            if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
                let value = format!("{kv_heads} for {heads} query heads in layer {i}");
                return refused("number of key and value heads", value, "divisors of the number of query heads");
            }
            if !key_dim.is_multiple_of(4) {
                return refused("head length", key_dim.to_string(), "multiples of 4");
            }
            if value_dim != key_dim {
                return refused("length of value heads", value_dim.to_string(), &format!("the length of key heads, {key_dim}"));
            }
            if key_dim != self.head_dim() {
                return refused("head length", format!("{key_dim} in layer {i}"), "one length in all layers");
            }
            let whole = attention.rope.as_ref().is_none_or(|rope| rope.rotated == key_dim);
            if attention.qk_norm == Some(QkNormSpec::RotatedHead) && !(whole && self.norm.kind == NormKind::Rms) {
                return refused("norms of rotated heads", format!("in layer {i}"), "RMS norms of heads that are rotated whole");
            }
            let partial = attention.rope.as_ref().filter(|rope| rope.temperature.is_some() && rope.rotated != key_dim);
            if let Some(rope) = partial {
                return refused("attention temperature", format!("{} rotated of {key_dim}", rope.rotated), "heads that are rotated whole");
            }
        }
        Ok(())
    }
}

impl MoeSpec {
    /// Refuses what no kernel computes.
    fn check(&self, dim: u32) -> Result<()> {
        let refused = |what, value: u32, supported: String| Err(EngineError::Unsupported { what, value: value.to_string(), supported });
        let TopK { experts, used, groups, groups_used, .. } = self.top_k;
        if !(1..=TopK::MAX_EXPERTS).contains(&experts) {
            return refused("number of experts", experts, format!("1 to {}", TopK::MAX_EXPERTS));
        }
        if !(1..=experts.min(TopK::MAX_USED)).contains(&used) {
            return refused("experts of a token", used, format!("1 to {}", experts.min(TopK::MAX_USED)));
        }
        if !(1..=TopK::MAX_GROUPS).contains(&groups) || !experts.is_multiple_of(groups) || !(1..=groups).contains(&groups_used) {
            return refused("groups of experts", groups, format!("divisors of {experts} up to {}", TopK::MAX_GROUPS));
        }
        // The best of the groups must be enough.
        if experts / groups * groups_used < used {
            return refused("groups of experts that are used", groups_used, format!("enough for {used} experts"));
        }
        if !self.width.is_multiple_of(8) || !dim.is_multiple_of(8) {
            return refused("width of experts", self.width, "multiples of 8 in a model whose width is one".to_owned());
        }
        Ok(())
    }
}

/// The state of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateSpec {
    /// Keys and values by position, in pages of [`PAGE`](crate::kernels::PAGE) positions.
    Pages {
        /// Bytes of keys and values together.
        bytes_per_position: u64,
        /// The nearest positions that a row sees, its own included; `None`: all.
        window: Option<u32>,
    },
}

impl LayerSpec {
    /// The layer's attention.
    pub fn attention(&self) -> &AttentionSpec {
        let MixerSpec::Attention(attention) = &self.mixer;
        attention
    }

    /// The network that all tokens have, where there is one.
    pub fn dense(&self) -> Option<&DenseSpec> {
        match &self.ffn {
            FfnSpec::Dense(dense) => Some(dense),
            FfnSpec::Moe(moe) => moe.shared.as_ref().map(|shared| &shared.dense),
        }
    }

    /// The state of the layer, with a cache of such elements.
    pub fn state(&self, kv: KvFormat) -> StateSpec {
        let attention = self.attention();
        StateSpec::Pages { bytes_per_position: 2 * attention.key_bytes_per_position(kv), window: attention.window.left }
    }
}

impl AttentionSpec {
    /// Elements of a row of queries.
    pub fn query_row(&self) -> u32 {
        self.heads * self.key_dim
    }

    /// Elements of a row of keys.
    pub fn key_row(&self) -> u32 {
        self.kv_heads * self.key_dim
    }

    /// Elements of a row of values.
    pub fn value_row(&self) -> u32 {
        self.kv_heads * self.value_dim
    }

    /// Elements of a row of queries, keys and values together.
    pub fn qkv_row(&self) -> u32 {
        self.query_row() + self.key_row() + self.value_row()
    }

    /// Elements of a row of the output.
    pub fn output_row(&self) -> u32 {
        self.heads * self.value_dim
    }

    /// Bytes that the keys of one position take in the cache, and its values as many.
    pub fn key_bytes_per_position(&self, kv: KvFormat) -> u64 {
        4 * u64::from(self.kv_heads) * u64::from(kv.head_words(self.key_dim))
    }
}
