//! Floats to weight formats.

use half::{bf16, f16};

use super::{DType, FormatError, dequantize};

/// Rows of `cols` values each in the format `from` as rows in the format `to`: F32, F16, BF16, `Q8_0`, `Q4_0`, `Q4_K` or `Q6_K`.
///
/// `Q8_0` and `Q4_0` are bit-equal to the `gguf` Python package's; `Q4_K` and `Q6_K` search their scales.
///
/// # Errors
/// [`FormatError::UnsupportedDType`] and [`FormatError::PartialBlock`].
pub fn convert_rows(from: DType, to: DType, cols: u64, bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    if from == to {
        return Ok(bytes.to_vec());
    }
    let mut values = Vec::new();
    dequantize(from, bytes, &mut values)?;
    let encode: fn(&[f32], &mut Vec<u8>) = match to {
        DType::F32 => |x, out| out.extend(x[0].to_le_bytes()),
        DType::F16 => |x, out| out.extend(f16::from_f32(x[0]).to_le_bytes()),
        DType::BF16 => |x, out| out.extend(bf16::from_f32(x[0]).to_le_bytes()),
        DType::Q8_0 => q8_0,
        DType::Q4_0 => q4_0,
        DType::Q4_K => q4_k,
        DType::Q6_K => q6_k,
        _ => return Err(FormatError::UnsupportedDType { dtype: to }),
    };
    let block = to.block_size();
    if !cols.is_multiple_of(block) || !(values.len() as u64).is_multiple_of(block) {
        return Err(FormatError::PartialBlock { dtype: to, bytes: bytes.len() as u64 });
    }
    let mut out = Vec::with_capacity(values.len() / block as usize * to.block_bytes() as usize);
    values.chunks_exact(block as usize).for_each(|x| encode(x, &mut out));
    Ok(out)
}

/// 1 / x, or 0 for 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The value of the largest magnitude, with its sign; the first of several.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, &v| if v.abs() > best.abs() { v } else { best })
}

/// `Q8_0`: the largest magnitude becomes ±127.
fn q8_0(x: &[f32], out: &mut Vec<u8>) {
    let d = extreme(x).abs() / 127.0;
    let per_d = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(x.iter().map(|v| (v * per_d).round() as i8 as u8));
}

/// `Q4_0`: the value of the largest magnitude becomes -8.
fn q4_0(x: &[f32], out: &mut Vec<u8>) {
    let d = extreme(x) / -8.0;
    let per_d = inverse(d);
    let q = |v: f32| ((v * per_d + 8.5) as u8).min(15);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend((0..16).map(|i| q(x[i]) | q(x[i + 16]) << 4));
}

/// `Q4_K`: for each 32 values the scale and offset of the least error, themselves quantized to 6 bits.
fn q4_k(x: &[f32], out: &mut Vec<u8>) {
    let fits: Vec<Affine> = x.chunks_exact(32).map(Affine::fit).collect();
    let largest = |of: fn(&Affine) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (d, d_min) = (f16::from_f32(largest(|f| f.scale) / 63.0), f16::from_f32(largest(|f| f.min) / 63.0));
    let six_bits = |value: f32, unit: f16| (value * inverse(unit.to_f32())).round().clamp(0.0, 63.0) as u8;
    let scales: Vec<u8> = fits.iter().map(|fit| six_bits(fit.scale, d)).collect();
    let mins: Vec<u8> = fits.iter().map(|fit| six_bits(fit.min, d_min)).collect();
    out.extend(d.to_le_bytes());
    out.extend(d_min.to_le_bytes());
    // The first four of each in six bits of a byte; the others' low four bits in a byte together, their high two above the first four's.
    out.extend((0..4).map(|j| scales[j] | scales[j + 4] >> 4 << 6));
    out.extend((0..4).map(|j| mins[j] | mins[j + 4] >> 4 << 6));
    out.extend((4..8).map(|j| scales[j] & 15 | mins[j] << 4));
    let q = |i: usize| {
        let (scale, min) = (d.to_f32() * f32::from(scales[i / 32]), d_min.to_f32() * f32::from(mins[i / 32]));
        ((x[i] + min) * inverse(scale)).round().clamp(0.0, 15.0) as u8
    };
    for pair in (0..256).step_by(64) {
        out.extend((pair..pair + 32).map(|i| q(i) | q(i + 32) << 4));
    }
}

