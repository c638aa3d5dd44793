//! Gemma 1 to 3 and `EmbeddingGemma`: embeddings grow by the square root of their width; from Gemma 2 on norms before and behind attention
//! and feed-forward network, and windows in most layers.

use super::dense::{Dense, LocalRope};
use super::{Family, llama, qwen};
use crate::formats::huggingface::{Defaults, FolderSpec, Heads, RopeOrder, TensorNames};
use crate::formats::{FormatError, Metadata, TensorInfo, Transform, Value};
use crate::kernels::Activation;
use crate::model::spec::NormPlacement;

const DENSE: Dense = Dense { activation: Activation::GeluTanh, scaled_embedding: true, ..qwen::DENSE };

const DENSE_2: Dense = Dense {
    norms: NormPlacement::SANDWICH,
    windowed: all_but_each_second,
    caps: (50.0, 30.0),
    // 27B.
    scores_by_width: Some(46),
    ..DENSE
};

const DENSE_3: Dense = Dense {
    norms: NormPlacement::SANDWICH,
    rope_base: 1_000_000.0,
    windowed: all_but_each_sixth,
    local_rope: LocalRope::Unscaled(Some(10_000.0)),
    // 27B.
    scores_by_width: Some(62),
    ..DENSE
};

const FOLDER: FolderSpec = FolderSpec {
    model_types: &["gemma"],
    transform: norms_from_one,
    activations: &["gelu", "gelu_new", "gelu_pytorch_tanh"],
    rope: RopeOrder::Halves,
    defaults: Defaults { epsilon: 1e-6, tied: true, ..llama::FOLDER.defaults },
    ..llama::FOLDER
};

const FOLDER_2: FolderSpec = FolderSpec {
    model_types: &["gemma2"],
    names: TensorNames {
        layer: &[llama::ATTENTION_AND_GATED, llama::POST_NORMS],
        ignored: &["rotary_emb.inv_freq", "vision_tower.", "multi_modal_projector."],
        ..FOLDER.names
    },
    numbers: &[("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping")],
    windowed: all_but_each_second,
    ..FOLDER
};

const FOLDER_3: FolderSpec = FolderSpec {
    model_types: &["gemma3", "gemma3_text"],
    // A multimodal Gemma 3 leaves out of its config.json what its class has.
    defaults: Defaults {
        heads: Some(8),
        kv_heads: Some(4),
        head_dim: Some(256),
        context: Some(131_072),
        rope_base: 1e6,
        local_rope_base: Some(1e4),
        ..FOLDER.defaults
    },
    numbers: &[],
    windowed: all_but_each_sixth,
    ..FOLDER_2
};

pub(super) const GEMMA: Family = Family { name: "gemma", spec: |header| DENSE.spec(header), folder: Some(&FOLDER), adapt: None };

pub(super) const GEMMA_2: Family = Family { name: "gemma2", spec: |header| DENSE_2.spec(header), folder: Some(&FOLDER_2), adapt: None };

pub(super) const GEMMA_3: Family =
    Family { name: "gemma3", spec: |header| DENSE_3.spec(header), folder: Some(&FOLDER_3), adapt: Some(as_ollama_has_it) };

pub(super) const GEMMA_EMBEDDING: Family = Family {
    name: "gemma-embedding",
    spec: |header| Dense { causal: false, scores_by_width: None, ..DENSE_3 }.spec(header),
    folder: None,
    adapt: None,
};

fn all_but_each_second(layer: u32) -> bool {
    !(layer + 1).is_multiple_of(2)
}

fn all_but_each_sixth(layer: u32) -> bool {
    !(layer + 1).is_multiple_of(6)
}

/// Folders store norms as the difference from one.
fn norms_from_one(tensor: &TensorInfo, _: Heads) -> Result<Option<Transform>, FormatError> {
    Ok(tensor.name.ends_with("norm.weight").then_some(Transform::AddOne(tensor.dtype)))
}

/// Layers of the Gemma 3 models that Ollama's converter left values out for: 1B; 4B, 12B and 27B.
const LAYERS_1B: u32 = 26;
const LAYERS_LARGER: [u32; 3] = [34, 48, 62];

/// Gemma 3 as Ollama converts it: some keys have other names, and values that its own program has built in are left out. The values are
/// those that Ollama uses, and those of Google's configurations.
fn as_ollama_has_it(metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    let own = ["rope.local.freq_base", "rope.global.freq_base", "vision.block_count", "mm.tokens_per_image"];
    let key = |suffix: &str| format!("gemma3.{suffix}");
    let epsilon = key("attention.layer_norm_rms_epsilon");
    if metadata.contains(&epsilon) && !own.iter().any(|suffix| metadata.contains(&key(suffix))) {
        return Ok(None);
    }
    for (theirs, ours) in [
        ("rope.local.freq_base", "rope.freq_base_swa"),
        ("rope.global.freq_base", "rope.freq_base"),
        ("rope.scaling.beta_fast", "rope.scaling.yarn_beta_fast"),
        ("rope.scaling.beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        if let Some(value) = metadata.remove(&key(theirs)) {
            fill(metadata, &key(ours), value);
        }
    }
    fill(metadata, &epsilon, Value::F32(1e-6));
    fill(metadata, &key("rope.freq_base"), Value::F32(1e6));
    fill(metadata, &key("rope.freq_base_swa"), Value::F32(1e4));
    fill(metadata, &key("attention.key_length"), Value::U32(256));
    fill(metadata, &key("attention.value_length"), Value::U32(256));
    let layers = metadata.u32(&key("block_count"))?;
    let has_window = metadata.u32_opt(&key("attention.sliding_window"))?.unwrap_or(0) < metadata.u32(&key("context_length"))?;
    if has_window && layers == LAYERS_1B {
        metadata.remove(&key("final_logit_softcapping"));
    }
    if has_window && LAYERS_LARGER.contains(&layers) {
        fill(metadata, &key("rope.scaling.type"), Value::String("linear".to_owned()));
        fill(metadata, &key("rope.scaling.factor"), Value::F32(8.0));
    }
    if metadata.str_opt(&key("rope.scaling.type"))? == Some("yarn") {
        // Ollama takes the growth of YaRN out again.
        fill(metadata, &key("rope.scaling.yarn_attn_factor"), Value::F32(1.0));
        fill(metadata, &key("rope.scaling.yarn_beta_fast"), Value::F32(64.0));
    }
    Ok(Some("the file is Ollama's own conversion: what it leaves out is as Ollama has it".to_owned()))
}

/// Sets what is not there.
fn fill(metadata: &mut Metadata, key: &str, value: Value) {
    if !metadata.contains(key) {
        metadata.insert(key, value);
    }
}
