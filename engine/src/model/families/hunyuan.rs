//! Tencent's Hunyuan, and Maincoder: queries and keys are normalized behind their rotation.

use super::Family;
use super::dense::Dense;
use super::{llama, qwen};
use crate::model::spec::QkNormSpec;

const DENSE: Dense = Dense { qk_norm: QkNormSpec::RotatedHead, ..qwen::DENSE };

pub(super) const HUNYUAN_DENSE: Family = Family::gguf("hunyuan-dense", |header| DENSE.spec(header));

/// The language model of `HunyuanOCR`.
pub(super) const HUNYUAN_VL: Family = Family::gguf("hunyuan_vl", |header| DENSE.spec(header));

pub(super) const MAINCODER: Family =
    Family::gguf("maincoder", |header| Dense { qk_norm: QkNormSpec::RotatedHead, ..llama::DENSE }.spec(header));
