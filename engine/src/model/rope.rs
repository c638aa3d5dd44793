//! Frequencies of the rotary embedding (Su et al. 2021) and how they stretch to long contexts.

use std::f64::consts::PI;

use crate::error::{EngineError, Result};
use crate::formats::Metadata;

/// Rotary embedding of a kind of layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeTable {
    /// Base of the frequencies.
    pub base: f32,
    /// How they stretch.
    pub scaling: RopeScaling,
    /// Factor on turned pairs.
    pub magnitude: f32,
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
        /// Pairs that turn more often than this in `original` positions stay as they are.
        beta_fast: f32,
        /// Pairs that turn less often than this are divided by `factor`.
        beta_slow: f32,
    },
}

impl RopeTable {
    /// What `<architecture>.rope.*` describe; `original` is the number of positions of pre-training, `base` the family's base.
    ///
    /// # Errors
    /// When a value makes no sense or the type is unknown.
    pub fn from_gguf(meta: &Metadata, architecture: &str, original: u32, base: f32) -> Result<Self> {
        let number = |suffix: &str| -> Result<Option<f32>> { Ok(meta.f32_opt(&format!("{architecture}.rope.{suffix}"))?) };
        let unsupported = |value: String| EngineError::Unsupported {
            what: "rope scaling",
            value,
            supported: "none, linear, yarn, longrope, and llama 3's factors".to_owned(),
        };
        let base = number("freq_base")?.unwrap_or(base);
        // Before there were types, the factor of linear scaling was `rope.scale_linear`.
        let factor = number("scaling.factor")?.or(number("scale_linear")?);
        let stretches = factor.is_some();
        let factor = factor.unwrap_or(1.0);
        for (what, value) in [("base", base), ("factor", factor)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(unsupported(format!("{what} {value}")));
            }
        }
        let attention = number("scaling.attn_factor")?.unwrap_or(1.0);
        let (scaling, magnitude) = match meta.str_opt(&format!("{architecture}.rope.scaling.type"))? {
            Some("none" | "longrope") => (RopeScaling::None, 1.0),
            None if !stretches => (RopeScaling::None, 1.0),
            None | Some("linear") => (RopeScaling::Linear(factor), 1.0),
            Some("yarn") => {
                let growth = |scale: f32| if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 };
                let all = number("scaling.yarn_log_multiplier")?.unwrap_or(0.0);
                let magnitude = match number("scaling.yarn_attn_factor")? {
                    Some(magnitude) => magnitude,
                    None if all == 0.0 => growth(1.0),
                    None => growth(1.0) / growth(all),
                };
                let beta_fast = number("scaling.yarn_beta_fast")?.unwrap_or(32.0);
                let beta_slow = number("scaling.yarn_beta_slow")?.unwrap_or(1.0);
                (RopeScaling::Yarn { factor, original, beta_fast, beta_slow }, magnitude)
            }
            Some(other) => return Err(unsupported(other.to_owned())),
        };
        Ok(Self { base, scaling, magnitude: magnitude * attention })
    }

    /// A table without scaling.
    pub fn unscaled(base: f32) -> Self {
        Self { base, scaling: RopeScaling::None, magnitude: 1.0 }
    }

    /// Angle of each of `rotated / 2` pairs at position 1: `base^(-2i / rotated)`, divided by its factor, then scaled.
    pub fn frequencies(&self, rotated: u32, factors: Option<&[f32]>) -> Vec<f32> {
        let (base, rotated) = (f64::from(self.base), f64::from(rotated));
        let pair_frequency = |i: usize| {
            let factor = factors.and_then(|f| f.get(i)).map_or(1.0, |f| f64::from(*f));
            base.powf(-2.0 * i as f64 / rotated) / factor
        };
        let scaled = |i: usize| match self.scaling {
            RopeScaling::None => pair_frequency(i),
            RopeScaling::Linear(factor) => pair_frequency(i) / f64::from(factor),
            RopeScaling::Yarn { factor, original, beta_fast, beta_slow } => {
                // The pair that makes `turns` turns in the original context.
                let pair = |turns: f32| rotated * (f64::from(original) / (f64::from(turns) * 2.0 * PI)).ln() / (2.0 * base.ln());
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(rotated - 1.0);
                let stretched = ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                pair_frequency(i) * (1.0 - stretched + stretched / f64::from(factor))
            }
        };
        (0..rotated as usize / 2).map(|i| scaled(i) as f32).collect()
    }
}
