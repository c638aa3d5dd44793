//! Families whose feed-forward network has no gate and squares what is positive: Nemotron, Jais 2, Arcee.

use super::Family;
use super::dense::Dense;
use super::{llama, qwen};
use crate::kernels::{Activation, NormKind};

const DENSE: Dense = Dense { norm: NormKind::Layer, activation: Activation::ReluSquared, gated: false, ..qwen::DENSE };

pub(super) const NEMOTRON: Family = Family::gguf("nemotron", |header| DENSE.spec(header));

pub(super) const JAIS_2: Family = Family::gguf("jais2", |header| DENSE.spec(header));

pub(super) const ARCEE: Family =
    Family::gguf("arcee", |header| Dense { activation: Activation::ReluSquared, gated: false, ..llama::DENSE }.spec(header));
