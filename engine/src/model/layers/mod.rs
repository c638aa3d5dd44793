//! The kinds of layers, a file each: a struct of weights that is loaded by the names that a file has for them, and records its kernels
//! in a pass.

mod attention;
mod block;
mod embedding;
mod head;
mod linear;
mod mlp;
mod moe;
mod norm;
mod packed;
mod rope;

pub(super) use attention::AttentionBuffers;
pub(super) use block::Block;
pub(super) use embedding::Embedding;
pub(super) use head::{Head, record_gather};
pub(super) use linear::{INT16_ROWS, Projection};
pub(super) use moe::ExpertMatrices;
pub(super) use norm::NormWeights;
pub(super) use rope::load_constants;
