//! Rotary position embedding (Su et al. 2021): its description, and its frequencies in long contexts.

use std::f64::consts::PI;

use crate::kernels::{RopePairing, Temperature};

/// Tensors of factors on the frequencies: Llama 3 has one set, `LongRoPE` one for each side of the original context.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Factors up to the original context.
pub(super) const SHORT_ROPE_FACTORS: &str = "rope_factors_short.weight";
/// Factors beyond it.
pub(super) const LONG_ROPE_FACTORS: &str = "rope_factors_long.weight";

/// Rotary embedding of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Leading elements of a head that are rotated; even.
    pub rotated: u32,
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Base of the frequencies.
    pub base: f32,
    /// How they stretch to long contexts.
    pub scaling: RopeScaling,
    /// Factor on rotated pairs.
    pub magnitude: f32,
    /// Frequencies are divided by the factors that the file has in tensors.
    pub factors: bool,
    /// Positions of pre-training: longer contexts use the long ones of `LongRoPE`'s factors (Ding et al. 2024).
    pub original_context: u32,
    /// Growth of queries with position.
    pub temperature: Option<Temperature>,
}

/// How positions beyond those of pre-training are reached, besides the factors that a file can have in tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by this (Chen et al. 2023).
    Linear(f32),
    /// `YaRN` (Peng et al. 2023).
    Yarn {
        /// How many times longer the context becomes.
        factor: f32,
        /// Positions of pre-training.
        original: u32,
        /// Pairs that rotate more often than this in `original` positions stay as they are.
        beta_fast: f32,
        /// Pairs that rotate less often than this are divided by `factor`.
        beta_slow: f32,
    },
}

impl RopeSpec {
    /// Angle of each of `rotated / 2` pairs at position 1: `base^(-2i / rotated)`, divided by its factor, then scaled.
    pub fn frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let (base, rotated) = (f64::from(self.base), f64::from(self.rotated));
        let pair_frequency = |i: usize| {
            let factor = factors.and_then(|f| f.get(i)).map_or(1.0, |f| f64::from(*f));
            base.powf(-2.0 * i as f64 / rotated) / factor
        };
        let scaled = |i: usize| match self.scaling {
            RopeScaling::None => pair_frequency(i),
            RopeScaling::Linear(factor) => pair_frequency(i) / f64::from(factor),
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow } => {
                // The pair that rotates `turns` times in the original context.
                let pair = |turns: f32| rotated * (f64::from(original) / (f64::from(turns) * 2.0 * PI)).ln() / (2.0 * base.ln());
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(rotated - 1.0);
                let stretched = ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                pair_frequency(i) * (1.0 - stretched + stretched / f64::from(factor))
            }
        };
        (0..self.rotated as usize / 2).map(|i| scaled(i) as f32).collect()
    }
}