/// Values as `scale * q - min` with q from 0 to 15.
struct Affine {
    scale: f32,
    /// Never negative.
    min: f32,
}

impl Affine {
    /// Levels above 0.
    const TOP: f32 = 15.0;

    /// The fit of least squares, larger values counting more: candidates for the scale around the one that spans the values, for each
    /// of them the best scale and offset given how it rounds.
    fn fit(x: &[f32]) -> Self {
        let mean_square = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
        let weights: Vec<f32> = x.iter().map(|v| mean_square.sqrt() + v.abs()).collect();
        let low = x.iter().copied().fold(0.0, f32::min);
        let high = x.iter().copied().fold(low, f32::max);
        let mut best = Self { scale: (high - low) / Self::TOP, min: -low };
        if high - low == 0.0 {
            return best;
        }
        let mut least = best.error(x, &weights);
        for step in 0..=20_u8 {
            let per_scale = (Self::TOP - 1.0 + 0.1 * f32::from(step)) / (high - low);
            let (mut w, mut wq, mut wqq, mut wx, mut wqx) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (&v, &weight) in x.iter().zip(&weights) {
                let q = ((v - low) * per_scale).round().clamp(0.0, Self::TOP);
                w += weight;
                wq += weight * q;
                wqq += weight * q * q;
                wx += weight * v;
                wqx += weight * q * v;
            }
            let determinant = w * wqq - wq * wq;
            if determinant <= 0.0 {
                continue;
            }
            let min = (wq * wqx - wqq * wx) / determinant;
            let candidate =
                if min >= 0.0 { Self { scale: (w * wqx - wx * wq) / determinant, min } } else { Self { scale: wqx / wqq, min: 0.0 } };
            let error = candidate.error(x, &weights);
            if error < least {
                (best, least) = (candidate, error);
            }
        }
        best
    }

    /// The weighted squared error when each value takes its nearest level.
    fn error(&self, x: &[f32], weights: &[f32]) -> f32 {
        let per_scale = inverse(self.scale);
        let error = |v: f32| self.scale * ((v + self.min) * per_scale).round().clamp(0.0, Self::TOP) - self.min - v;
        x.iter().zip(weights).map(|(&v, weight)| weight * error(v) * error(v)).sum()
    }
}

/// `Q6_K`: for each 16 values the scale of the least error, itself quantized to 8 bits with sign.
fn q6_k(x: &[f32], out: &mut Vec<u8>) {
    let fits: Vec<f32> = x.chunks_exact(16).map(symmetric_scale).collect();
    let d = f16::from_f32(extreme(&fits) / -128.0);
    let scales: Vec<i8> = fits.iter().map(|fit| (fit * inverse(d.to_f32())).round() as i8).collect();
    let q = |i: usize| {
        let scale = d.to_f32() * f32::from(scales[i / 16]);
        ((x[i] * inverse(scale)).round().clamp(-32.0, 31.0) + 32.0) as u8
    };
    let nibbles = |base: usize| (0..64).map(move |i| (base + i, base + i + 64));
    for half in [0, 128] {
        out.extend(nibbles(half).map(|(low, high)| q(low) & 15 | q(high) << 4));
    }
    for half in [0, 128] {
        out.extend((half..half + 32).map(|i| (0..4).fold(0, |bits, group| bits | q(i + 32 * group) >> 4 << (2 * group))));
    }
    out.extend(scales.iter().map(|&scale| scale as u8));
    out.extend(d.to_le_bytes());
}

/// The scale, of either sign, of least squared error for levels from -32 to 31, larger values counting more.
fn symmetric_scale(x: &[f32]) -> f32 {
    let extreme = extreme(x);
    let (mut best, mut most) = (0.0, 0.0);
    for step in -9..=9_i8 {
        // The extreme takes level -32, or up to one level beside it.
        let per_scale = -(32.0 + 0.1 * f32::from(step)) * inverse(extreme);
        let (mut wqx, mut wqq) = (0.0, 0.0);
        for &v in x {
            let q = (v * per_scale).round().clamp(-32.0, 31.0);
            wqx += v * v * q * v;
            wqq += v * v * q * q;
        }
        // With the best scale wqx / wqq the error falls by this.
        let gain = wqx * wqx * inverse(wqq);
        if gain > most {
            (best, most) = (wqx * inverse(wqq), gain);
        }
    }
    best
}
