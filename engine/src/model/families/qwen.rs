//! Qwen 2 and 3: Llama with pairs in halves; biases of queries, keys and values, or norms of queries and keys.

use super::dense::Dense;
use super::{Family, llama};
use crate::formats::huggingface::{FolderSpec, RopeOrder, SlidingWindow};
use crate::kernels::RopePairing;

/// Most families with pairs in halves change few of these.
pub(super) const DENSE: Dense = Dense { rope: Some(RopePairing::Halves), ..llama::DENSE };

/// Qwen 2's folders.
pub(super) const FOLDER: FolderSpec =
    FolderSpec { model_types: &["qwen2"], rope: RopeOrder::Halves, window: SlidingWindow::Enabled, ..llama::FOLDER };

pub(super) const QWEN_2: Family = Family { name: "qwen2", spec: |header| DENSE.spec(header), folder: Some(&FOLDER), adapt: None };

pub(super) const QWEN_3: Family = Family {
    name: "qwen3",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec { model_types: &["qwen3"], ..FOLDER }),
    adapt: None,
};

/// The language model of Qwen 2 VL and 2.5 VL. It rotates sections of a head by positions that are the same for text.
pub(super) const QWEN_2_VL: Family = Family::gguf("qwen2vl", |header| DENSE.spec(header));

/// The language model of Qwen 3 VL.
pub(super) const QWEN_3_VL: Family = Family::gguf("qwen3vl", |header| DENSE.spec(header));
