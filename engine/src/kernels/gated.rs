//! Activations, and gated linear units (Shazeer 2020) on interleaved gate and up.

use super::{Capabilities, GatedBindings, Kernel, Plan, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::{params::GatedParams, variants::GatedVariant};

/// Activation between the products of a feed-forward network. The values are those of `shaders/shared/activations.wesl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None = 0,
    /// `x * sigmoid(x)` (Elfwing et al. 2017).
    Silu = 1,
    /// `x * Phi(x)` (Hendrycks & Gimpel 2016).
    Gelu = 2,
    /// Its approximation with tanh.
    GeluTanh = 3,
    /// `max(x, 0)^2` (So et al. 2021).
    ReluSquared = 4,
    /// In gated units only: `g * sigmoid(1.702 g) * (u + 1)` with the gate `g` at most 7 and `u` from -7 to 7 (gpt-oss).
    ClampedUnit = 5,
}

impl Activation {
    /// The activation of `x`.
    pub(super) fn apply(self, x: f32) -> f32 {
        let v = f64::from(x);
        let y = match self {
            Self::None | Self::ClampedUnit => v,
            Self::Silu => v / (1.0 + (-v).exp()),
            Self::Gelu => v * normal_cdf(v),
            Self::ReluSquared => v.max(0.0).powi(2),
            Self::GeluTanh => 0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044_715 * v * v * v)).tanh()),
        };
        y as f32
    }

    /// The gated unit of these two.
    pub(super) fn apply_gated(self, gate: f32, up: f32) -> f32 {
        const LIMIT: f32 = 7.0;
        if self != Self::ClampedUnit {
            return self.apply(gate) * up;
        }
        let (gate, up) = (f64::from(gate.min(LIMIT)), f64::from(up.clamp(-LIMIT, LIMIT)));
        (gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0)) as f32
    }
}

/// Phi(x), by its series about 0 and its continued fraction far out (Abramowitz & Stegun 26.2.10, 26.2.14).
fn normal_cdf(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let z = x.abs();
    let tail = if z < 5.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= z * z / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 - density * sum
    } else {
        let fraction = (1..60).rev().fold(0.0, |below, n| f64::from(n) / (z + below));
        density / (z + fraction)
    };
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// `out[r, i] = activation(x[r, 2i]) * x[r, 2i + 1]`.
#[derive(Debug)]
pub struct Gated {
    /// Rows.
    pub rows: u32,
    /// Elements of a row of the output; even.
    pub dim: u32,
    /// On the gate.
    pub activation: Activation,
}

impl Kernel for Gated {
    type Bindings = GatedBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = GatedParams { rows: self.rows, ff: self.dim };
        Plan::new(GatedVariant, &params, grid_2d((self.rows * self.dim / 2).div_ceil(256))).with("ACTIVATION", self.activation as u32)
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let count = (self.rows * self.dim) as usize;
        let pairs = memory.read::<f32>(b.gate_up).chunks_exact(2).take(count);
        let y: Vec<f32> = pairs.map(|pair| self.activation.apply_gated(pair[0], pair[1])).collect();
        memory.write::<f32>(b.out)[..count].copy_from_slice(&y);
    }
}

#[cfg(test)]
mod tests {
    use super::normal_cdf;

    #[test]
    fn the_normal_distribution_is_right() {
        for (x, want) in [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (-2.5, 0.006_209_665_325_776_1), (-6.0, 9.865_876_450_377e-10)] {
            assert!((normal_cdf(x) / want - 1.0).abs() < 1e-12, "{x}: {}", normal_cdf(x));
        }
        assert!((normal_cdf(-4.999_999) / normal_cdf(-5.000_001) - 1.0).abs() < 2e-5);
    }
}
