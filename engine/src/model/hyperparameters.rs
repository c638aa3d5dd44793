//! A model's shape, read from GGUF metadata.

use super::architecture::{Architecture, LocalRope, WindowPattern};
use super::rope::RopeTable;
use crate::error::{EngineError, Result};
use crate::formats::{Checkpoint, Metadata, Value};
use crate::kernels::{KvFormat, NormKind, RopePairing, Temperature};

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Leading elements of a head that turn.
    pub rotated: u32,
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Frequencies.
    pub table: RopeTable,
    /// Frequencies of the layers that see a window only.
    pub local: RopeTable,
    /// Positions of pre-training: longer contexts use the long ones of `LongRoPE`'s factors (Ding et al. 2024).
    pub original_context: u32,
    /// Growth of queries with position.
    pub temperature: Option<Temperature>,
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

/// What a model is made of. A file may state for each layer what is the same for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Name for people, or the architecture's.
    pub name: String,
    /// Its family.
    pub architecture: &'static Architecture,
    /// Blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Width of the feed-forward network.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Positions the model was trained for.
    pub context: u32,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Rotary embedding; `None`: learned embeddings of positions.
    pub rope: Option<Rope>,
    /// Positions that attention sees in each layer; 0: all.
    pub windows: Vec<u32>,
    /// Factor on the scores of attention.
    pub attention_scale: f32,
    /// Soft cap on the scores; 0: none.
    pub attention_cap: f32,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Factor on what a branch adds to the residual stream.
    pub residual_scale: f32,
    /// Factor on the logits.
    pub logit_scale: f32,
    /// Soft cap on the logits; 0: none.
    pub logit_cap: f32,
    /// Where the model makes embeddings of texts.
    pub pooling: Option<Pooling>,
}

/// Bounds beyond any real model, so that a lying header cannot make sizes overflow.
const MAX_DIM: u32 = 1 << 18;
const MAX_LAYERS: u32 = 1 << 10;
const MAX_HEAD_DIM: u32 = 1 << 10;
/// Positions of a context at the most.
pub(crate) const MAX_CONTEXT: u32 = 1 << 20;

impl Hyperparameters {
    /// Reads and checks them.
    ///
    /// # Errors
    /// When a key is missing, a value makes no sense, or the model needs something that the engine does not do.
    pub fn from_gguf(checkpoint: &Checkpoint) -> Result<Self> {
        let meta = &checkpoint.metadata;
        let name = meta.str("general.architecture")?;
        let architecture = Architecture::find(name).ok_or_else(|| EngineError::Unsupported {
            what: "architecture",
            value: name.to_owned(),
            supported: Architecture::names(),
        })?;
        let key = |suffix: &str| format!("{name}.{suffix}");
        if let Some(experts) = meta.u32_opt(&key("expert_count"))?.filter(|n| *n != 0) {
            return Err(EngineError::Unsupported {
                what: "mixture of experts",
                value: format!("{experts} experts"),
                supported: "dense models".to_owned(),
            });
        }
        let number = |suffix: &str| -> Result<Option<f32>> { Ok(meta.f32_opt(&key(suffix))?) };

        let layers = bounded(meta, &key("block_count"), MAX_LAYERS)?;
        let dim = bounded(meta, &key("embedding_length"), MAX_DIM)?;
        let context = bounded(meta, &key("context_length"), MAX_CONTEXT)?;
        let heads = bounded(meta, &key("attention.head_count"), MAX_DIM)?;
        let kv_heads = meta.uniform_u32_opt(&key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = meta.u32_opt(&key("attention.key_length"))?.unwrap_or(dim / heads);
        let value_length = meta.u32_opt(&key("attention.value_length"))?.unwrap_or(head_dim);
        let checks = [
            (kv_heads > 0 && heads.is_multiple_of(kv_heads.max(1)), "attention.head_count_kv", "must divide the number of heads"),
            (head_dim > 0 && head_dim <= MAX_HEAD_DIM && head_dim.is_multiple_of(4), "attention.key_length", "must be a multiple of 4"),
            (value_length == head_dim, "attention.value_length", "must equal the key length"),
            (dim.is_multiple_of(8), "embedding_length", "must be a multiple of 8"),
        ];
        for (holds, field, problem) in checks {
            if !holds {
                return Err(EngineError::Unsupported { what: "model shape", value: key(field), supported: format!("it {problem}") });
            }
        }
        let vocab = checkpoint
            .tensor("token_embd.weight")?
            .shape
            .get(1)
            .copied()
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| EngineError::Tensor { name: "token_embd.weight".to_owned(), problem: "is not a matrix".to_owned() })?;
        let eps = match architecture.norm {
            NormKind::Rms => meta.f32(&key("attention.layer_norm_rms_epsilon"))?,
            NormKind::Layer => meta.f32(&key("attention.layer_norm_epsilon"))?,
        };
        let score_dim = if architecture.scores_by_width == Some(layers) { dim / heads } else { head_dim };
        let embedding_scale = if architecture.scaled_embedding { (dim as f32).sqrt() } else { 1.0 };
        let caps = architecture.caps;
        Ok(Self {
            name: meta.str_opt("general.name")?.unwrap_or(name).to_owned(),
            architecture,
            layers,
            dim,
            feed_forward: bounded(meta, &key("feed_forward_length"), MAX_DIM)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context,
            eps,
            rope: architecture.rope.map(|pairing| rope(meta, architecture, pairing, head_dim, context)).transpose()?,
            windows: windows(meta, architecture, layers)?,
            attention_scale: number("attention.scale")?.filter(|s| *s != 0.0).unwrap_or(1.0 / (score_dim as f32).sqrt()),
            attention_cap: number("attn_logit_softcapping")?.unwrap_or(caps.0),
            embedding_scale: number("embedding_scale")?.filter(|s| *s != 0.0).unwrap_or(embedding_scale),
            residual_scale: number("residual_scale")?.filter(|s| *s != 0.0).unwrap_or(1.0),
            logit_scale: number("logit_scale")?.filter(|s| *s != 0.0).map_or(1.0, |s| 1.0 / s),
            logit_cap: number("final_logit_softcapping")?.unwrap_or(caps.1),
            pooling: pooling(meta, architecture)?,
        })
    }

