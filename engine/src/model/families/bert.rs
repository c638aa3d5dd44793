//! BERT and Nomic's BERT: encoders with norms of the sums.

use super::dense::Dense;
use super::llama::LAYER_EPSILON;
use super::{Family, llama};
use crate::formats::huggingface::{FolderSpec, Json, Put, RopeOrder, TensorNames, refused};
use crate::formats::{FormatError, Value};
use crate::kernels::{Activation, NormKind, RopePairing};
use crate::model::spec::NormPlacement;

const DENSE: Dense = Dense {
    norms: NormPlacement::RESIDUAL,
    norm: NormKind::Layer,
    rope: None,
    activation: Activation::Gelu,
    gated: false,
    causal: false,
    ..llama::DENSE
};

pub(super) const BERT: Family = Family {
    name: "bert",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec {
        model_types: &["bert"],
        names: TensorNames {
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
        },
        activations: &["gelu", "gelu_new", "gelu_pytorch_tanh"],
        epsilon: LAYER_EPSILON,
        rope: RopeOrder::None,
        variant: encoder,
        ..llama::FOLDER
    }),
    adapt: None,
};

fn encoder(config: &Json, put: &mut Put<'_>) -> Result<(), FormatError> {
    put("attention.causal", Value::Bool(false));
    match config.str("position_embedding_type") {
        Some(kind) if kind != "absolute" => Err(refused(config, "position_embedding_type", "absolute")),
        _ => Ok(()),
    }
}

pub(super) const NOMIC_BERT: Family = Family {
    name: "nomic-bert",
    spec: |header| Dense { rope: Some(RopePairing::Halves), activation: Activation::Silu, gated: true, ..DENSE }.spec(header),
    folder: None,
    adapt: None,
};
