//! `OLMo` 1, whose layer norms have no weights; `OLMo` 2 and 3: norms behind attention and feed-forward network, and of whole rows of
//! queries and keys.

use super::dense::{Dense, LocalRope, NormWeights, all_but_each_fourth};
use super::{Family, llama, qwen};
use crate::error::EngineError;
use crate::formats::huggingface::{FolderSpec, RopeOrder, TensorNames};
use crate::kernels::NormKind;
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

pub(super) const OLMO: Family = Family::gguf("olmo", |header| {
    if let Some(bound) = header.factor("attention.clamp_kqv")? {
        let (value, supported) = (format!("{bound}"), "queries, keys and values without a bound".to_owned());
        return Err(EngineError::Unsupported { what: "attention.clamp_kqv", value, supported });
    }
    Dense { norm: NormKind::Layer, norm_weights: NormWeights::Ones, ..llama::DENSE }.spec(header)
});
