//! The decoder and encoder families as data: one forward pass (`transformer.rs`) serves all of them.
//!
//! Names and defaults are those that llama.cpp's converter writes and its loader assumes; what a model computes is what its
//! implementation in Hugging Face transformers computes. Whether there are biases, QK-norm, fused or separate projections, and
//! output weights of their own is read from the tensors that a file has.

use crate::kernels::{Activation, NormKind, RopePairing};

/// Where the norms of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `x += f(norm(x))` (Llama, GPT-2). Without a norm before the feed-forward network, that network and attention read the
    /// same `norm(x)` and are both added to x (`GPT-J`'s parallel block).
    PreNorm,
    /// `x += norm(f(norm(x)))` (Gemma 2).
    Sandwich,
    /// `x += norm(f(x))` (`OLMo` 2).
    PostNorm,
    /// `x = norm(x + f(x))` (BERT).
    ResidualNorm,
}

/// Which layers see a window only, where the file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowPattern {
    /// All, when there is a window.
    All,
    /// All but each n-th.
    AllButEach(u32),
}

/// Rotary embedding of the layers that see a window only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalRope {
    /// As the others.
    Same,
    /// Without scaling; with this base where the file gives none, or the others'.
    Unscaled(Option<f32>),
}

/// What all models of a family have in common.
#[derive(Debug, PartialEq)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Places of the norms.
    pub block: Block,
    /// Kind of all norms but QK-norm's.
    pub norm: NormKind,
    /// Pairs of the rotary embedding; `None`: learned embeddings of positions.
    pub rope: Option<RopePairing>,
    /// Base of the rotary embedding where the file has none: transformers' for the family.
    pub rope_base: f32,
    /// Each n-th layer has no rotary embedding; 0: all have.
    pub unrotated_every: u32,
    /// Of the feed-forward network.
    pub activation: Activation,
    /// Gate and up instead of up alone.
    pub gated: bool,
    /// Tokens see only those before them.
    pub causal: bool,
    /// Embeddings grow by the square root of their width.
    pub scaled_embedding: bool,
    /// Layers with a window.
    pub window: WindowPattern,
    /// Rotary embedding of the layers with a window.
    pub local_rope: LocalRope,
    /// Soft caps of scores and logits where the file has none.
    pub caps: (f32, f32),
    /// The model with this many layers divides scores by the square root of the width per head, not of the head.
    pub scores_by_width: Option<u32>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    block: Block::PreNorm,
    norm: NormKind::Rms,
    rope: Some(RopePairing::Neighbours),
    rope_base: 10_000.0,
    unrotated_every: 0,
    activation: Activation::Silu,
    gated: true,
    causal: true,
    scaled_embedding: false,
    window: WindowPattern::All,
    local_rope: LocalRope::Same,
    caps: (0.0, 0.0),
    scores_by_width: None,
};

const QWEN: Architecture = Architecture { name: "qwen2", rope: Some(RopePairing::Halves), ..LLAMA };

const GEMMA: Architecture = Architecture { name: "gemma", activation: Activation::GeluTanh, scaled_embedding: true, ..QWEN };

const GEMMA_3: Architecture = Architecture {
    name: "gemma3",
    block: Block::Sandwich,
    rope_base: 1_000_000.0,
    window: WindowPattern::AllButEach(6),
    local_rope: LocalRope::Unscaled(Some(10_000.0)),
    scores_by_width: Some(62),
    ..GEMMA
};

const BERT: Architecture = Architecture {
    name: "bert",
    block: Block::ResidualNorm,
    norm: NormKind::Layer,
    rope: None,
    activation: Activation::Gelu,
    gated: false,
    causal: false,
    ..LLAMA
};

/// Every architecture that the engine runs.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "mistral3", ..LLAMA },
    Architecture { name: "smollm3", unrotated_every: 4, rope_base: 2_000_000.0, ..LLAMA },
    Architecture { name: "granite", ..LLAMA },
    QWEN,
    Architecture { name: "qwen3", ..QWEN },
    Architecture { name: "phi3", ..QWEN },
    Architecture {
        name: "olmo2",
        block: Block::PostNorm,
        window: WindowPattern::AllButEach(4),
        local_rope: LocalRope::Unscaled(None),
        ..QWEN
    },
    GEMMA,
    Architecture {
        name: "gemma2",
        block: Block::Sandwich,
        window: WindowPattern::AllButEach(2),
        caps: (50.0, 30.0),
        scores_by_width: Some(46),
        ..GEMMA
    },
    GEMMA_3,
    Architecture { name: "gemma-embedding", causal: false, scores_by_width: None, ..GEMMA_3 },
    Architecture { name: "stablelm", norm: NormKind::Layer, ..QWEN },
    Architecture { name: "falcon", norm: NormKind::Layer, activation: Activation::Gelu, gated: false, ..QWEN },
    Architecture { name: "gpt2", norm: NormKind::Layer, rope: None, activation: Activation::GeluTanh, gated: false, ..LLAMA },
    BERT,
    Architecture { name: "nomic-bert", rope: Some(RopePairing::Halves), activation: Activation::Silu, gated: true, ..BERT },
];

impl Architecture {
    /// The architecture of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        ARCHITECTURES.iter().map(|a| a.name).collect::<Vec<_>>().join(", ")
    }
}
