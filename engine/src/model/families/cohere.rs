//! Cohere's Command R, R7B and Aya: parallel layers with one layer norm, and logits that a file's factor multiplies.

use super::Family;
use super::dense::{Dense, LogitScale, all_but_each_fourth};
use super::llama;
use crate::kernels::NormKind;

const DENSE: Dense = Dense { norm: NormKind::Layer, logit_scale: LogitScale::Multiplies, ..llama::DENSE };

pub(super) const COMMAND_R: Family = Family::gguf("command-r", |header| DENSE.spec(header));

/// Three of four layers see a window; the fourth has no rotation.
pub(super) const COHERE_2: Family =
    Family::gguf("cohere2", |header| Dense { windowed: all_but_each_fourth, rotates: |_, windowed| windowed, ..DENSE }.spec(header));
