//! The weights of one layer, found by the names that a file has for them.

use super::loader::{Floats, Loader, Part};
use super::padding::padded_width;
use super::slab::Weight;
use super::spec::{ModelSpec, OutputNorm};
use crate::error::{EngineError, Result};
use crate::kernels::NormKind;
use crate::recording::BufferId;

/// Weights of a norm.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormWeights {
    pub(super) weight: BufferId,
    pub(super) bias: Option<BufferId>,
}

/// A matrix with the bias of its products.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    pub(super) weight: Weight,
    /// One element for each row of the matrix.
    pub(super) bias: Option<BufferId>,
}

/// Norms of queries and keys with the number of their weights.
#[derive(Debug)]
pub(super) struct QkNormWeights {
    pub(super) q: (BufferId, u32),
    pub(super) k: (BufferId, u32),
    /// Each head is normalized, with the same weights: what [`AttentionDecode`](crate::kernels::AttentionDecode) can do itself.
    pub(super) of_each_head: bool,
    /// The weights of q and k, for the buffer that they share with the frequencies of the rotary embedding.
    pub(super) values: [Floats; 2],
}

/// What comes before the activation of a feed-forward network.
#[derive(Debug)]
pub(super) enum Up {
    /// Gate and up, their rows alternating.
    Interleaved(Projection),
    /// Gate and up of different types.
    Separate { gate: Projection, up: Projection },
    /// No gate.
    Plain(Projection),
}

/// One layer. The norms that it has depend on the spec's [`NormPlacement`](super::spec::NormPlacement).
#[derive(Debug)]
pub(super) struct Layer {
    /// Before attention.
    pub(super) attention_norm: Option<NormWeights>,
    /// Parts with their first element in a row of qkv: one part, unless the file mixes types.
    pub(super) qkv: Vec<(Projection, u32)>,
    pub(super) qk_norm: Option<QkNormWeights>,
    pub(super) attention_output: Projection,
    /// Behind attention.
    pub(super) attention_post_norm: Option<NormWeights>,
    /// Before the feed-forward network.
    pub(super) feed_forward_norm: Option<NormWeights>,
    pub(super) up: Up,
    pub(super) down: Projection,
    /// Behind the feed-forward network.
    pub(super) feed_forward_post_norm: Option<NormWeights>,
}

impl Layer {
    pub(super) fn load(loader: &mut Loader<'_>, spec: &ModelSpec, i: u32) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let dim = spec.dim;
        let layer = &spec.layers[i as usize];
        let post = match layer.norms.output {
            OutputNorm::None => None,
            OutputNorm::Branch => Some(("post_attention_norm", "post_ffw_norm")),
            OutputNorm::Sum => Some(("attn_output_norm", "layer_output_norm")),
        };
        let mut attention_norm = None;
        let mut feed_forward_norm = None;
        if layer.norms.input {
            attention_norm = Some(loader.norm(&name("attn_norm"), dim)?);
            if layer.parallel {
                feed_forward_norm = attention_norm;
                // Falcon 40B: the first norm is the feed-forward network's alone.
                if loader.has(&name("attn_norm_2.weight")) {
                    attention_norm = Some(loader.norm(&name("attn_norm_2"), dim)?);
                }
            } else {
                feed_forward_norm = Some(loader.norm(&name("ffn_norm"), dim)?);
            }
        }
        let (mut attention_post_norm, mut feed_forward_post_norm) = (None, None);
        if let Some((attention, feed_forward)) = post {
            attention_post_norm = Some(loader.norm(&name(attention), dim)?);
            feed_forward_post_norm = Some(loader.norm(&name(feed_forward), dim)?);
        }
        Ok(Self {
            attention_norm,
            qkv: load_qkv(loader, spec, i)?,
            qk_norm: load_qk_norm(loader, spec, i)?,
            attention_output: loader.projection(&name("attn_output"), dim, padded_width(layer.attention().output_row()))?,
            attention_post_norm,
            feed_forward_norm,
            up: load_up(loader, spec, i)?,
            down: loader.projection(&name("ffn_down"), dim, layer.dense().width)?,
            feed_forward_post_norm,
        })
    }
}

