//! Scalar dequantization: the reference the shaders are tested against, bit-equal to the `gguf` Python package.

use half::{bf16, f16};

use super::{DType, FormatError};

/// Appends the values stored in `bytes`, a whole number of blocks, to `out`.
///
/// Layouts and order of operations are those of `gguf/quants.py` (`dequantize_blocks`).
///
/// # Errors
/// [`FormatError::UnsupportedDType`] and [`FormatError::PartialBlock`].
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), FormatError> {
    let decode: fn(&[u8], &mut Vec<f32>) = match dtype {
        DType::F32 => |b, out| out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::F16 => |b, out| out.push(half_at(b, 0)),
        DType::BF16 => |b, out| out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        DType::Q8_0 => q8_0,
        DType::Q4_0 => q4_0,
        DType::Q4_K => q4_k,
        DType::Q6_K => q6_k,
        _ => return Err(FormatError::UnsupportedDType { dtype }),
    };
    let block = dtype.block_bytes() as usize;
    if !bytes.len().is_multiple_of(block) {
        return Err(FormatError::PartialBlock { dtype, bytes: bytes.len() as u64 });
    }
    out.reserve(bytes.len() / block * dtype.block_size() as usize);
    bytes.chunks_exact(block).for_each(|b| decode(b, out));
    Ok(())
}

/// The little-endian f16 at byte `i`.
fn half_at(b: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([b[i], b[i + 1]]).to_f32()
}

/// `Q8_0`: f16 scale, 32 signed bytes.
fn q8_0(b: &[u8], out: &mut Vec<f32>) {
    let d = half_at(b, 0);
    out.extend(b[2..].iter().map(|&q| f32::from(q as i8) * d));
}

/// `Q4_0`: f16 scale, 16 bytes: low nibbles are values 0 to 15, high nibbles 16 to 31, each minus 8.
fn q4_0(b: &[u8], out: &mut Vec<f32>) {
    let d = half_at(b, 0);
    for shift in [0, 4] {
        out.extend(b[2..].iter().map(|&q| d * (f32::from((q >> shift) & 15) - 8.0)));
    }
}

/// `Q4_K`: f16 scale of scales, f16 scale of minima, 8 pairs of 6-bit scale and minimum in 12 bytes, 256 nibbles. Each 32 bytes of
/// nibbles hold two sub-blocks of 32 values, low nibbles first.
fn q4_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, d_min) = (half_at(b, 0), half_at(b, 2));
    let scales = &b[4..16];
    for j in 0..8 {
        let (scale, min) = if j < 4 {
            (scales[j] & 63, scales[j + 4] & 63)
        } else {
            let low = scales[j + 4];
            ((low & 15) | ((scales[j - 4] >> 2) & 0x30), (low >> 4) | ((scales[j] >> 2) & 0x30))
        };
        let (d, min) = (d * f32::from(scale), d_min * f32::from(min));
        let shift = 4 * (j % 2);
        let nibbles = &b[16 + 32 * (j / 2)..][..32];
        out.extend(nibbles.iter().map(|&q| d * f32::from((q >> shift) & 15) - min));
    }
}

/// `Q6_K`: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed 8-bit scales (one for 16 values), f16 scale of scales.
/// Values are the 6-bit numbers minus 32.
fn q6_k(b: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for i in 0..256 {
        let (half, group, lane) = (i / 128, i / 32 % 4, i % 32);
        let nibble = (low[half * 64 + group % 2 * 32 + lane] >> (4 * (group / 2))) & 15;
        let bits = (high[half * 32 + lane] >> (2 * group)) & 3;
        let q = i32::from(nibble | (bits << 4)) - 32;
        out.push(d * f32::from(scales[i / 16] as i8) * q as f32);
    }
}
