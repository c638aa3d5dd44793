//! Falcon 7B and 40B: parallel layers with layer norms, fused projections, no gate.

use super::dense::Dense;
use super::llama::LAYER_EPSILON;
use super::{Family, llama, qwen};
use crate::formats::huggingface::{Defaults, FolderSpec, Heads, Json, KvHeads, Put, RopeOrder, TensorNames, refused, stated_kv_heads};
use crate::formats::{FormatError, TensorInfo, Transform, Value};
use crate::kernels::{Activation, NormKind};

const DENSE: Dense = Dense { norm: NormKind::Layer, activation: Activation::Gelu, gated: false, ..qwen::DENSE };

pub(super) const FALCON: Family = Family {
    name: "falcon",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec {
        model_types: &["falcon", "RefinedWeb", "RefinedWebModel"],
        names: TensorNames {
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
        },
        transform: ungrouped,
        activations: &["gelu", "gelu_new", "gelu_pytorch_tanh"],
        epsilon: LAYER_EPSILON,
        rope: RopeOrder::Halves,
        defaults: Defaults { context: Some(2048), tied: true, ..llama::FOLDER.defaults },
        kv_heads,
        variant,
        ..llama::FOLDER
    }),
    adapt: None,
};

fn kv_heads(config: &Json) -> Result<Option<KvHeads>, FormatError> {
    if config.bool(&["new_decoder_architecture"])?.unwrap_or(false) {
        return stated_kv_heads(config);
    }
    let one = config.bool(&["multi_query"])?.unwrap_or(true);
    Ok(Some(if one { KvHeads::Number(1) } else { KvHeads::AsQueries }))
}

fn ungrouped(tensor: &TensorInfo, heads: Heads) -> Result<Option<Transform>, FormatError> {
    let Heads { queries, keys, .. } = heads;
    if !tensor.name.contains("attn_qkv") || keys == 1 {
        return Ok(None);
    }
    let rows = tensor.shape.last().copied().unwrap_or(1);
    if !rows.is_multiple_of(u64::from(queries) + 2 * u64::from(keys)) {
        return Err(FormatError::Tensor { name: tensor.name.clone(), problem: "its rows are not those of all heads" });
    }
    Ok(Some(Transform::UngroupQkv { heads: queries, kv_heads: keys }))
}

fn variant(config: &Json, put: &mut Put<'_>) -> Result<(), FormatError> {
    put("tensor_data_layout", Value::String("jploski".to_owned()));
    if config.bool(&["alibi"])?.unwrap_or(false) {
        return Err(refused(config, "alibi", "false"));
    }
    if config.bool(&["parallel_attn"])?.unwrap_or(true) { Ok(()) } else { Err(refused(config, "parallel_attn", "true")) }
}
