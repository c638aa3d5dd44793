//! Scalar dequantization: the reference the shaders are tested against, bit-equal to the `gguf` Python package.

use half::{bf16, f16};

use super::block::BlockLayout;
use super::{DType, FormatError};

/// Appends the values stored in `bytes`, a whole number of blocks, to `out`.
///
/// Layouts and order of operations are those of `gguf/quants.py` (`dequantize_blocks`).
///
/// # Errors
/// [`FormatError::UnsupportedDType`] and [`FormatError::PartialBlock`].
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), FormatError> {
    let layout = BlockLayout::of(dtype).ok_or(FormatError::UnsupportedDType { dtype })?;
    let block = dtype.block_bytes() as usize;
    if !bytes.len().is_multiple_of(block) {
        return Err(FormatError::PartialBlock { dtype, bytes: bytes.len() as u64 });
    }
    let size = dtype.block_size() as usize;
    out.reserve(bytes.len() / block * size);
    for block in bytes.chunks_exact(block) {
        let scales = layout.scales(block);
        out.extend((0..size).map(|i| value(dtype, &scales, i, layout.quant(block, i))));
    }
    Ok(())
}

/// What the stored number `q` of value `i` of a block means; `s` are the block's scales as [`BlockLayout::scales`] gives them.
pub(crate) fn value(dtype: DType, s: &[u8], i: usize, q: u32) -> f32 {
    let half = |at: usize| f16::from_le_bytes([s[at], s[at + 1]]).to_f32();
    let n = q as f32;
    match dtype {
        DType::F32 => f32::from_bits(q),
        DType::F16 => f16::from_bits(q as u16).to_f32(),
        DType::BF16 => bf16::from_bits(q as u16).to_f32(),
        DType::Q8_0 => half(0) * f32::from(q as i8),
        DType::Q4_0 => half(0) * (n - 8.0),
        DType::Q4_1 | DType::Q5_1 => half(0) * n + half(2),
        DType::Q5_0 => half(0) * (n - 16.0),
        // 16 scales in low and minima in high nibbles, f16 scale of the scales, f16 scale of the minima.
        DType::Q2_K => half(16) * f32::from(s[i / 16] & 15) * n - half(18) * f32::from(s[i / 16] >> 4),
        // 16 scales of 6 bits: 8 bytes of low nibbles, 4 bytes of high pairs; f16 scale of the scales.
        DType::Q3_K => {
            let j = i / 16;
            let low = (s[j % 8] >> (4 * (j / 8))) & 15;
            let high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
            half(12) * (f32::from(low | high << 4) - 32.0) * (n - 4.0)
        }
        // f16 scale of the scales, f16 scale of the minima, 8 pairs of 6-bit scale and minimum in 12 bytes.
        DType::Q4_K | DType::Q5_K => {
            let (j, a, b, c) = (i / 32, s[4 + i / 32 % 4], s[8 + i / 32 % 4], s[12 + i / 32 % 4]);
            let (scale, min) = if j < 4 { (a & 63, b & 63) } else { ((c & 15) | (a >> 6) << 4, (c >> 4) | (b >> 6) << 4) };
            half(0) * f32::from(scale) * n - half(2) * f32::from(min)
        }
        // 16 signed scales, f16 scale of the scales.
        DType::Q6_K => half(16) * f32::from(s[i / 16] as i8) * (n - 32.0),
        DType::IQ4_NL => half(0) * IQ4[q as usize],
        // f16 scale of the scales, 8 scales of 6 bits: high pairs in 2 bytes, low nibbles in 4.
        DType::IQ4_XS => {
            let j = i / 32;
            let low = (s[4 + j / 2] >> (4 * (j % 2))) & 15;
            let high = (s[2 + j / 4] >> (2 * (j % 4))) & 3;
            half(0) * (f32::from(low | high << 4) - 32.0) * IQ4[q as usize]
        }
        DType::MXFP4 => half_power(s[0]) * E2M1[q as usize],
        _ => unreachable!("there is no layout for {dtype}"),
    }
}

/// The values of the 4-bit numbers in `IQ4_NL` and `IQ4_XS`.
const IQ4: [f32; 16] = [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Twice the values of E2M1, the 4-bit floats of the OCP Microscaling Formats 1.0; ggml has no negative zero.
const E2M1: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Half of an E8M0 scale: `2^(e - 128)`.
fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}
