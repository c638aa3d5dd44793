//! Families with layer norms, biases and no gate: GPT-NeoX and Pythia, `StarCoder` 1 and 2, `CodeShell`, Phi 1.5 and 2.

use super::Family;
use super::dense::Dense;
use super::qwen;
use crate::kernels::{Activation, NormKind};

const DENSE: Dense = Dense { norm: NormKind::Layer, activation: Activation::GeluTanh, gated: false, ..qwen::DENSE };

pub(super) const GPT_NEOX: Family = Family::gguf("gptneox", |header| Dense { activation: Activation::Gelu, ..DENSE }.spec(header));

pub(super) const STARCODER_2: Family = Family::gguf("starcoder2", |header| DENSE.spec(header));

/// Learned positions, and one head of keys and values.
pub(super) const STARCODER: Family = Family::gguf("starcoder", |header| Dense { rope: None, ..DENSE }.spec(header));

pub(super) const CODESHELL: Family = Family::gguf("codeshell", |header| DENSE.spec(header));

/// Parallel layers with one norm.
pub(super) const PHI_2: Family = Family::gguf("phi2", |header| DENSE.spec(header));

/// Parallel layers with one norm, and Llama's feed-forward network.
pub(super) const PLAMO: Family = Family::gguf("plamo", |header| qwen::DENSE.spec(header));
