//! Families with the layers of Llama or Qwen 2 under another name: their files differ in tensors that are there or not.

use super::Family;
use super::dense::Dense;
use super::{llama, qwen};
use crate::error::EngineError;
use crate::kernels::NormKind;
use crate::model::spec::{FfnSpec, ModelSpec};

pub(super) const ERNIE_4_5: Family = Family::gguf("ernie4_5", |header| Dense { rope_base: 500_000.0, ..llama::DENSE }.spec(header));

pub(super) const INTERNLM_2: Family = Family::gguf("internlm2", |header| llama::DENSE.spec(header));

pub(super) const XVERSE: Family = Family::gguf("xverse", |header| llama::DENSE.spec(header));

/// Llama as an encoder.
pub(super) const LLAMA_EMBED: Family = Family::gguf("llama-embed", |header| Dense { causal: false, ..llama::DENSE }.spec(header));

pub(super) const BAICHUAN: Family = Family::gguf("baichuan", |header| {
    // llama.cpp tells them apart by this, too.
    const LAYERS_13B: u32 = 40;
    if header.integer("block_count")? == Some(LAYERS_13B) {
        let value = "Baichuan 13B, with a bias of scores by distance (ALiBi)".to_owned();
        return Err(EngineError::Unsupported { what: "model", value, supported: "Baichuan 7B".to_owned() });
    }
    llama::DENSE.spec(header)
});

pub(super) const EXAONE: Family = Family::gguf("exaone", |header| qwen::DENSE.spec(header));

/// `PaddleOCR-VL`'s language model: ERNIE 4.5 with the pairs in halves that rotation by several positions has.
pub(super) const PADDLE_OCR: Family = Family::gguf("paddleocr", |header| Dense { rope_base: 500_000.0, ..qwen::DENSE }.spec(header));

pub(super) const PANGU: Family = Family::gguf("pangu-embedded", |header| qwen::DENSE.spec(header));

pub(super) const SEED_OSS: Family =
    Family::gguf("seed_oss", |header| Dense { ffn_norm: "post_attention_norm", ..qwen::DENSE }.spec(header));

/// Llama with layer norms.
pub(super) const ORION: Family = Family::gguf("orion", |header| Dense { norm: NormKind::Layer, ..qwen::DENSE }.spec(header));

/// The first Qwen.
pub(super) const QWEN: Family = Family::gguf("qwen", |header| qwen::DENSE.spec(header).map(with_half_widths));

/// The file states the width of gate and up together.
fn with_half_widths(mut spec: ModelSpec) -> ModelSpec {
    for layer in &mut spec.layers {
        if let FfnSpec::Dense(dense) = &mut layer.ffn {
            dense.width /= 2;
        }
    }
    spec
}
