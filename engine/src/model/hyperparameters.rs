//! A model's shape, read from GGUF metadata.

use crate::error::{EngineError, Result};
use crate::formats::{Checkpoint, Metadata};
use crate::kernels::RopePairing;

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Leading elements of a head that turn.
    pub rotated: u32,
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Base of the frequencies.
    pub base: f32,
    /// Positions are divided by this (linear scaling); 1: none.
    pub linear_factor: f32,
}

/// What a decoder of the llama family is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Name for people, or the architecture's.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Width of the gated feed-forward network.
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
    /// Position embedding.
    pub rope: Rope,
    /// Positions that attention sees; 0: all.
    pub window: u32,
}

/// Bounds beyond any real model, so that a lying header cannot make sizes overflow.
const MAX_DIM: u32 = 1 << 18;
const MAX_LAYERS: u32 = 1 << 10;
const MAX_HEAD_DIM: u32 = 1 << 10;
const MAX_CONTEXT: u32 = 1 << 24;

impl Hyperparameters {
    /// Reads and checks them.
    ///
    /// # Errors
    /// When a key is missing, a value makes no sense, or the model needs something that the engine does not do.
    pub fn from_gguf(checkpoint: &Checkpoint) -> Result<Self> {
        let meta = &checkpoint.metadata;
        let architecture = meta.str("general.architecture")?.to_owned();
        if architecture != "llama" {
            return Err(EngineError::Unsupported { what: "architecture", value: architecture, supported: "llama".to_owned() });
        }
        let key = |suffix: &str| format!("{architecture}.{suffix}");
        refuse(meta, &key("expert_count"), "mixture of experts", |v| v != 0)?;

        let dim = bounded(meta, &key("embedding_length"), MAX_DIM)?;
        let heads = bounded(meta, &key("attention.head_count"), MAX_DIM)?;
        let kv_heads = optional(meta, &key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = match optional(meta, &key("attention.key_length"))? {
            Some(length) => length,
            None => dim / heads,
        };
        let value_length = optional(meta, &key("attention.value_length"))?.unwrap_or(head_dim);
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
        let rotated = optional(meta, &key("rope.dimension_count"))?.unwrap_or(head_dim);
        if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(4) {
            return Err(EngineError::Unsupported {
                what: "rope.dimension_count",
                value: rotated.to_string(),
                supported: format!("multiples of 4 up to {head_dim}"),
            });
        }
        let rope = Rope {
            rotated,
            pairing: RopePairing::Neighbours,
            base: meta.f32_opt(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            linear_factor: linear_factor(meta, &architecture)?,
        };
        let vocab = checkpoint
            .tensor("token_embd.weight")?
            .shape
            .get(1)
            .copied()
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| EngineError::Tensor { name: "token_embd.weight".to_owned(), problem: "is not a matrix".to_owned() })?;
        Ok(Self {
            name: meta.str_opt("general.name")?.unwrap_or(&architecture).to_owned(),
            layers: bounded(meta, &key("block_count"), MAX_LAYERS)?,
            dim,
            feed_forward: bounded(meta, &key("feed_forward_length"), MAX_DIM)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context: bounded(meta, &key("context_length"), MAX_CONTEXT)?,
            eps: meta.f32(&key("attention.layer_norm_rms_epsilon"))?,
            rope,
            window: optional(meta, &key("attention.sliding_window"))?.unwrap_or(0),
            architecture,
        })
    }

    /// Elements of a row of queries, keys and values together.
    pub fn qkv_dim(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Bytes that one position takes in the cache over all layers.
    pub fn kv_bytes_per_position(&self, element_bytes: u64) -> u64 {
        2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head_dim) * element_bytes
    }
}

fn optional(meta: &Metadata, key: &str) -> Result<Option<u32>> {
    Ok(meta.u32_opt(key)?)
}

fn bounded(meta: &Metadata, key: &str, maximum: u32) -> Result<u32> {
    let value = meta.u32(key)?;
    if value == 0 || value > maximum {
        return Err(EngineError::Unsupported {
            what: "model shape",
            value: format!("{key} = {value}"),
            supported: format!("1 to {maximum}"),
        });
    }
    Ok(value)
}

fn refuse(meta: &Metadata, key: &str, what: &'static str, refused: impl Fn(u32) -> bool) -> Result<()> {
    match optional(meta, key)? {
        Some(value) if refused(value) => {
            Err(EngineError::Unsupported { what, value: format!("{key} = {value}"), supported: "dense models".to_owned() })
        }
        _ => Ok(()),
    }
}

fn linear_factor(meta: &Metadata, architecture: &str) -> Result<f32> {
    let key = format!("{architecture}.rope.scaling.type");
    match meta.str_opt(&key)? {
        None | Some("none") => Ok(1.0),
        Some("linear") => Ok(meta.f32_opt(&format!("{architecture}.rope.scaling.factor"))?.unwrap_or(1.0)),
        Some(other) => Err(EngineError::Unsupported {
            what: "rope scaling",
            value: other.to_owned(),
            supported: "none, linear, and llama 3's frequency factors".to_owned(),
        }),
    }
}
