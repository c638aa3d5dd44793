//! The layout that [`super::Repack`] gives weights, and its dequantization: the Rust side of `shaders/shared/weights.wesl`.
//!
//! A row is `stride` words: the quants (their lower bits, then their upper bits where a format keeps them apart), then the
//! scales of its blocks. Every value of the GGUF block is kept exactly.

use crate::dtype::block::{BlockLayout, Quants};
use crate::error::{EngineError, Result};
use crate::formats::dequantize::value;
use crate::formats::{DType, FormatError};
use crate::shaders::variants::Weights;

/// Layout of a matrix of one type in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightLayout {
    /// The GGUF type.
    pub dtype: DType,
    /// Weights in a row.
    pub cols: u32,
    /// Words in a row: a multiple of 4, so that rows start on 16 bytes.
    pub stride: u32,
    /// Bytes of a row in the file.
    pub file_row_bytes: u32,
}

/// Order of eight neighbouring elements of quantized activations in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interleave {
    /// The order of the elements.
    None,
    /// Even elements first: the order of packed quants.
    EvenOdd,
}

impl Interleave {
    /// Position of element `i` of a row.
    pub(super) fn place(self, i: usize) -> usize {
        match self {
            Self::None => i,
            Self::EvenOdd => i / 8 * 8 + i % 2 * 4 + i % 8 / 2,
        }
    }
}

impl WeightLayout {
    /// The layout of rows of `cols` weights.
    ///
    /// # Errors
    /// When there is no kernel for the type or the length is not a whole number of its blocks (eight for floats).
    pub fn new(name: &str, dtype: DType, cols: u64) -> Result<Self> {
        let layout = || {
            let cols = u32::try_from(cols).ok().filter(|cols| *cols != 0)?;
            let mut layout = Self { dtype, cols, stride: 0, file_row_bytes: 0 };
            let whole = BlockLayout::of(dtype).is_some() && cols.is_multiple_of(layout.block());
            let blocks = cols / layout.block();
            layout.file_row_bytes = whole.then(|| blocks.checked_mul(layout.block_bytes()))??;
            let [low, high, scales] = layout.sections();
            layout.stride = low.checked_add(high)?.checked_add(scales)?.checked_next_multiple_of(4)?;
            Some(layout)
        };
        if !dtype.is_supported() {
            return Err(FormatError::UnsupportedTensor { name: name.to_owned(), dtype }.into());
        }
        layout().ok_or_else(|| EngineError::Unsupported {
            what: "row length",
            value: format!("{cols} of {name} in {dtype}"),
            supported: format!("multiples of {}", dtype.block_size().max(8)),
        })
    }

    /// The variant of kernels that read this type.
    pub(super) fn weights(&self) -> Weights {
        Weights::of(self.dtype).expect("new() refused others")
    }

    /// Whether [`super::Matvec`] multiplies its quants as int8.
    pub(super) fn has_int8_quants(&self) -> bool {
        self.parts().has_int8_quants()
    }

    /// The order of quantized activations that its quants are multiplied by.
    pub fn interleave(&self) -> Interleave {
        if self.parts().quants == Quants::Int8 { Interleave::None } else { Interleave::EvenOdd }
    }

    /// Layout of a block in the file.
    pub(super) fn parts(&self) -> BlockLayout {
        BlockLayout::of(self.dtype).expect("new() refused others")
    }

    /// Weights in a block. Floats have none: eight, as many as a kernel reads at once.
    pub(super) fn block(&self) -> u32 {
        self.dtype.block_size().max(8) as u32
    }

    /// Bytes of a block in the file.
    pub(super) fn block_bytes(&self) -> u32 {
        (u64::from(self.block()) / self.dtype.block_size() * self.dtype.block_bytes()) as u32
    }

    /// Bytes from a block's packed scales to the next ones: 1, 2, or whole words.
    pub(super) fn scale_bytes(&self) -> u32 {
        let parts = self.parts();
        let bytes = parts.scales.1 + parts.more_scales.1;
        if bytes > 2 { bytes.next_multiple_of(4) } else { bytes }
    }

    /// Words of a row's lower bits, upper bits, and scales.
    fn sections(&self) -> [u32; 3] {
        let parts = self.parts();
        let scales = self.cols / self.block() * self.scale_bytes();
        [self.cols / (32 / parts.low.bits), parts.high.map_or(0, |high| self.cols / (32 / high.bits)), scales.div_ceil(4)]
    }

    /// Packs one row of the file; `row` has `stride` words.
    pub(super) fn pack_row(&self, raw: &[u8], row: &mut [u32]) {
        let parts = self.parts();
        let [low_words, high_words, _] = self.sections().map(|words| words as usize);
        row.fill(0);
        let (low, rest) = row.split_at_mut(low_words);
        let (high, scales) = rest.split_at_mut(high_words);
        let scales: &mut [u8] = bytemuck::cast_slice_mut(scales);
        let (block, scale_bytes) = (self.block() as usize, self.scale_bytes() as usize);
        for (b, bytes) in raw.chunks_exact(self.block_bytes() as usize).enumerate() {
            for i in 0..block {
                let q = parts.quant(bytes, i);
                put(low, parts.low.bits, b * block + i, q);
                if let Some(plane) = parts.high {
                    put(high, plane.bits, b * block + i, q >> parts.low.bits);
                }
            }
            let from = parts.scales(bytes);
            scales[b * scale_bytes..][..from.len()].copy_from_slice(&from);
        }
    }
}

/// The weights of one packed row.
pub fn dequantize_row(layout: &WeightLayout, row: &[u32]) -> Vec<f32> {
    let parts = layout.parts();
    let [low_words, high_words, _] = layout.sections().map(|words| words as usize);
    let (low, rest) = row.split_at(low_words);
    let (high, scales) = rest.split_at(high_words);
    let scales: &[u8] = bytemuck::cast_slice(scales);
    let (block, scale_bytes) = (layout.block() as usize, layout.scale_bytes() as usize);
    (0..layout.cols as usize)
        .map(|i| {
            let q = get(low, parts.low.bits, i) | parts.high.map_or(0, |plane| get(high, plane.bits, i) << parts.low.bits);
            value(layout.dtype, &scales[i / block * scale_bytes..], i % block, q)
        })
        .collect()
}

/// Quant `i` of `words`, `bits` bits each.
fn get(words: &[u32], bits: u32, i: usize) -> u32 {
    let (word, shift) = place(bits, i);
    (words[word] >> shift) & (u32::MAX >> (32 - bits))
}

/// The inverse of [`get`], over zeros; bits beyond `bits` are dropped.
fn put(words: &mut [u32], bits: u32, i: usize, number: u32) {
    let (word, shift) = place(bits, i);
    words[word] |= (number & (u32::MAX >> (32 - bits))) << shift;
}

/// Word and lowest bit of quant `i`. Quants of a few bits are interleaved for decoding as bytes, the even ones of each eight before the
/// odd ones: each byte of a word has an even one with the odd one behind it, and above them those of the next eight.
fn place(bits: u32, i: usize) -> (usize, u32) {
    let in_word = i as u32 % (32 / bits);
    let shift = if bits >= 8 { bits * in_word } else { 8 * (in_word % 8 / 2) + bits * (2 * (in_word / 8) + in_word % 2) };
    (i / (32 / bits as usize), shift)
}
