//! GPT-2: layer norms, learned positions, biases everywhere, no gate.

use super::dense::Dense;
use super::llama::LAYER_EPSILON;
use super::{Family, llama};
use crate::formats::huggingface::{Defaults, FolderSpec, Heads, Json, Put, RopeOrder, TensorNames, refused};
use crate::formats::{FormatError, TensorInfo, Transform};
use crate::kernels::{Activation, NormKind};

const DENSE: Dense = Dense { norm: NormKind::Layer, rope: None, activation: Activation::GeluTanh, gated: false, ..llama::DENSE };

pub(super) const GPT_2: Family = Family {
    name: "gpt2",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec {
        model_types: &["gpt2"],
        names: TensorNames {
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
        },
        transform: transposed,
        activations: &["gelu", "gelu_new", "gelu_pytorch_tanh"],
        epsilon: LAYER_EPSILON,
        rope: RopeOrder::None,
        defaults: Defaults { tied: true, ..llama::FOLDER.defaults },
        variant: same_scale_in_all_layers,
        ..llama::FOLDER
    }),
    adapt: None,
};

/// Folders store the matrices of layers inputs first.
fn transposed(tensor: &TensorInfo, _: Heads) -> Result<Option<Transform>, FormatError> {
    Ok((tensor.shape.len() == 2 && tensor.name.starts_with("blk.")).then_some(Transform::Transpose))
}

fn same_scale_in_all_layers(config: &Json, _: &mut Put<'_>) -> Result<(), FormatError> {
    let key = "scale_attn_by_inverse_layer_idx";
    if config.bool(&[key])?.unwrap_or(false) { Err(refused(config, key, "false")) } else { Ok(()) }
}
