//! How the blocks of each weight format are arranged: where the bits of a value lie, and which bytes scale them.
//!
//! `engine/build` includes this file: the shader features of each format follow from the table.

use super::DType;
use Quants::{Codebook, Floats, Int8, Packed};

/// The arrangement of a block, from `ggml-common.h` and `gguf/quants.py`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLayout {
    /// The values, or their lower bits.
    pub(crate) low: Plane,
    /// The values' upper bits, where they lie apart.
    pub(crate) high: Option<Plane>,
    /// First byte and number of the bytes that hold the scales.
    pub(crate) scales: (u32, u32),
    /// The same for scales in a second place.
    pub(crate) more_scales: (u32, u32),
    /// How a quant becomes a value.
    pub(crate) quants: Quants,
    /// A value is `scale * quant + offset`, not `scale * quant`.
    #[allow(dead_code, reason = "for engine/build")]
    pub(crate) offsets: bool,
    /// Each 16 values have a scale, and an offset, of their own.
    #[allow(dead_code, reason = "for engine/build")]
    pub(crate) per16_scales: bool,
}

/// How the quants of a format become values: kernels differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quants {
    /// They are floating-point numbers.
    Floats,
    /// They are signed bytes.
    Int8,
    /// They are integers of up to six bits, less a zero point.
    Packed,
    /// They are indices into a codebook.
    Codebook,
}

/// Numbers of the same few bits: a run of bytes holds as many numbers in its lowest bits, the next ones in the next bits, and so on;
/// then comes the next run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    /// First byte.
    pub(crate) at: u32,
    /// Bits of a number: 1, 2, 4, 8, 16 or 32.
    pub(crate) bits: u32,
    /// Bytes in a run; with 1 the numbers lie in order.
    pub(crate) run: u32,
}

const fn plane(at: u32, bits: u32, run: u32) -> Plane {
    Plane { at, bits, run }
}

const fn block(quants: Quants, low: Plane, high: Option<Plane>, scales: (u32, u32)) -> BlockLayout {
    BlockLayout { low, high, scales, more_scales: (0, 0), quants, offsets: false, per16_scales: false }
}

impl BlockLayout {
    const fn with_offsets(self) -> Self {
        Self { offsets: true, ..self }
    }

    const fn with_per16_scales(self) -> Self {
        Self { per16_scales: true, ..self }
    }
}

/// Every format that can be decoded.
pub(crate) const FORMATS: [(DType, BlockLayout); 16] = [
    (DType::F32, block(Floats, plane(0, 32, 1), None, (0, 0))),
    (DType::F16, block(Floats, plane(0, 16, 1), None, (0, 0))),
    (DType::BF16, block(Floats, plane(0, 16, 1), None, (0, 0))),
    (DType::Q8_0, block(Int8, plane(2, 8, 1), None, (0, 2))),
    (DType::Q4_0, block(Packed, plane(2, 4, 16), None, (0, 2))),
    (DType::Q4_1, block(Packed, plane(4, 4, 16), None, (0, 4)).with_offsets()),
    (DType::Q5_0, block(Packed, plane(6, 4, 16), Some(plane(2, 1, 1)), (0, 2))),
    (DType::Q5_1, block(Packed, plane(8, 4, 16), Some(plane(4, 1, 1)), (0, 4)).with_offsets()),
    (
        DType::Q2_K,
        BlockLayout { more_scales: (80, 4), ..block(Packed, plane(16, 2, 32), None, (0, 16)).with_offsets().with_per16_scales() },
    ),
    (DType::Q3_K, block(Packed, plane(32, 2, 32), Some(plane(0, 1, 32)), (96, 14)).with_per16_scales()),
    (DType::Q4_K, block(Packed, plane(16, 4, 32), None, (0, 16)).with_offsets()),
    (DType::Q5_K, block(Packed, plane(48, 4, 32), Some(plane(16, 1, 32)), (0, 16)).with_offsets()),
    (DType::Q6_K, block(Packed, plane(0, 4, 64), Some(plane(128, 2, 32)), (192, 18)).with_per16_scales()),
    (DType::IQ4_NL, block(Codebook, plane(2, 4, 16), None, (0, 2))),
    (DType::IQ4_XS, block(Codebook, plane(8, 4, 16), None, (0, 8))),
    (DType::MXFP4, block(Codebook, plane(1, 4, 16), None, (0, 1))),
];

impl BlockLayout {
    /// The layout of a format's blocks; `None` for a format that cannot be decoded.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        FORMATS.iter().find(|(d, _)| *d == dtype).map(|(_, layout)| *layout)
    }

    /// Whether its quants are multiplied as int8: the shader feature `int8_quants`.
    pub(crate) fn has_int8_quants(&self) -> bool {
        matches!(self.quants, Int8 | Packed)
    }

    /// Quant `i` of a block, to be read by [`value`](crate::formats::dequantize::value).
    pub(crate) fn quant(&self, block: &[u8], i: usize) -> u32 {
        self.low.get(block, i) | self.high.map_or(0, |high| high.get(block, i) << self.low.bits)
    }

    /// The bytes of a block that hold its scales.
    pub(crate) fn scales(&self, block: &[u8]) -> Vec<u8> {
        let part = |(at, bytes): (u32, u32)| &block[at as usize..(at + bytes) as usize];
        [part(self.scales), part(self.more_scales)].concat()
    }
}

impl Plane {
    fn get(&self, block: &[u8], i: usize) -> u32 {
        let (at, bits, run) = (self.at as usize, self.bits as usize, self.run as usize);
        if bits >= 8 {
            let bytes = &block[at + i * bits / 8..][..bits / 8];
            return bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        }
        let numbers = 8 / bits; // in a byte
        let byte = block[at + i / (run * numbers) * run + i % run];
        u32::from(byte >> (bits * (i / run % numbers))) & ((1 << bits) - 1)
    }
}
