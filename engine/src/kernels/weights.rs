//! The layout that [`super::Repack`] gives weights, and its dequantization: the Rust side of `shaders/shared/weights.wesl`.
//!
//! A row is `stride` words: its quants in order, then what scales them. Every value of the GGUF block is kept exactly.

use half::{bf16, f16};

use crate::error::{EngineError, Result};
use crate::formats::DType;

/// How a matrix of one type lies in a slab.
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

impl WeightLayout {
    /// The layout of rows of `cols` weights.
    ///
    /// # Errors
    /// When there is no kernel for the type or the length is not a whole number of its blocks (eight for floats).
    pub fn new(name: &str, dtype: DType, cols: u64) -> Result<Self> {
        let unsupported = || EngineError::Unsupported {
            what: "weight type",
            value: format!("{dtype} of {name} with rows of {cols}"),
            supported: "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K with whole blocks".to_owned(),
        };
        let cols = u32::try_from(cols).map_err(|_| unsupported())?;
        let (block, words) = match dtype {
            DType::F32 => (8, cols),
            DType::F16 | DType::BF16 => (8, cols / 2),
            DType::Q8_0 => (32, cols / 4 + cols.div_ceil(64)),
            DType::Q4_0 => (32, cols / 8 + cols.div_ceil(64)),
            DType::Q4_K => (256, cols / 8 + cols / 256 * 4),
            DType::Q6_K => (256, cols / 8 + cols / 16 + cols / 256 * 5),
            _ => return Err(unsupported()),
        };
        if cols == 0 || !cols.is_multiple_of(block) {
            return Err(unsupported());
        }
        let file_row_bytes = u64::from(cols) / dtype.block_size() * dtype.block_bytes();
        let file_row_bytes = u32::try_from(file_row_bytes).map_err(|_| unsupported())?;
        Ok(Self { dtype, cols, stride: words.next_multiple_of(4), file_row_bytes })
    }

    /// The shader feature that reads this type.
    pub fn feature(&self) -> &'static str {
        match self.dtype {
            DType::F32 => "w_f32",
            DType::F16 => "w_f16",
            DType::BF16 => "w_bf16",
            DType::Q8_0 => "w_q8_0",
            DType::Q4_0 => "w_q4_0",
            DType::Q4_K => "w_q4_k",
            DType::Q6_K => "w_q6_k",
            _ => unreachable!("new() refused it"),
        }
    }

    /// Packs one row of the file; `row` has `stride` words.
    pub(super) fn pack_row(&self, raw: &[u8], row: &mut [u32]) {
        let cols = self.cols as usize;
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let half = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
        // Weight i's nibble goes to bits 4 (i % 8) of word i / 8.
        let put = |row: &mut [u32], i: usize, nibble: u8| row[i / 8] |= u32::from(nibble & 15) << (4 * (i % 8));
        row.fill(0);
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                for (i, w) in row.iter_mut().take(raw.len() / 4).enumerate() {
                    *w = word(4 * i);
                }
            }
            DType::Q8_0 => {
                for block in 0..cols / 32 {
                    for i in 0..8 {
                        row[8 * block + i] = word(34 * block + 2 + 4 * i);
                    }
                    row[cols / 4 + block / 2] |= half(34 * block) << (16 * (block % 2));
                }
            }
            DType::Q4_0 => {
                for block in 0..cols / 32 {
                    for j in 0..16 {
                        let byte = raw[18 * block + 2 + j];
                        put(row, 32 * block + j, byte);
                        put(row, 32 * block + j + 16, byte >> 4);
                    }
                    row[cols / 8 + block / 2] |= half(18 * block) << (16 * (block % 2));
                }
            }
            DType::Q4_K => {
                for block in 0..cols / 256 {
                    let at = 144 * block;
                    for j in 0..128 {
                        let byte = raw[at + 16 + j];
                        let i = 256 * block + 64 * (j / 32) + j % 32;
                        put(row, i, byte);
                        put(row, i + 32, byte >> 4);
                    }
                    for i in 0..4 {
                        row[cols / 8 + 4 * block + i] = word(at + 4 * i);
                    }
                }
            }
            DType::Q6_K => {
                for block in 0..cols / 256 {
                    let at = 210 * block;
                    for j in 0..128 {
                        let byte = raw[at + j];
                        let i = 256 * block + 128 * (j / 64) + j % 64;
                        put(row, i, byte);
                        put(row, i + 64, byte >> 4);
                    }
                    for i in 0..256 {
                        let (side, quarter, l) = (i / 128, i / 32 % 4, i % 32);
                        let pair = u32::from(raw[at + 128 + 32 * side + l] >> (2 * quarter)) & 3;
                        let i = 256 * block + i;
                        row[cols / 8 + i / 16] |= pair << (2 * (i % 16));
                    }
                    let meta = cols / 8 + cols / 16 + 5 * block;
                    for i in 0..4 {
                        row[meta + i] = word(at + 192 + 4 * i);
                    }
                    row[meta + 4] = half(at + 208);
                }
            }
            _ => unreachable!("new() refused it"),
        }
    }
}

/// The weights of one packed row.
pub fn dequantize_row(layout: &WeightLayout, row: &[u32]) -> Vec<f32> {
    let cols = layout.cols as usize;
    let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
    let half_at = |base: usize, i: usize| half(row[base + i / 2] >> (16 * (i % 2)));
    let nibble = |i: usize| (row[i / 8] >> (4 * (i % 8))) & 15;
    let byte = |w: u32, i: usize| (w >> (8 * i)) & 255;
    let signed = |w: u32, i: usize| byte(w, i) as u8 as i8 as f32;
    (0..cols)
        .map(|i| match layout.dtype {
            DType::F32 => f32::from_bits(row[i]),
            DType::F16 => half_at(0, i),
            DType::BF16 => bf16::from_bits((row[i / 2] >> (16 * (i % 2))) as u16).to_f32(),
            DType::Q8_0 => half_at(cols / 4, i / 32) * signed(row[i / 4], i % 4),
            DType::Q4_0 => half_at(cols / 8, i / 32) * (nibble(i) as f32 - 8.0),
            DType::Q4_K => {
                let meta = &row[cols / 8 + 4 * (i / 256)..];
                let (block, lane) = (i / 32 % 8, i / 32 % 4);
                let (a, b, c) = (byte(meta[1], lane), byte(meta[2], lane), byte(meta[3], lane));
                let (scale, minimum) = if block < 4 { (a & 63, b & 63) } else { ((c & 15) | ((a >> 6) << 4), (c >> 4) | ((b >> 6) << 4)) };
                (half(meta[0]) * scale as f32) * nibble(i) as f32 - half(meta[0] >> 16) * minimum as f32
            }
            DType::Q6_K => {
                let meta = &row[cols / 8 + cols / 16 + 5 * (i / 256)..];
                let block = i / 16 % 16;
                let high = (row[cols / 8 + i / 16] >> (2 * (i % 16))) & 3;
                half(meta[4]) * signed(meta[block / 4], block % 4) * ((nibble(i) | (high << 4)) as f32 - 32.0)
            }
            _ => unreachable!("the layout refused it"),
        })
        .collect()
}
