//! Hugging Face's tensor names to GGUF's, and what the bytes need to become GGUF's.

use super::config::{Architecture, Sizes};
use super::json::Json;
use crate::formats::{DType, FormatError, TensorInfo, Transform};

/// (Hugging Face, GGUF), without `.weight` and `.bias`.
type Table = &'static [(&'static str, &'static str)];

/// The names of an architecture. [`PREFIXES`] are taken off before.
#[derive(Debug)]
pub(super) struct Names {
    /// Tensors that are there once.
    global: Table,
    /// What stands before a layer's number.
    layer_prefix: &'static str,
    /// Tensors of a layer, after its number.
    layer: &'static [Table],
    /// Beginnings and ends of names of tensors that nothing needs.
    ignored: &'static [&'static str],
}

/// What the classes around a model put in front of its names.
const PREFIXES: &[&str] = &["model.", "language_model.", "transformer.", "bert."];

const DECODER: Table = &[("embed_tokens", "token_embd"), ("norm", "output_norm"), ("lm_head", "output")];
const ATTENTION_AND_GATED: Table = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

pub(super) static LLAMA: Names = Names {
    global: DECODER,
    layer_prefix: "layers.",
    layer: &[ATTENTION_AND_GATED, &[("post_attention_layernorm", "ffn_norm")]],
    ignored: &["rotary_emb.inv_freq"],
};

/// Models that norm what attention and feed-forward put out.
pub(super) static POST_NORMS: Names = Names {
    layer: &[
        ATTENTION_AND_GATED,
        &[
            ("post_attention_layernorm", "post_attention_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ],
    ],
    ignored: &["rotary_emb.inv_freq", "vision_tower.", "multi_modal_projector."],
    ..LLAMA
};

pub(super) static FALCON: Names = Names {
    global: &[("word_embeddings", "token_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
    layer_prefix: "h.",
    layer: &[&[
        ("input_layernorm", "attn_norm"),
        ("ln_mlp", "attn_norm"),
        ("ln_attn", "attn_norm_2"),
        ("self_attention.query_key_value", "attn_qkv"),
        ("self_attention.dense", "attn_output"),
        ("mlp.dense_h_to_4h", "ffn_up"),
        ("mlp.dense_4h_to_h", "ffn_down"),
    ]],
    ignored: &["rotary_emb.inv_freq"],
};

pub(super) static GPT2: Names = Names {
    global: &[("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
    layer_prefix: "h.",
    layer: &[&[
        ("ln_1", "attn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("ln_2", "ffn_norm"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ]],
    // The causal mask.
    ignored: &[".attn.bias", ".attn.masked_bias"],
};

pub(super) static BERT: Names = Names {
    global: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
    ],
    layer_prefix: "encoder.layer.",
    layer: &[&[
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ]],
    // Heads for pretraining.
    ignored: &["embeddings.position_ids", "pooler.", "cls."],
};

impl Names {
    /// GGUF's name for the tensor `name`, [`PREFIXES`] already off.
    fn find(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        let kind = match kind {
            "weight" | "gamma" => "weight",
            "bias" | "beta" => "bias",
            _ => return None,
        };
        let lookup = |table: Table, stem: &str| table.iter().find(|(theirs, _)| *theirs == stem).map(|(_, ours)| *ours);
        if let Some(ours) = lookup(self.global, stem) {
            return Some(format!("{ours}.{kind}"));
        }
        let (layer, part) = stem.strip_prefix(self.layer_prefix)?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let ours = self.layer.iter().find_map(|table| lookup(table, part))?;
        Some(format!("blk.{layer}.{ours}.{kind}"))
    }
}

/// The tensors under GGUF's names and with GGUF's contents.
///
/// # Errors
/// When a tensor has no place in the architecture, or not the shape that its reordering needs.
pub(super) fn tensors(architecture: &Architecture, config: &Json, tensors: Vec<TensorInfo>) -> Result<Vec<TensorInfo>, FormatError> {
    // Some files have the output weights although they are the embedding.
    let default_tied = matches!(architecture.name, "gemma" | "gemma2" | "gemma3" | "gpt2" | "falcon");
    let tied = config.bool(&["tie_word_embeddings"])?.unwrap_or(default_tied);
    let sizes = Sizes::new(config, architecture)?;
    let mut out = Vec::with_capacity(tensors.len());
    for mut tensor in tensors {
        let mut name = tensor.name.as_str();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        if architecture.names.ignored.iter().any(|part| name.starts_with(part) || name.ends_with(part)) || tied && name == "lm_head.weight"
        {
            continue;
        }
        let Some(ours) = architecture.names.find(name) else {
            return Err(FormatError::UnsupportedFolder {
                what: "tensor",
                value: tensor.name,
                supported: format!("those of a {}", architecture.name),
            });
        };
        tensor.name = ours;
        transform(architecture, sizes, &mut tensor)?;
        out.push(tensor);
    }
    Ok(out)
}

/// Notes what the tensor's bytes need to become those of a GGUF file.
fn transform(architecture: &Architecture, sizes: Sizes, tensor: &mut TensorInfo) -> Result<(), FormatError> {
    let matrix = tensor.shape.len() == 2;
    if architecture.norm_is_difference && tensor.name.ends_with("norm.weight") {
        tensor.transform = Some(Transform::AddOne(tensor.dtype));
        tensor.dtype = DType::F32;
        tensor.bytes = 4 * tensor.elements();
    } else if architecture.name == "gpt2" && matrix && tensor.name.starts_with("blk.") {
        tensor.transform = Some(Transform::Transpose);
        tensor.shape.reverse();
    } else if architecture.name == "falcon" && tensor.name.contains("attn_qkv") && sizes.kv_heads > 1 {
        let rows = tensor.shape.last().copied().unwrap_or(1);
        if !rows.is_multiple_of(u64::from(sizes.heads) + 2 * u64::from(sizes.kv_heads)) {
            return Err(FormatError::Tensor { name: tensor.name.clone(), problem: "its rows are not those of all heads" });
        }
        tensor.transform = Some(Transform::UngroupQkv { heads: sizes.heads, kv_heads: sizes.kv_heads });
    }
    Ok(())
}

/// The reordering that brings a tensor of queries or keys from the halves' order to GGUF's of neighbouring pairs; `None` for others.
///
/// # Errors
/// When its rows are not those of whole heads.
pub fn pair_neighbours(tensor: &TensorInfo, heads: u32, kv_heads: u32) -> Result<Option<Transform>, FormatError> {
    let heads = match tensor.name.split('.').nth(2) {
        Some("attn_q") => heads,
        Some("attn_k") => kv_heads,
        _ => return Ok(None),
    };
    // A bias has an element for each row.
    let rows = if tensor.shape.len() == 1 { tensor.elements() } else { tensor.shape.get(1).copied().unwrap_or(1) };
    if heads == 0 || !rows.is_multiple_of(2 * u64::from(heads)) {
        return Err(FormatError::Tensor { name: tensor.name.clone(), problem: "its rows are not those of all heads" });
    }
    Ok(Some(Transform::PairNeighbours { heads }))
}
