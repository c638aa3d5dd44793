//! GLM 4: half of each head rotated, gate and up in one tensor, and from the 0414 versions on norms behind attention and feed-forward
//! network.

use super::Family;
use super::dense::Dense;
use super::header::Header;
use super::llama;
use crate::error::Result;
use crate::kernels::RopePairing;
use crate::model::spec::NormPlacement;

pub(super) const CHATGLM: Family = Family::gguf("chatglm", |header| llama::DENSE.spec(header));

pub(super) const GLM_4: Family = Family::gguf("glm4", |header| {
    let rope = Some(if rotates_by_sections(header)? { RopePairing::Halves } else { RopePairing::Neighbours });
    Dense { norms: NormPlacement::SANDWICH, rope, ..llama::DENSE }.spec(header)
});

/// Whether sections of a head rotate by positions of their own. They are the same for text, but the pairs are those in halves.
fn rotates_by_sections(header: &Header<'_>) -> Result<bool> {
    let key = header.key("rope.dimension_sections");
    let sections = if header.metadata().contains(&key) { header.metadata().u32_array(&key)? } else { Vec::new() };
    Ok(sections.iter().filter(|section| **section > 0).count() > 1)
}
