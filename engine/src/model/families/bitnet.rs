//! `BitNet` b1.58: norms within attention and feed-forward network, before their last matrices.

use super::Family;
use super::qwen;

pub(super) const BITNET: Family = Family::gguf("bitnet", |header| qwen::DENSE.spec(header));
