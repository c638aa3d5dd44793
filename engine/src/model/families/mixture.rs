//! Families with mixtures of experts: dense ones whose layers, or most of them, choose their feed-forward network for each token.

use super::dense::Dense;
use super::header::{Header, MAX_DIM};
use super::{Family, llama, qwen};
use crate::error::{EngineError, Result};
use crate::kernels::{Activation, Gating, TopK};
use crate::model::spec::{DenseSpec, MoeSpec, QkNormSpec, SharedExpert};

/// How the layers of a family choose experts, where the file does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixture {
    /// Scores of the experts.
    pub(super) gating: Gating,
    /// The weights of a token's experts become 1 together.
    pub(super) normalize: bool,
    /// The expert that all tokens have, where a layer has one, is multiplied by the sigmoid of a number.
    pub(super) gated_shared: bool,
}

impl Mixture {
    /// Softmax of all, with weights that become 1 together.
    pub(super) const SOFTMAX: Self = Self { gating: Gating::Softmax, normalize: true, gated_shared: false };

    /// The mixture of a checkpoint's layers, as far as the header states it; `None`: it has no experts.
    pub(super) fn spec(self, header: &Header<'_>, activation: Activation) -> Result<Option<MoeSpec>> {
        let Some(experts) = header.integer("expert_count")?.filter(|experts| *experts > 0) else { return Ok(None) };
        let width = match header.integer("expert_feed_forward_length")?.filter(|width| *width > 0) {
            Some(width) => header.within("expert_feed_forward_length", width, MAX_DIM)?,
            None => header.size("feed_forward_length", MAX_DIM)?,
        };
        let gating = match header.integer("expert_gating_func")?.filter(|function| *function > 0) {
            None => self.gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(other) => {
                let supported = "1 (softmax), 2 (sigmoid), 3 (softmax of the chosen)".to_owned();
                return Err(EngineError::Unsupported { what: "expert_gating_func", value: other.to_string(), supported });
            }
        };
        let top_k = TopK {
            experts,
            used: header.metadata().u32(&header.key("expert_used_count"))?,
            gating,
            groups: header.integer("expert_group_count")?.unwrap_or(1).max(1),
            groups_used: header.integer("expert_group_used_count")?.unwrap_or(1).max(1),
            normalize: header.flag("expert_weights_norm")?.unwrap_or(self.normalize),
            scale: header.factor("expert_weights_scale")?.unwrap_or(1.0),
        };
        // Its width, or that of so many experts side by side.
        let shared = match header.integer("expert_shared_feed_forward_length")?.filter(|width| *width > 0) {
            Some(width) => Some(width),
            None => header.integer("expert_shared_count")?.filter(|count| *count > 0).map(|count| count.saturating_mul(width)),
        };
        let shared = shared.map(|width| header.within("expert_shared_feed_forward_length", width, MAX_DIM)).transpose()?;
        let shared = shared.map(|width| SharedExpert {
            dense: DenseSpec { width, activation, xielu: None, gated: true, sub_norm: false },
            gated: self.gated_shared,
        });
        Ok(Some(MoeSpec { top_k, selection_bias: false, width, activation, shared }))
    }
}

const QWEN: Dense = Dense { mixture: Some(Mixture::SOFTMAX), ..qwen::DENSE };

pub(super) const QWEN_3_MOE: Family = Family::gguf("qwen3moe", |header| QWEN.spec(header));

/// The language model of Qwen 3 VL with experts.
pub(super) const QWEN_3_VL_MOE: Family = Family::gguf("qwen3vlmoe", |header| QWEN.spec(header));

pub(super) const QWEN_2_MOE: Family = Family::gguf("qwen2moe", |header| {
    let mixture = Mixture { normalize: false, gated_shared: true, ..Mixture::SOFTMAX };
    Dense { mixture: Some(mixture), ..QWEN }.spec(header)
});

pub(super) const OLMOE: Family = Family::gguf("olmoe", |header| {
    let mixture = Mixture { normalize: false, ..Mixture::SOFTMAX };
    Dense { mixture: Some(mixture), qk_norm: QkNormSpec::Row, ..QWEN }.spec(header)
});

pub(super) const GRANITE_MOE: Family =
    Family::gguf("granitemoe", |header| Dense { mixture: Some(Mixture::SOFTMAX), ..llama::DENSE }.spec(header));

pub(super) const ERNIE_4_5_MOE: Family =
    Family::gguf("ernie4_5-moe", |header| Dense { mixture: Some(Mixture::SOFTMAX), rope_base: 500_000.0, ..llama::DENSE }.spec(header));

pub(super) const HUNYUAN_MOE: Family =
    Family::gguf("hunyuan-moe", |header| Dense { qk_norm: QkNormSpec::RotatedHead, ..QWEN }.spec(header));

const SIGMOID: Mixture = Mixture { gating: Gating::Sigmoid, ..Mixture::SOFTMAX };

pub(super) const GLM_4_MOE: Family =
    Family::gguf("glm4moe", |header| Dense { mixture: Some(SIGMOID), ffn_norm: "post_attention_norm", ..qwen::DENSE }.spec(header));

pub(super) const DOTS_1: Family = Family::gguf("dots1", |header| Dense { mixture: Some(SIGMOID), ..qwen::DENSE }.spec(header));

pub(super) const MINIMAX_M2: Family =
    Family::gguf("minimax-m2", |header| Dense { mixture: Some(SIGMOID), qk_norm: QkNormSpec::Row, ..qwen::DENSE }.spec(header));

/// `OpenAI`'s open models: windows in every other layer, sinks, and clamped units.
pub(super) const GPT_OSS: Family = Family::gguf("gpt-oss", |header| {
    let dense = Dense {
        mixture: Some(Mixture { gating: Gating::SoftmaxOfChosen, ..Mixture::SOFTMAX }),
        activation: Activation::ClampedUnit,
        ffn_norm: "post_attention_norm",
        rope_base: 150_000.0,
        windowed: |layer| layer.is_multiple_of(2),
        ..qwen::DENSE
    };
    dense.spec(header)
});
