//! `config.json` to GGUF's keys.

use super::PAIRING_KEY;
use super::json::Json;
use super::names::{self, Names};
use crate::formats::{Array, FormatError, Metadata, Value};

/// A kind of model and where its GGUF form differs from its Hugging Face form.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The values of `model_type` that mean it.
    types: &'static [&'static str],
    /// GGUF's `general.architecture`.
    pub(super) name: &'static str,
    /// Names of the tensors.
    pub(super) names: &'static Names,
    /// GGUF's key for the norms' epsilon.
    epsilon: &'static str,
    /// The activation functions that the architecture stands for.
    activations: &'static [&'static str],
    /// GGUF's convention for the rows of queries and keys.
    pub(super) rope: RopeOrder,
    /// Whether norms are stored as the difference from one.
    pub(super) norm_is_difference: bool,
}

/// How GGUF orders the rows of queries and keys for rotary embedding; folders always have the halves' order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RopeOrder {
    /// The architecture has no rotary embedding.
    None,
    /// As the folder.
    Halves,
    /// Pairs are neighbours.
    Neighbours,
}

/// Bounds what is computed from a head's size; real ones have 64 to 256 elements.
const MAX_HEAD_DIM: u32 = 1 << 12;

const RMS: &str = "attention.layer_norm_rms_epsilon";
const LAYER_NORM: &str = "attention.layer_norm_epsilon";
const SILU: &[&str] = &["silu", "swish"];
const GELU: &[&str] = &["gelu", "gelu_new", "gelu_pytorch_tanh"];

const fn decoder(types: &'static [&'static str], name: &'static str, rope: RopeOrder) -> Architecture {
    Architecture { types, name, names: &names::LLAMA, epsilon: RMS, activations: SILU, rope, norm_is_difference: false }
}

const fn gemma(types: &'static [&'static str], name: &'static str, names: &'static Names) -> Architecture {
    Architecture { names, activations: GELU, norm_is_difference: true, ..decoder(types, name, RopeOrder::Halves) }
}

const TABLE: &[Architecture] = &[
    decoder(&["llama", "mistral"], "llama", RopeOrder::Neighbours),
    decoder(&["granite"], "granite", RopeOrder::Neighbours),
    decoder(&["smollm3"], "smollm3", RopeOrder::Neighbours),
    decoder(&["qwen2"], "qwen2", RopeOrder::Halves),
    decoder(&["qwen3"], "qwen3", RopeOrder::Halves),
    decoder(&["phi3"], "phi3", RopeOrder::Halves),
    Architecture { names: &names::POST_NORMS, ..decoder(&["olmo2", "olmo3"], "olmo2", RopeOrder::Halves) },
    Architecture { epsilon: LAYER_NORM, ..decoder(&["stablelm"], "stablelm", RopeOrder::Halves) },
    gemma(&["gemma"], "gemma", &names::LLAMA),
    gemma(&["gemma2"], "gemma2", &names::POST_NORMS),
    gemma(&["gemma3", "gemma3_text"], "gemma3", &names::POST_NORMS),
    Architecture {
        names: &names::FALCON,
        epsilon: LAYER_NORM,
        activations: GELU,
        ..decoder(&["falcon", "RefinedWeb", "RefinedWebModel"], "falcon", RopeOrder::Halves)
    },
    Architecture { names: &names::GPT2, epsilon: LAYER_NORM, activations: GELU, ..decoder(&["gpt2"], "gpt2", RopeOrder::None) },
    Architecture { names: &names::BERT, epsilon: LAYER_NORM, activations: GELU, ..decoder(&["bert"], "bert", RopeOrder::None) },
];

/// The architecture that `model_type` names.
pub(super) fn architecture(config: &Json) -> Result<&'static Architecture, FormatError> {
    let unsupported = |what, value: &str, supported: String| FormatError::UnsupportedFolder { what, value: value.to_owned(), supported };
    let model_type = config.str("model_type").ok_or_else(|| config.invalid("model_type is missing".to_owned()))?;
    let found = TABLE
        .iter()
        .find(|a| a.types.contains(&model_type))
        .ok_or_else(|| unsupported("model_type", model_type, TABLE.iter().flat_map(|a| a.types).copied().collect::<Vec<_>>().join(", ")))?;
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.get("quant_method").map_or_else(String::new, ToString::to_string);
        return Err(unsupported("quantization_config", &method, "weights in F32, F16 or BF16".to_owned()));
    }
    let keys = ["hidden_activation", "hidden_act", "activation_function", "activation"];
    match keys.iter().find_map(|key| config.str(key)) {
        Some(activation) if !found.activations.contains(&activation) => {
            Err(unsupported("activation", activation, found.activations.join(", ")))
        }
        _ => Ok(found),
    }
}

