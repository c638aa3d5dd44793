//! Sampling (being written by the SHADERS helper; this is the lead's glue).

use bytemuck::{Pod, Zeroable};

use super::{Capabilities, HostBindings, Kernel, Plan};

/// A token on its way through the model, and where its sequence's cache is: `shaders/shared/rows.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Token id.
    pub token: u32,
    /// Position in its sequence.
    pub position: u32,
    /// Row of the page table and of the token counts.
    pub slot: u32,
    /// [`Row::ACTIVE`] or 0.
    pub flags: u32,
}

impl Row {
    /// The row takes part in sampling.
    pub const ACTIVE: u32 = 1;
}

/// Sampling state of a row: `Sampler` in `shaders/sample.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Sampler {
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub seed: u32,
    pub step: u32,
    pub padding: [u32; 3],
}

/// Chooses the next token of `rows` rows from `first_row` on.
#[derive(Debug)]
pub struct Sample {
    /// Vocabulary.
    pub vocab: u32,
    /// First row.
    pub first_row: u32,
    /// Rows.
    pub rows: u32,
    /// Tokens of a row that are kept for reading.
    pub ring: u32,
}

impl Sample {
    /// A row of the counts for a new sequence.
    pub fn prompt_counts(prompt: &[u32], vocab: usize) -> Vec<u32> {
        let mut counts = vec![0; vocab];
        for &token in prompt {
            counts[token as usize] = 1 << 16;
        }
        counts
    }
}

impl Kernel for Sample {
    fn plan(&self, _: &Capabilities) -> Plan {
        unimplemented!()
    }
    fn reference(&self, _: &mut HostBindings<'_>) {
        unimplemented!()
    }
}
/// x
pub fn sample_reference() {}
