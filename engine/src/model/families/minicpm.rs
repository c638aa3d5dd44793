//! `MiniCPM`: Llama with factors on embeddings, residuals and logits.

use super::Family;
use super::header::Header;
use super::llama;
use crate::error::Result;
use crate::model::spec::ModelSpec;

pub(super) const MINICPM: Family = Family::gguf("minicpm", spec);

/// Early files leave out the factors, which are those of 2B.
fn spec(header: &Header<'_>) -> Result<ModelSpec> {
    let mut spec = llama::DENSE.spec(header)?;
    if header.number("embedding_scale")?.is_none() {
        spec.embedding.scale = 12.0;
    }
    if header.number("residual_scale")?.is_none() {
        let scale = 1.4 / (spec.layers.len() as f32).sqrt();
        spec.layers.iter_mut().for_each(|layer| layer.residual_scale = scale);
    }
    if header.number("logit_scale")?.is_none() {
        spec.head.scale = spec.dim as f32 / 256.0;
    }
    Ok(spec)
}
