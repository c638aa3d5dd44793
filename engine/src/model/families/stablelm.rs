//! `StableLM` 2: layer norms, and a quarter of each head rotated.

use super::dense::Dense;
use super::llama::LAYER_EPSILON;
use super::{Family, llama, qwen};
use crate::formats::huggingface::{Defaults, FolderSpec, Json, Put, RopeOrder, refused};
use crate::formats::{FormatError, Value};
use crate::kernels::NormKind;

pub(super) const STABLELM: Family = Family {
    name: "stablelm",
    spec: |header| Dense { norm: NormKind::Layer, ..qwen::DENSE }.spec(header),
    folder: Some(&FolderSpec {
        model_types: &["stablelm"],
        epsilon: LAYER_EPSILON,
        rope: RopeOrder::Halves,
        defaults: Defaults { rotated: 0.25, ..llama::FOLDER.defaults },
        variant: residual_kind,
        ..llama::FOLDER
    }),
    adapt: None,
};

fn residual_kind(config: &Json, put: &mut Put<'_>) -> Result<(), FormatError> {
    put("use_parallel_residual", Value::Bool(config.bool(&["use_parallel_residual"])?.unwrap_or(false)));
    if config.bool(&["qk_layernorm"])?.unwrap_or(false) { Err(refused(config, "qk_layernorm", "false")) } else { Ok(()) }
}