/// Sizes that several steps of the conversion need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_dim: u32,
}

impl Sizes {
    pub(super) fn new(config: &Json, architecture: &Architecture) -> Result<Self, FormatError> {
        // What a multimodal Gemma 3 leaves out of its config.json is its class's default.
        let or = |value: Option<u32>, gemma3: u32, otherwise: u32| {
            value.unwrap_or(if architecture.name == "gemma3" { gemma3 } else { otherwise })
        };
        let dim = config.need_u32(&["hidden_size", "n_embd"])?;
        let heads = or(config.u32(&["num_attention_heads", "n_head"])?, 8, 0);
        let kv_heads =
            match architecture.name {
                "falcon" if !config.bool(&["new_decoder_architecture"])?.unwrap_or(false) => {
                    if config.bool(&["multi_query"])?.unwrap_or(true) { 1 } else { heads }
                }
                _ => or(config.u32(&["num_key_value_heads", "num_kv_heads", "n_head_kv"])?, 4, heads),
            };
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(config.invalid(format!("{heads} heads and {kv_heads} key and value heads cannot be")));
        }
        let head_dim = or(config.u32(&["head_dim"])?, 256, dim / heads);
        if !(2..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(config.invalid(format!("heads of {head_dim} elements cannot be")));
        }
        Ok(Self { layers: config.need_u32(&["num_hidden_layers", "n_layer"])?, heads, kv_heads, head_dim })
    }
}

/// The metadata that follows from `config.json`, but for tokenizer and rotary embedding.
pub(super) fn metadata(architecture: &Architecture, config: &Json, name: &str) -> Result<Metadata, FormatError> {
    let sizes = Sizes::new(config, architecture)?;
    let arch = architecture.name;
    let mut out = Metadata::new();
    out.insert("general.architecture", Value::String(arch.to_owned()));
    out.insert("general.name", Value::String(name.to_owned()));
    let mut put = |key: &str, value: Value| drop(out.insert(format!("{arch}.{key}"), value));
    let dim = config.need_u32(&["hidden_size", "n_embd"])?;
    let context = config.u32(&["max_position_embeddings", "n_positions", "n_ctx"])?;
    let default_context = match arch {
        "falcon" => Some(2048),
        "gemma3" => Some(131_072),
        _ => None,
    };
    let context = context.or(default_context).ok_or_else(|| config.invalid("max_position_embeddings is missing".to_owned()))?;
    put("block_count", Value::U32(sizes.layers));
    put("context_length", Value::U32(context));
    put("embedding_length", Value::U32(dim));
    let feed_forward = config.u32(&["intermediate_size", "n_inner", "ffn_hidden_size"])?;
    put("feed_forward_length", Value::U32(feed_forward.unwrap_or(dim.saturating_mul(4))));
    put("attention.head_count", Value::U32(sizes.heads));
    put("attention.head_count_kv", Value::U32(sizes.kv_heads));
    let epsilon = config.f32(&["rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"])?;
    put(architecture.epsilon, Value::F32(epsilon.unwrap_or(if architecture.norm_is_difference { 1e-6 } else { 1e-5 })));
    if config.get("head_dim").is_some() || arch == "gemma3" {
        put("attention.key_length", Value::U32(sizes.head_dim));
        put("attention.value_length", Value::U32(sizes.head_dim));
    }
    if let Some(vocab) = config.u32(&["vocab_size"])? {
        put("vocab_size", Value::U32(vocab));
    }
    let scales = [
        ("granite", "attention_multiplier", "attention.scale"),
        ("granite", "embedding_multiplier", "embedding_scale"),
        ("granite", "residual_multiplier", "residual_scale"),
        ("granite", "logits_scaling", "logit_scale"),
        ("gemma2", "attn_logit_softcapping", "attn_logit_softcapping"),
        ("gemma2", "final_logit_softcapping", "final_logit_softcapping"),
    ];
    for (_, from, to) in scales.iter().filter(|(of, ..)| *of == arch) {
        if let Some(value) = config.f32(&[from])? {
            put(to, Value::F32(value));
        }
    }
    if let Some(scalar) = config.f32(&["query_pre_attn_scalar"])? {
        put("attention.scale", Value::F32(1.0 / scalar.sqrt()));
    }
    window(arch, config, sizes.layers, &mut put)?;
    match arch {
        "falcon" => put("tensor_data_layout", Value::String("jploski".to_owned())),
        "stablelm" => put("use_parallel_residual", Value::Bool(config.bool(&["use_parallel_residual"])?.unwrap_or(false))),
        "bert" => put("attention.causal", Value::Bool(false)),
        _ => {}
    }
    refuse(arch, config)?;
    if architecture.rope == RopeOrder::Neighbours {
        out.insert(PAIRING_KEY, Value::String("halves".to_owned()));
    }
    Ok(out)
}

