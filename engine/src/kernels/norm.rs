//! Root mean square (Zhang & Sennrich 2019) and layer normalization (Ba et al. 2016).

use super::{Capabilities, Kernel, MAX_WORKGROUPS, NormBindings, Plan, QkNormBindings, grid_2d};
use crate::buffer::{BufferId, HostMemory};
use crate::shaders::params::{NormParams, QkNormParams};
use crate::shaders::variants::{NormVariant, QkNormVariant};

/// Statistic that a row is normalized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root mean square.
    Rms = 0,
    /// The mean, then the standard deviation.
    Layer = 1,
}

/// `out[r] = norm(x[r]) * weight + bias`, or added to the output.
#[derive(Debug)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Rows, at most 65,535.
    pub rows: u32,
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// First element of x; a multiple of 4.
    pub x_offset: u32,
    /// First element of the output; a multiple of 4.
    pub out_offset: u32,
    /// Epsilon.
    pub eps: f32,
    /// Add the bias, which is bound.
    pub bias: bool,
    /// Add to the output.
    pub add: bool,
}

impl Kernel for Norm {
    type Bindings = NormBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.rows <= MAX_WORKGROUPS);
        let (x_offset, out_offset) = (self.x_offset / 4, self.out_offset / 4);
        let params = NormParams { rows: self.rows, dim: self.dim, x_offset, out_offset, eps: self.eps };
        Plan::new(NormVariant { subgroups: capabilities.has_subgroups() }, &params, [self.rows, 1, 1])
            .with("LAYER", self.kind as u32)
            .with("BIAS", u32::from(self.bias))
            .with("ADD", u32::from(self.add))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let dim = self.dim as usize;
        let weight = memory.read::<f32>(b.weight)[..dim].to_vec();
        let bias = if self.bias { memory.read::<f32>(b.bias.expect("a bias"))[..dim].to_vec() } else { vec![0.0; dim] };
        let mut x = memory.read::<f32>(b.x)[self.x_offset as usize..][..dim * self.rows as usize].to_vec();
        for row in x.chunks_exact_mut(dim) {
            normalize(row, self.kind, &weight, self.eps);
            row.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
        }
        let out = &mut memory.write::<f32>(b.out)[self.out_offset as usize..][..x.len()];
        for (out, y) in out.iter_mut().zip(x) {
            *out = if self.add { *out + y } else { y };
        }
    }
}

/// Normalizes segments of queries and keys in place (QK-norm, Henry et al. 2020).
#[derive(Debug)]
pub struct QkNorm {
    /// Which.
    pub kind: NormKind,
    /// Rows of qkv.
    pub rows: u32,
    /// Elements of a row of qkv.
    pub row_stride: u32,
    /// Number and elements of the segments of the queries, from a row's first element.
    pub q_segments: (u32, u32),
    /// Those of the keys, behind them.
    pub k_segments: (u32, u32),
    /// Weights for the queries, which repeat.
    pub q_weights: u32,
    /// Weights for the keys, which repeat.
    pub k_weights: u32,
    /// Epsilon.
    pub eps: f32,
}

impl Kernel for QkNorm {
    type Bindings = QkNormBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        let params = QkNormParams {
            rows: self.rows,
            row_stride: self.row_stride,
            q_segments: self.q_segments.0,
            q_segment: self.q_segments.1,
            k_segments: self.k_segments.0,
            k_segment: self.k_segments.1,
            q_weights: self.q_weights,
            k_weights: self.k_weights,
            eps: self.eps,
        };
        let groups = self.rows * (self.q_segments.0 + self.k_segments.0);
        Plan::new(QkNormVariant { subgroups: capabilities.has_subgroups() }, &params, grid_2d(groups)).with("LAYER", self.kind as u32)
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let repeated = |weights: BufferId, count: u32, (segments, length): (u32, u32)| -> Vec<f32> {
            memory.read::<f32>(weights)[..count as usize].iter().copied().cycle().take((segments * length) as usize).collect()
        };
        let q_weight = repeated(b.q_weight, self.q_weights, self.q_segments);
        let k_weight = repeated(b.k_weight, self.k_weights, self.k_segments);
        let (q_len, k_len) = (q_weight.len(), k_weight.len());
        for row in memory.write::<f32>(b.qkv).chunks_exact_mut(self.row_stride as usize).take(self.rows as usize) {
            let (q, rest) = row.split_at_mut(q_len);
            for (part, weight, length) in [(q, &q_weight, self.q_segments.1), (&mut rest[..k_len], &k_weight, self.k_segments.1)] {
                for (segment, weight) in part.chunks_exact_mut(length as usize).zip(weight.chunks_exact(length as usize)) {
                    normalize(segment, self.kind, weight, self.eps);
                }
            }
        }
    }
}

/// Normalizes a row in place.
pub(super) fn normalize(row: &mut [f32], kind: NormKind, weight: &[f32], eps: f32) {
    let count = row.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => row.iter().map(|v| f64::from(*v)).sum::<f64>() / count,
    };
    let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    let factor = 1.0 / (variance + f64::from(eps)).sqrt();
    for (v, w) in row.iter_mut().zip(weight) {
        *v = ((f64::from(*v) - mean) * factor * f64::from(*w)) as f32;
    }
}
