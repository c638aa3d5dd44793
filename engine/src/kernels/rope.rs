//! Rotary position embedding (Su et al. 2021) and the write into the key/value cache.

use super::cache::{KvFormat, PAGE};
use super::sample::Row;
use super::{Capabilities, Kernel, Plan, RopeKvBindings, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::{params::RopeKvParams, variants::RopeKvVariant};

/// Pairs of elements of a head that are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// 2i and 2i + 1: GGUF files of the llama architecture.
    Neighbours,
    /// i and `i + rotated / 2`: `NeoX` and most other architectures.
    Halves,
}

/// Queries grow by `1 + growth * ln(1 + floor(position / span))` (Llama 4's attention temperature).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// Per logarithm.
    pub growth: f32,
    /// Positions without growth.
    pub span: f32,
}

/// Parameters of the rotation of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Rotary dimensions: leading elements of a head that are rotated; even, 0 for none.
    pub rotated: u32,
    /// Pairs.
    pub pairing: RopePairing,
    /// Factor on rotated pairs (`YaRN`'s attention factor); 1: none.
    pub magnitude: f32,
    /// Growth of queries with position; needs the whole head to be rotated.
    pub temperature: Option<Temperature>,
}

impl Rotary {
    /// Where the weights of a norm begin, behind the frequencies.
    pub(crate) fn norm_weights(&self) -> u32 {
        (self.rotated / 2).max(1)
    }

    /// Growth and span of the queries' temperature, as kernels take them.
    pub(super) fn temperature_params(&self) -> (f32, f32) {
        self.temperature.map_or((0.0, 1.0), |t| (t.growth, t.span))
    }
}

/// Rotates the queries of `qkv` in place and writes rotated keys, and values, to the cache.
#[derive(Debug)]
pub struct RopeKv {
    /// Rows of qkv.
    pub rows: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of a head; a multiple of 4.
    pub head_dim: u32,
    /// Rotation.
    pub rotary: Rotary,
    /// Rotated queries and keys are multiplied by weights, which are bound behind the frequencies. Needs heads that are rotated whole.
    pub weighted: bool,
    /// Row length of the block tables.
    pub pages_per_slot: u32,
    /// Elements of the cache.
    pub kv: KvFormat,
}

impl Kernel for RopeKv {
    type Bindings = RopeKvBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let rotary = &self.rotary;
        let (temperature, temperature_span) = rotary.temperature_params();
        let params = RopeKvParams {
            rows: self.rows,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rotated: rotary.rotated,
            pages_per_slot: self.pages_per_slot,
            magnitude: rotary.magnitude,
            temperature,
            temperature_span,
            norm_weights: rotary.norm_weights(),
        };
        debug_assert!(!self.weighted || rotary.rotated == self.head_dim);
        debug_assert!(rotary.temperature.is_none() || rotary.rotated == self.head_dim);
        let quads = self.rows * (self.heads + 2 * self.kv_heads) * (self.head_dim / 4);
        Plan::new(RopeKvVariant { cache: self.kv.variant() }, &params, grid_2d(quads.div_ceil(64)))
            .with_cache(self.kv, self.head_dim)
            .with("PAIRING", rotary.pairing as u32)
            .with("QK_NORM", if self.weighted { 2 } else { 0 })
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let dim = self.head_dim as usize;
        let row_len = (self.heads + 2 * self.kv_heads) as usize * dim;
        let kv_len = self.kv_heads as usize * dim;
        let frequencies = memory.read::<f32>(b.rope_constants).to_vec();
        let weights = frequencies.get(self.rotary.norm_weights() as usize..).unwrap_or_default();
        let Rotary { rotated, pairing, magnitude, temperature } = self.rotary;
        let half = rotated as usize / 2;
        for r in 0..self.rows as usize {
            let row = memory.read::<Row>(b.rows)[r];
            let page = memory.read::<u32>(b.pages)[(row.slot * self.pages_per_slot + row.position / PAGE) as usize];
            let first_head = (page * PAGE + row.position % PAGE) as usize * self.kv_heads as usize;
            let qkv = &mut memory.write::<f32>(b.qkv)[r * row_len..][..row_len];
            // The kernel writes rotated keys to the cache only, and leaves the keys of qkv as they are.
            let mut rotated_qkv = qkv.to_vec();
            for head in rotated_qkv[..row_len - kv_len].chunks_exact_mut(dim) {
                for (i, f) in frequencies.iter().take(half).enumerate() {
                    let (even, odd) = match pairing {
                        RopePairing::Neighbours => (2 * i, 2 * i + 1),
                        RopePairing::Halves => (i, i + half),
                    };
                    // As transformers: the angle is a product in single precision.
                    let (sin, cos) = f64::from(row.position as f32 * f).sin_cos();
                    let m = f64::from(magnitude);
                    let (x, y) = (m * f64::from(head[even]), m * f64::from(head[odd]));
                    head[even] = (x * cos - y * sin) as f32;
                    head[odd] = (y * cos + x * sin) as f32;
                }
            }
            let queries = self.heads as usize * dim;
            if self.weighted {
                for (i, head) in rotated_qkv[..row_len - kv_len].chunks_exact_mut(dim).enumerate() {
                    let weights = if i < self.heads as usize { &weights[..dim] } else { &weights[dim..] };
                    head.iter_mut().zip(weights).for_each(|(v, weight)| *v *= weight);
                }
            }
            if let Some(Temperature { growth, span }) = temperature {
                let factor = 1.0 + growth * (1.0 + (row.position as f32 / span).floor()).ln();
                rotated_qkv[..queries].iter_mut().for_each(|q| *q *= factor);
            }
            qkv[..queries].copy_from_slice(&rotated_qkv[..queries]);
            if row.remaining == 0 {
                continue;
            }
            let (keys, values) = rotated_qkv[queries..].split_at(kv_len);
            for (buffer, heads) in [(b.keys, keys), (b.values, values)] {
                for (i, head) in heads.chunks_exact(dim).enumerate() {
                    self.kv.store(memory.write(buffer), self.head_dim, first_head + i, head);
                }
            }
        }
    }
}
