//! `xIELU` (Huang & Schlag 2025), an activation whose parameters each layer has as its own.

use super::{Capabilities, Kernel, Plan, XieluBindings, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::{params::XieluParams, variants::XieluVariant};

/// `positive * x^2 + beta * x` of positive x, `negative * (exp(min(x, eps)) - 1 - x) + beta * x` of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct XieluParameters {
    /// Of the square of positive x.
    pub positive: f32,
    /// Of the other x.
    pub negative: f32,
    /// Of x itself.
    pub beta: f32,
    /// Below zero.
    pub eps: f32,
}

impl XieluParameters {
    fn apply(self, x: f32) -> f32 {
        let [v, positive, negative, beta, eps] = [x, self.positive, self.negative, self.beta, self.eps].map(f64::from);
        let y = if v > 0.0 { positive * v * v } else { negative * (v.min(eps).exp_m1() - v) };
        (y + beta * v) as f32
    }
}

/// Activates rows in place.
#[derive(Debug)]
pub struct Xielu {
    /// Rows.
    pub rows: u32,
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// Of the layer.
    pub parameters: XieluParameters,
}

impl Kernel for Xielu {
    type Bindings = XieluBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let XieluParameters { positive, negative, beta, eps } = self.parameters;
        let quads = self.rows * self.dim / 4;
        Plan::new(XieluVariant, &XieluParams { quads, positive, negative, beta, eps }, grid_2d(quads.div_ceil(64)))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let rows = &mut memory.write::<f32>(b.x)[..(self.rows * self.dim) as usize];
        for x in rows.iter_mut() {
            *x = self.parameters.apply(*x);
        }
    }
}