fn load_qkv(loader: &mut Loader<'_>, spec: &ModelSpec, i: u32) -> Result<Vec<(Projection, u32)>> {
    let name = |part: &str| format!("blk.{i}.{part}");
    let attention = spec.layers[i as usize].attention();
    if loader.has(&name("attn_qkv.weight")) {
        return Ok(vec![(loader.projection(&name("attn_qkv"), attention.qkv_row(), spec.dim)?, 0)]);
    }
    let names = ["attn_q", "attn_k", "attn_v"].map(name);
    let parts = [(&names[0], attention.query_row()), (&names[1], attention.key_row()), (&names[2], attention.value_row())];
    // Neighbours of one type are one product; files often have a finer type for the values alone.
    let mut groups: Vec<Vec<(&String, u32)>> = Vec::new();
    for (part, rows) in parts {
        match groups.last_mut() {
            Some(group) if loader.dtype(&format!("{part}.weight"))? == loader.dtype(&format!("{}.weight", group[0].0))? => {
                group.push((part, rows));
            }
            _ => groups.push(vec![(part, rows)]),
        }
    }
    let mut projections = Vec::new();
    let mut offset = 0;
    for group in groups {
        projections.push((loader.stacked_projection(&group, spec.dim)?, offset));
        offset += group.iter().map(|(_, rows)| rows).sum::<u32>();
    }
    Ok(projections)
}

fn load_qk_norm(loader: &mut Loader<'_>, spec: &ModelSpec, i: u32) -> Result<Option<QkNormWeights>> {
    let names = ["q", "k"].map(|part| format!("blk.{i}.attn_{part}_norm.weight"));
    let attention = spec.layers[i as usize].attention();
    if attention.qk_norm.is_none() {
        return Ok(None);
    }
    let head_dim = attention.key_dim;
    let mut norm = |name: &str, heads: u32| -> Result<_> {
        // One weight for each element of a head, or of all heads of a row.
        let elements = loader.elements(name)?;
        let count = if elements == u64::from(head_dim) { head_dim } else { heads * head_dim };
        let values = loader.floats(name, count)?;
        Ok(((loader.buffer(name, &[values])?, count), values))
    };
    let (q, q_values) = norm(&names[0], attention.heads)?;
    let (k, k_values) = norm(&names[1], attention.kv_heads)?;
    let of_each_head = spec.norm.kind == NormKind::Rms && q.1 + k.1 == 2 * head_dim;
    Ok(Some(QkNormWeights { q, k, of_each_head, values: [q_values, k_values] }))
}

fn load_up(loader: &mut Loader<'_>, spec: &ModelSpec, i: u32) -> Result<Up> {
    let (gate, up) = (format!("blk.{i}.ffn_gate"), format!("blk.{i}.ffn_up"));
    let (gate_weight, up_weight) = (format!("{gate}.weight"), format!("{up}.weight"));
    let dense = spec.layers[i as usize].dense();
    let ff = dense.width;
    if !dense.gated {
        return Ok(Up::Plain(loader.projection(&up, ff, spec.dim)?));
    }
    if !loader.has(&gate_weight) {
        // Phi-3: one tensor with the gate's rows first.
        let halves = [Part { name: &up_weight, first_row: 0, rows: ff }, Part { name: &up_weight, first_row: ff, rows: ff }];
        if loader.has(&format!("{up}.bias")) {
            return Err(EngineError::Unsupported { what: "tensor", value: format!("{up}.bias"), supported: "no bias there".to_owned() });
        }
        return Ok(Up::Interleaved(Projection { weight: loader.interleaved(halves, spec.dim)?, bias: None }));
    }
    if loader.dtype(&gate_weight)? != loader.dtype(&up_weight)? || loader.has(&format!("{up}.bias")) {
        return Ok(Up::Separate { gate: loader.projection(&gate, ff, spec.dim)?, up: loader.projection(&up, ff, spec.dim)? });
    }
    let parts = [Part { name: &gate_weight, first_row: 0, rows: ff }, Part { name: &up_weight, first_row: 0, rows: ff }];
    Ok(Up::Interleaved(Projection { weight: loader.interleaved(parts, spec.dim)?, bias: None }))
}