    /// Elements of a row of queries, keys and values together.
    pub fn qkv_dim(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Bytes that one position takes in the cache over all layers.
    pub fn kv_bytes_per_position(&self, kv: KvFormat) -> u64 {
        2 * u64::from(self.layers) * u64::from(self.kv_heads) * 4 * u64::from(kv.head_words(self.head_dim))
    }

    /// Whether layer `i` turns queries and keys.
    pub fn rotates(&self, i: u32) -> bool {
        let every = self.architecture.unrotated_every;
        every == 0 || !(i + 1).is_multiple_of(every)
    }
}

fn bounded(meta: &Metadata, key: &str, maximum: u32) -> Result<u32> {
    let value = meta.uniform_u32(key)?;
    if value == 0 || value > maximum {
        return Err(EngineError::Unsupported {
            what: "model shape",
            value: format!("{key} = {value}"),
            supported: format!("1 to {maximum}"),
        });
    }
    Ok(value)
}

fn rope(meta: &Metadata, architecture: &Architecture, pairing: RopePairing, head_dim: u32, context: u32) -> Result<Rope> {
    let name = architecture.name;
    let rotated = meta.u32_opt(&format!("{name}.rope.dimension_count"))?.unwrap_or(head_dim);
    if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(2) {
        return Err(EngineError::Unsupported {
            what: "rope.dimension_count",
            value: rotated.to_string(),
            supported: format!("even numbers up to {head_dim}"),
        });
    }
    let original_context = meta.u32_opt(&format!("{name}.rope.scaling.original_context_length"))?.unwrap_or(context);
    let table = RopeTable::from_gguf(meta, name, original_context, architecture.rope_base)?;
    let local_base = meta.f32_opt(&format!("{name}.rope.freq_base_swa"))?;
    let growth = meta.f32_opt(&format!("{name}.attention.temperature_scale"))?.unwrap_or(0.0);
    let span = meta.u32_opt(&format!("{name}.attention.temperature_length"))?.unwrap_or(original_context).max(1);
    if growth != 0.0 && rotated != head_dim {
        return Err(EngineError::Unsupported {
            what: "attention temperature",
            value: format!("{rotated} rotated of {head_dim}"),
            supported: "heads that turn as a whole".to_owned(),
        });
    }
    Ok(Rope {
        rotated,
        // Checkpoints from safetensors keep the order of Hugging Face.
        pairing: match meta.str_opt("doppler.rope.pairing")? {
            Some("halves") => RopePairing::Halves,
            _ => pairing,
        },
        table,
        local: match architecture.local_rope {
            LocalRope::Same => table,
            LocalRope::Unscaled(default) => RopeTable::unscaled(local_base.or(default).unwrap_or(table.base)),
        },
        original_context,
        temperature: (growth != 0.0).then_some(Temperature { growth, span: span as f32 }),
    })
}

/// The window of each layer.
fn windows(meta: &Metadata, architecture: &Architecture, layers: u32) -> Result<Vec<u32>> {
    let window = meta.u32_opt(&format!("{}.attention.sliding_window", architecture.name))?.unwrap_or(0);
    let pattern = format!("{}.attention.sliding_window_pattern", architecture.name);
    let each = |period: u32| move |i: u32| if period == 0 || !(i + 1).is_multiple_of(period) { window } else { 0 };
    Ok(match meta.get(&pattern) {
        None => match architecture.window {
            WindowPattern::All => vec![window; layers as usize],
            WindowPattern::AllButEach(n) => (0..layers).map(each(n)).collect(),
        },
        Some(Value::Array(_)) => {
            let local = meta.bool_array(&pattern)?;
            if local.len() != layers as usize {
                return Err(EngineError::Unsupported {
                    what: "sliding_window_pattern",
                    value: format!("{} entries", local.len()),
                    supported: format!("one for each of the {layers} layers"),
                });
            }
            local.iter().map(|local| if *local { window } else { 0 }).collect()
        }
        Some(_) => (0..layers).map(each(meta.u32(&pattern)?)).collect(),
    })
}

fn pooling(meta: &Metadata, architecture: &Architecture) -> Result<Option<Pooling>> {
    let pooling = meta.u32_opt(&format!("{}.pooling_type", architecture.name))?;
    match pooling {
        None | Some(0) if architecture.causal => Ok(None),
        None | Some(0 | 1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::First)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => Err(EngineError::Unsupported {
            what: "pooling_type",
            value: other.to_string(),
            supported: "1 (mean), 2 (first token), 3 (last token)".to_owned(),
        }),
    }
}
