//! `config.json` to GGUF's keys.

use super::json::Json;
use super::spec::{FolderSpec, Heads, KvHeads, Put, RopeOrder, SlidingWindow};
use super::{Families, PAIRING_KEY};
use crate::formats::{Array, FormatError, Metadata, Value};

/// Bounds what is computed from a head's size; real ones have 64 to 256 elements.
const MAX_HEAD_DIM: u32 = 1 << 12;

/// The family that `model_type` names, with its `general.architecture`.
pub(super) fn family(config: &Json, families: Families<'_>) -> Result<(&'static str, &'static FolderSpec), FormatError> {
    let unsupported = |what, value: &str, supported: String| FormatError::UnsupportedFolder { what, value: value.to_owned(), supported };
    let model_type = config.str("model_type").ok_or_else(|| config.invalid("model_type is missing".to_owned()))?;
    let types = || families.iter().flat_map(|(_, spec)| spec.model_types).copied().collect::<Vec<_>>();
    let found = families.iter().find(|(_, spec)| spec.model_types.contains(&model_type));
    let &(name, spec) = found.ok_or_else(|| unsupported("model_type", model_type, types().join(", ")))?;
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.get("quant_method").map_or_else(String::new, ToString::to_string);
        return Err(unsupported("quantization_config", &method, "weights in F32, F16 or BF16".to_owned()));
    }
    let keys = ["hidden_activation", "hidden_act", "activation_function", "activation"];
    match keys.iter().find_map(|key| config.str(key)) {
        Some(activation) if !spec.activations.contains(&activation) => {
            Err(unsupported("activation", activation, spec.activations.join(", ")))
        }
        _ => Ok((name, spec)),
    }
}

impl Heads {
    pub(super) fn new(config: &Json, spec: &FolderSpec) -> Result<Self, FormatError> {
        let width = config.need_u32(&["hidden_size", "n_embd"])?;
        let defaults = &spec.defaults;
        let queries = config.u32(&["num_attention_heads", "n_head"])?.or(defaults.heads).unwrap_or(0);
        let keys = match (spec.kv_heads)(config)? {
            Some(KvHeads::Number(number)) => number,
            Some(KvHeads::AsQueries) => queries,
            None => defaults.kv_heads.unwrap_or(queries),
        };
        if queries == 0 || keys == 0 || !queries.is_multiple_of(keys) {
            return Err(config.invalid(format!("{queries} heads and {keys} key and value heads cannot be")));
        }
        let dim = config.u32(&["head_dim"])?.or(defaults.head_dim).unwrap_or(width / queries);
        if !(2..=MAX_HEAD_DIM).contains(&dim) {
            return Err(config.invalid(format!("heads of {dim} elements cannot be")));
        }
        Ok(Self { queries, keys, dim })
    }
}

/// The metadata that follows from `config.json`, but for tokenizer and rotary embedding.
pub(super) fn metadata(family: &str, spec: &FolderSpec, config: &Json, name: &str) -> Result<Metadata, FormatError> {
    let heads = Heads::new(config, spec)?;
    let defaults = &spec.defaults;
    let mut out = Metadata::new();
    out.insert("general.architecture", Value::String(family.to_owned()));
    out.insert("general.name", Value::String(name.to_owned()));
    let mut put = |key: &str, value: Value| drop(out.insert(format!("{family}.{key}"), value));
    let layers = config.need_u32(&["num_hidden_layers", "n_layer"])?;
    let width = config.need_u32(&["hidden_size", "n_embd"])?;
    let context = config.u32(&["max_position_embeddings", "n_positions", "n_ctx"])?.or(defaults.context);
    let context = context.ok_or_else(|| config.invalid("max_position_embeddings is missing".to_owned()))?;
    put("block_count", Value::U32(layers));
    put("context_length", Value::U32(context));
    put("embedding_length", Value::U32(width));
    let feed_forward = config.u32(&["intermediate_size", "n_inner", "ffn_hidden_size"])?;
    put("feed_forward_length", Value::U32(feed_forward.unwrap_or(width.saturating_mul(4))));
    put("attention.head_count", Value::U32(heads.queries));
    put("attention.head_count_kv", Value::U32(heads.keys));
    let epsilon = config.f32(&["rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"])?;
    put(spec.epsilon, Value::F32(epsilon.unwrap_or(defaults.epsilon)));
    if config.get("head_dim").is_some() || defaults.head_dim.is_some() {
        put("attention.key_length", Value::U32(heads.dim));
        put("attention.value_length", Value::U32(heads.dim));
    }
    if let Some(vocab) = config.u32(&["vocab_size"])? {
        put("vocab_size", Value::U32(vocab));
    }
    for (from, to) in spec.numbers {
        if let Some(value) = config.f32(&[from])? {
            put(to, Value::F32(value));
        }
    }
    if let Some(scalar) = config.f32(&["query_pre_attn_scalar"])? {
        put("attention.scale", Value::F32(1.0 / scalar.sqrt()));
    }
    window(spec, config, layers, &mut put)?;
    (spec.variant)(config, &mut put)?;
    if spec.rope == RopeOrder::Neighbours {
        out.insert(PAIRING_KEY, Value::String("halves".to_owned()));
    }
    Ok(out)
}

/// How the outputs of all tokens become one.
pub(super) fn pooling(family: &str, pooling: &Json, metadata: &mut Metadata) -> Result<(), FormatError> {
    let modes = [("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3)];
    for (key, kind) in modes {
        if pooling.bool(&[key])?.unwrap_or(false) {
            metadata.insert(format!("{family}.pooling_type"), Value::U32(kind));
            return Ok(());
        }
    }
    Err(FormatError::UnsupportedFolder { what: "pooling", value: String::new(), supported: modes.map(|(key, _)| key).join(", ") })
}

/// Sliding windows: their length, and which layers have one where the family alone does not say.
fn window(spec: &FolderSpec, config: &Json, layers: u32, put: &mut Put<'_>) -> Result<(), FormatError> {
    let applies = match spec.window {
        SlidingWindow::Stated => true,
        SlidingWindow::Enabled => config.bool(&["use_sliding_window"])?.unwrap_or(false),
        SlidingWindow::Ignored => false,
    };
    let Some(window) = config.u32(&["sliding_window"])?.filter(|_| applies) else { return Ok(()) };
    put("attention.sliding_window", Value::U32(window));
    let Some(types) = config.get("layer_types").and_then(|types| types.as_array()) else { return Ok(()) };
    let slides: Vec<bool> = types.iter().map(|t| t == "sliding_attention").collect();
    if slides.len() != layers as usize {
        return Err(config.invalid(format!("layer_types has {} entries for {layers} layers", slides.len())));
    }
    // llama.cpp knows the families' patterns by name; only what differs needs the key.
    if !(0..).zip(&slides).all(|(i, slides)| *slides == (spec.windowed)(i)) {
        put("attention.sliding_window_pattern", Value::Array(Array::Bool(slides)));
    }
    Ok(())
}
