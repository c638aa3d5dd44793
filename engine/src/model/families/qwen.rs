//! Qwen 2 and 3: Llama with pairs in halves; biases of queries, keys and values, or norms of queries and keys.

use super::dense::Dense;
use super::{Family, llama};
use crate::formats::huggingface::{FolderSpec, RopeOrder, SlidingWindow};
use crate::kernels::RopePairing;

/// What families with pairs in halves are with few changes.
pub(super) const DENSE: Dense = Dense { rope: Some(RopePairing::Halves), ..llama::DENSE };

/// What their folders are with few changes.
pub(super) const FOLDER: FolderSpec =
    FolderSpec { model_types: &["qwen2"], rope: RopeOrder::Halves, window: SlidingWindow::Enabled, ..llama::FOLDER };

pub(super) const QWEN_2: Family = Family { name: "qwen2", spec: |header| DENSE.spec(header), folder: Some(&FOLDER), adapt: None };

pub(super) const QWEN_3: Family = Family {
    name: "qwen3",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec { model_types: &["qwen3"], ..FOLDER }),
    adapt: None,
};
