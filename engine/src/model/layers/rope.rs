//! The constants of rotary embeddings on the device.

use super::super::loader::{Floats, Loader};
use super::super::options::ModelOptions;
use super::super::rope::{LONG_ROPE_FACTORS, ROPE_FACTORS, RopeSpec, SHORT_ROPE_FACTORS};
use super::super::spec::{AttentionSpec, QkNormSpec};
use super::block::Block;
use crate::error::Result;
use crate::exec::BufferId;
use crate::kernels::{RopePairing, Rotary};

/// How kernels rotate the queries and keys of a layer.
pub(super) fn rotary(spec: &AttentionSpec) -> Rotary {
    let rope = spec.rope.as_ref();
    // A norm behind the rotation takes a factor away.
    let magnified = rope.filter(|_| spec.qk_norm != Some(QkNormSpec::RotatedHead));
    Rotary {
        rotated: rope.map_or(0, |rope| rope.rotated),
        pairing: rope.map_or(RopePairing::Halves, |rope| rope.pairing),
        magnitude: magnified.map_or(1.0, |rope| rope.magnitude),
        temperature: rope.and_then(|rope| rope.temperature),
    }
}

/// Loads for each layer the frequencies of its rotary embedding, and behind them the weights of its QK-norm where each head has the
/// same, and its sinks. Layers without both share those of the same rotary embedding.
pub(crate) fn load_constants(loader: &mut Loader<'_>, options: &ModelOptions, blocks: &[Block]) -> Result<Vec<BufferId>> {
    let mut kinds: Vec<(Option<&RopeSpec>, Floats, Option<BufferId>)> = Vec::new();
    let mut constants = Vec::with_capacity(blocks.len());
    for attention in blocks.iter().map(|block| &block.attention) {
        let rope = attention.spec.rope.as_ref();
        let kind = if let Some(kind) = kinds.iter().position(|(kind, ..)| *kind == rope) {
            kind
        } else {
            kinds.push((rope, load_frequencies(loader, rope, options)?, None));
            kinds.len() - 1
        };
        let (_, frequencies, shared) = &mut kinds[kind];
        let norm = attention.qk_norm.as_ref().filter(|norm| norm.of_each_head);
        let mut parts = vec![*frequencies];
        parts.extend(norm.iter().flat_map(|norm| norm.values).chain(attention.sinks));
        constants.push(match (&parts[1..], *shared) {
            ([], Some(buffer)) => buffer,
            ([], None) => *shared.insert(loader.buffer("rope constants", &parts)?),
            _ => loader.buffer("rope constants", &parts)?,
        });
    }
    Ok(constants)
}

/// The frequencies of a rotary embedding, or something to bind where there is none.
fn load_frequencies(loader: &mut Loader<'_>, rope: Option<&RopeSpec>, options: &ModelOptions) -> Result<Floats> {
    let Some(rope) = rope.cloned() else { return loader.computed(&[], 1, |_| vec![0.0]) };
    let long = if options.context > rope.original_context { LONG_ROPE_FACTORS } else { SHORT_ROPE_FACTORS };
    let pairs = rope.rotated / 2;
    let mut factors = Vec::new();
    if rope.factors {
        factors.extend([ROPE_FACTORS, long].into_iter().filter(|name| loader.has(name)).map(|name| (name, pairs)));
    }
    loader.computed(&factors, pairs, move |factors| rope.frequencies(factors.last().map(Vec::as_slice)))
}
