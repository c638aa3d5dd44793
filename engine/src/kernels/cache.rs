//! The paged key/value cache: the Rust side of `shaders/shared/cache.wesl`.

use std::str::FromStr;

use half::f16;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NameError;

use super::Plan;
use crate::shaders::variants::Cache;

/// Positions in a page of the cache.
pub const PAGE: u32 = 32;

/// Elements of the cache. Half precision and bytes are packed with core WGSL, so they need no `shader-f16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvFormat {
    /// Four bytes an element.
    F32,
    /// Two bytes an element.
    #[default]
    F16,
    /// A signed byte an element and a four-byte scale for each block of up to 32: nine bits an element in most models.
    Q8,
}

impl FromStr for KvFormat {
    type Err = NameError;

    /// From `f32`, `f16` or `q8`.
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::deserialize(name.into_deserializer())
    }
}

impl KvFormat {
    /// The variant of kernels.
    pub(super) fn variant(self) -> Cache {
        match self {
            Self::F32 => Cache::KvF32,
            Self::F16 => Cache::KvF16,
            Self::Q8 => Cache::KvQ8,
        }
    }

    /// Words that the `head_dim` elements of a head take.
    pub fn head_words(self, head_dim: u32) -> u32 {
        match self {
            Self::F32 => head_dim,
            Self::F16 => head_dim / 2,
            Self::Q8 => head_dim / 4 + head_dim / block(head_dim),
        }
    }

    /// The elements of head number `head` (position in the cache * heads + head) of the words of a cache.
    pub fn load(self, words: &[u32], head_dim: u32, head: usize) -> Vec<f32> {
        let stride = self.head_words(head_dim) as usize;
        let words = &words[head * stride..][..stride];
        match self {
            Self::F32 => bytemuck::cast_slice(words).to_vec(),
            Self::F16 => bytemuck::cast_slice::<_, f16>(words).iter().map(|h| h.to_f32()).collect(),
            Self::Q8 => {
                let blocks = words.chunks_exact(block(head_dim) as usize / 4 + 1);
                let values = blocks.flat_map(|block| {
                    let scale = f32::from_bits(block[0]);
                    bytemuck::cast_slice::<_, i8>(&block[1..]).iter().map(move |q| scale * (f32::from(*q) / 127.0).max(-1.0))
                });
                values.collect()
            }
        }
    }

    /// The inverse of [`Self::load`].
    pub fn store(self, words: &mut [u32], head_dim: u32, head: usize, values: &[f32]) {
        let stride = self.head_words(head_dim) as usize;
        let words = &mut words[head * stride..][..stride];
        match self {
            Self::F32 => words.copy_from_slice(bytemuck::cast_slice(values)),
            Self::F16 => {
                for (half, v) in bytemuck::cast_slice_mut::<_, f16>(words).iter_mut().zip(values) {
                    *half = f16::from_f32(*v);
                }
            }
            Self::Q8 => {
                let block = block(head_dim) as usize;
                for (words, values) in words.chunks_exact_mut(block / 4 + 1).zip(values.chunks_exact(block)) {
                    let scale = values.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
                    words[0] = scale.to_bits();
                    for (q, v) in bytemuck::cast_slice_mut::<_, i8>(&mut words[1..]).iter_mut().zip(values) {
                        *q = (127.0 * (v / scale.max(1e-30))).round() as i8;
                    }
                }
            }
        }
    }
}

/// Elements that share a scale: up to 32, so many that whole blocks make a head.
fn block(head_dim: u32) -> u32 {
    4 * (1..=8).rev().find(|quads| (head_dim / 4).is_multiple_of(*quads)).unwrap_or(1)
}

impl<B> Plan<B> {
    /// Sets the constants of `shared/cache.wesl`.
    #[must_use]
    pub(super) fn with_cache(self, kv: KvFormat, head_dim: u32) -> Self {
        let plan = self.with("PAGE", PAGE);
        if kv == KvFormat::Q8 { plan.with("BLOCK", block(head_dim) / 4) } else { plan }
    }
}
