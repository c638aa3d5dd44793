//! `OLMo` 2 and 3: norms behind attention and feed-forward network, and of whole rows of queries and keys.

use super::dense::{Dense, LocalRope};
use super::{Family, llama, qwen};
use crate::formats::huggingface::{FolderSpec, RopeOrder, TensorNames};
use crate::model::spec::{NormPlacement, QkNormSpec};

const DENSE: Dense = Dense {
    norms: NormPlacement::POST,
    qk_norm: QkNormSpec::Row,
    windowed: all_but_each_fourth,
    local_rope: LocalRope::Unscaled(None),
    ..qwen::DENSE
};

pub(super) const OLMO_2: Family = Family {
    name: "olmo2",
    spec: |header| DENSE.spec(header),
    folder: Some(&FolderSpec {
        model_types: &["olmo2", "olmo3"],
        names: TensorNames { layer: &[llama::ATTENTION_AND_GATED, llama::POST_NORMS], ..llama::FOLDER.names },
        rope: RopeOrder::Halves,
        windowed: all_but_each_fourth,
        ..llama::FOLDER
    }),
    adapt: None,
};

/// `OLMo` 3's layers with a window.
fn all_but_each_fourth(layer: u32) -> bool {
    !(layer + 1).is_multiple_of(4)
}