/// How the outputs of all tokens become one.
pub(super) fn pooling(architecture: &Architecture, pooling: &Json, metadata: &mut Metadata) -> Result<(), FormatError> {
    let modes = [("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3)];
    for (key, kind) in modes {
        if pooling.bool(&[key])?.unwrap_or(false) {
            metadata.insert(format!("{}.pooling_type", architecture.name), Value::U32(kind));
            return Ok(());
        }
    }
    Err(FormatError::UnsupportedFolder { what: "pooling", value: String::new(), supported: modes.map(|(key, _)| key).join(", ") })
}

/// Sliding windows: their length, and which layers have one where the architecture alone does not say.
fn window(arch: &str, config: &Json, layers: u32, put: &mut dyn FnMut(&str, Value)) -> Result<(), FormatError> {
    let applies = match arch {
        "qwen2" | "qwen3" => config.bool(&["use_sliding_window"])?.unwrap_or(false),
        "granite" | "smollm3" => false,
        _ => true,
    };
    let Some(window) = config.u32(&["sliding_window"])?.filter(|_| applies) else {
        if arch == "phi3" {
            put("attention.sliding_window", Value::U32(0));
        }
        return Ok(());
    };
    put("attention.sliding_window", Value::U32(window));
    let Some(types) = config.get("layer_types").and_then(|types| types.as_array()) else { return Ok(()) };
    let slides: Vec<bool> = types.iter().map(|t| t == "sliding_attention").collect();
    if slides.len() != layers as usize {
        return Err(config.invalid(format!("layer_types has {} entries for {layers} layers", slides.len())));
    }
    // llama.cpp knows these patterns by the architecture's name; only what differs needs the key.
    let known = match arch {
        "gemma2" => (0..slides.len()).all(|i| slides[i] == (i % 2 == 0)),
        "gemma3" => (0..slides.len()).all(|i| slides[i] == ((i + 1) % 6 != 0)),
        _ => slides.iter().all(|slides| *slides),
    };
    if !known {
        put("attention.sliding_window_pattern", Value::Array(Array::Bool(slides)));
    }
    Ok(())
}

/// Refuses variants that GGUF has no keys for.
fn refuse(arch: &str, config: &Json) -> Result<(), FormatError> {
    let refused = |key: &'static str, supported: &str| FormatError::UnsupportedFolder {
        what: key,
        value: config.get(key).map_or_else(String::new, ToString::to_string),
        supported: supported.to_owned(),
    };
    match arch {
        "falcon" if config.bool(&["alibi"])?.unwrap_or(false) => Err(refused("alibi", "false")),
        "falcon" if !config.bool(&["parallel_attn"])?.unwrap_or(true) => Err(refused("parallel_attn", "true")),
        "stablelm" if config.bool(&["qk_layernorm"])?.unwrap_or(false) => Err(refused("qk_layernorm", "false")),
        "gpt2" if config.bool(&["scale_attn_by_inverse_layer_idx"])?.unwrap_or(false) => {
            Err(refused("scale_attn_by_inverse_layer_idx", "false"))
        }
        "bert" if config.str("position_embedding_type").is_some_and(|kind| kind != "absolute") => {
            Err(refused("position_embedding_type", "absolute"))
        }
        "smollm3" => {
            let rotated = config.get("no_rope_layers").and_then(|layers| layers.as_array());
            let usual = rotated.is_none_or(|layers| (1..).zip(layers).all(|(i, rotated)| *rotated == u32::from(i % 4 != 0)));
            if usual { Ok(()) } else { Err(refused("no_rope_layers", "every fourth layer")) }
        }
        _ => Ok(()),
    }
}
