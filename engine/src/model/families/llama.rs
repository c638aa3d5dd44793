//! Llama, and families that differ from it in some values: Mistral 3, `SmolLM` 3, Granite.

use super::Family;
use super::dense::{Dense, LocalRope, LogitScale, NormWeights, all_but_each_fourth, every_layer};
use super::mixture::Mixture;
use crate::formats::FormatError;
use crate::formats::huggingface::{
    Defaults, FolderSpec, Json, NameTable, Put, RopeOrder, SlidingWindow, TensorNames, as_stored, no_variant, refused, stated_kv_heads,
};
use crate::kernels::{Activation, NormKind, RopePairing};
use crate::model::spec::{NormPlacement, QkNormSpec};

/// Most families change few of these.
pub(super) const DENSE: Dense = Dense {
    norms: NormPlacement::PRE,
    ffn_norm: "ffn_norm",
    norm: NormKind::Rms,
    norm_weights: NormWeights::Stored,
    qk_norm: QkNormSpec::Head,
    rope: Some(RopePairing::Neighbours),
    rope_base: 10_000.0,
    rotates: |_, _| true,
    activation: Activation::Silu,
    gated: true,
    causal: true,
    scaled_embedding: false,
    default_window: 0,
    windowed: every_layer,
    local_rope: LocalRope::Same,
    logit_scale: LogitScale::Divides,
    caps: (0.0, 0.0),
    scores_by_width: None,
    mixture: None,
};

/// Most families' folders change few of these.
pub(super) const FOLDER: FolderSpec = FolderSpec {
    model_types: &["llama", "mistral"],
    names: TensorNames {
        global: &[("embed_tokens", "token_embd"), ("norm", "output_norm"), ("lm_head", "output")],
        layer_prefix: "layers.",
        layer: &[ATTENTION_AND_GATED, &[("post_attention_layernorm", "ffn_norm")]],
        ignored: &["rotary_emb.inv_freq"],
    },
    transform: as_stored,
    activations: &["silu", "swish"],
    epsilon: RMS_EPSILON,
    rope: RopeOrder::Neighbours,
    defaults: Defaults {
        heads: None,
        kv_heads: None,
        head_dim: None,
        context: None,
        epsilon: 1e-5,
        tied: false,
        rope_base: 1e4,
        local_rope_base: None,
        rotated: 1.0,
    },
    kv_heads: stated_kv_heads,
    numbers: &[],
    window: SlidingWindow::Stated,
    windowed: every_layer,
    variant: no_variant,
};

/// Names of attention and a gated feed-forward network in most folders; those of the norms differ.
pub(super) const ATTENTION_AND_GATED: NameTable = &[
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

/// Names of the norms behind attention and around the feed-forward network, where a family has them.
pub(super) const POST_NORMS: NameTable = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// GGUF's key for the epsilon of root mean square norms.
const RMS_EPSILON: &str = "attention.layer_norm_rms_epsilon";
/// GGUF's key for the epsilon of layer norms.
pub(super) const LAYER_EPSILON: &str = "attention.layer_norm_epsilon";

/// Mixtral too.
pub(super) const LLAMA: Family = Family {
    name: "llama",
    spec: |header| Dense { mixture: Some(Mixture::SOFTMAX), ..DENSE }.spec(header),
    folder: Some(&FOLDER),
    adapt: None,
};

pub(super) const MISTRAL_3: Family = Family { name: "mistral3", spec: |header| DENSE.spec(header), folder: None, adapt: None };

pub(super) const SMOLLM_3: Family = Family {
    name: "smollm3",
    spec: |header| Dense { rotates: |layer, _| all_but_each_fourth(layer), rope_base: 2_000_000.0, ..DENSE }.spec(header),
    folder: Some(&FolderSpec { model_types: &["smollm3"], window: SlidingWindow::Ignored, variant: usual_rotated_layers, ..FOLDER }),
    adapt: None,
};

fn usual_rotated_layers(config: &Json, _: &mut Put<'_>) -> Result<(), FormatError> {
    let rotated = config.get("no_rope_layers").and_then(|layers| layers.as_array());
    let usual = rotated.is_none_or(|layers| (0..).zip(layers).all(|(i, rotated)| *rotated == u32::from(all_but_each_fourth(i))));
    if usual { Ok(()) } else { Err(refused(config, "no_rope_layers", "every fourth layer")) }
}

pub(super) const GRANITE: Family = Family {
    name: "granite",
    // The key is its switch for the rotary embedding.
    spec: |header| match header.flag("rope.scaling.finetuned")? {
        Some(false) => Dense { rope: None, ..DENSE }.spec(header),
        _ => DENSE.spec(header),
    },
    folder: Some(&FolderSpec {
        model_types: &["granite"],
        numbers: &[
            ("attention_multiplier", "attention.scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"),
            ("logits_scaling", "logit_scale"),
        ],
        window: SlidingWindow::Ignored,
        ..FOLDER
    }),
    adapt: None,
};
