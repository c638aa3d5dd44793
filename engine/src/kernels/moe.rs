//! Mixtures of experts (Shazeer et al. 2017): the choice of experts for each row, the order of the choices for products in tiles, and the sum
//! of what the experts give. The products are [`super::Matvec`], [`super::Matmul`] and [`super::MatmulInt8`] with [`super::Experts`].

use super::{Capabilities, Cost, Kernel, MoeCombineBindings, MoeSortBindings, MoeTopkBindings, Plan, grid_2d};
use crate::buffer::HostMemory;
use crate::shaders::params::{MoeCombineParams, MoeSortParams, MoeTopkParams};
use crate::shaders::variants::{MoeCombineVariant, MoeSortVariant, MoeTopkVariant};

/// No expert, or no choice.
const NONE: u32 = u32::MAX;

/// The scores of experts, from the logits of a router. The values are those of `shaders/moe_topk.wesl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax of all logits.
    Softmax = 0,
    /// Sigmoid of each.
    Sigmoid = 1,
    /// Softmax of those that are chosen.
    SoftmaxOfChosen = 2,
}

/// The choice of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    /// Number of experts, at most [`Self::MAX_EXPERTS`].
    pub experts: u32,
    /// Experts of a row, at most [`Self::MAX_USED`].
    pub used: u32,
    /// Scores of the experts.
    pub gating: Gating,
    /// Groups of neighbouring experts; 1: none.
    pub groups: u32,
    /// Groups of which experts are chosen: those whose two best experts have the largest sum.
    pub groups_used: u32,
    /// The weights of a row's experts become 1 together.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl TopK {
    /// Most experts.
    pub const MAX_EXPERTS: u32 = 512;
    /// Most experts of a row.
    pub const MAX_USED: u32 = 32;
    /// Most groups.
    pub const MAX_GROUPS: u32 = 32;
    /// The least sum that weights are divided by, as in llama.cpp.
    const LEAST_SUM: f64 = 6.103_515_625e-5;

    /// The experts of a row, the best first, with their weights; of equal ones the first is better.
    fn choose(&self, logits: &[f32], bias: Option<&[f32]>) -> Vec<(u32, f32)> {
        let softmax = |of: &[f64]| -> Vec<f64> {
            let largest = of.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = of.iter().map(|z| (z - largest).exp()).sum();
            of.iter().map(|z| (z - largest).exp() / sum).collect()
        };
        let logits: Vec<f64> = logits.iter().map(|z| f64::from(*z)).collect();
        let p = match self.gating {
            Gating::Softmax => softmax(&logits),
            Gating::Sigmoid => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
            Gating::SoftmaxOfChosen => logits.clone(),
        };
        let mut scores: Vec<f64> = p.iter().enumerate().map(|(i, p)| p + bias.map_or(0.0, |bias| f64::from(bias[i]))).collect();
        let best_first = |scores: &[f64]| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order
        };
        if self.groups > 1 {
            let size = (self.experts / self.groups) as usize;
            let sum_of_two = |group: &[f64]| best_first(group).iter().take(2).map(|i| group[*i]).sum();
            let of_groups: Vec<f64> = scores.chunks_exact(size).map(sum_of_two).collect();
            for group in best_first(&of_groups).into_iter().skip(self.groups_used as usize) {
                scores[group * size..(group + 1) * size].fill(f64::MIN);
            }
        }
        let chosen: Vec<usize> = best_first(&scores).into_iter().take(self.used as usize).collect();
        let mut weights: Vec<f64> = chosen.iter().map(|i| p[*i]).collect();
        if self.gating == Gating::SoftmaxOfChosen {
            weights = softmax(&weights);
        } else if self.normalize {
            let sum = weights.iter().sum::<f64>().max(Self::LEAST_SUM);
            for weight in &mut weights {
                *weight /= sum;
            }
        }
        chosen.into_iter().map(|i| i as u32).zip(weights.into_iter().map(|w| (f64::from(self.scale) * w) as f32)).collect()
    }
}

/// Chooses the experts of each row from the logits `(rows, experts)`.
#[derive(Clone, Copy, Debug)]
pub struct MoeTopk {
    /// Number of rows.
    pub rows: u32,
    /// The choice.
    pub top_k: TopK,
    /// A bias for each expert, for the choice only, is bound.
    pub biased: bool,
}

impl Kernel for MoeTopk {
    type Bindings = MoeTopkBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let TopK { experts, used, gating, groups, groups_used, normalize, scale } = self.top_k;
        debug_assert!(experts <= TopK::MAX_EXPERTS && used <= TopK::MAX_USED && groups <= TopK::MAX_GROUPS);
        let params = MoeTopkParams { experts, used, groups, groups_used, normalize: u32::from(normalize), scale };
        Plan::new(MoeTopkVariant, &params, [self.rows, 1, 1]).with("GATING", gating as u32).with("BIASED", u32::from(self.biased))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (experts, used) = (self.top_k.experts as usize, self.top_k.used as usize);
        let bias = b.bias.filter(|_| self.biased).map(|bias| memory.read::<f32>(bias)[..experts].to_vec());
        for row in 0..self.rows as usize {
            let chosen = self.top_k.choose(&memory.read::<f32>(b.logits)[row * experts..][..experts], bias.as_deref());
            for (i, (expert, weight)) in chosen.into_iter().enumerate() {
                memory.write::<u32>(b.chosen)[row * used + i] = expert;
                memory.write::<f32>(b.expert_weights)[row * used + i] = weight;
            }
        }
    }
}

/// Sorts choices by expert into tiles: `sorted` has the expert of each tile, and behind them the choice in each row of each tile, or the largest number.
#[derive(Clone, Copy, Debug)]
pub struct MoeSort {
    /// Choices of all rows.
    pub choices: u32,
    /// Number of experts, at most [`TopK::MAX_EXPERTS`].
    pub experts: u32,
}

impl MoeSort {
    /// Rows of a tile.
    pub const TILE: u32 = 64;

    /// Tiles that hold any choices.
    pub fn tiles(&self) -> u32 {
        self.choices / Self::TILE + self.experts.min(self.choices)
    }

    /// Numbers in `sorted`.
    pub fn numbers(&self) -> u32 {
        self.tiles() * (Self::TILE + 1)
    }
}

impl Kernel for MoeSort {
    type Bindings = MoeSortBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.experts <= TopK::MAX_EXPERTS);
        let params = MoeSortParams { choices: self.choices, experts: self.experts, tile: Self::TILE, tiles: self.tiles() };
        Plan::new(MoeSortVariant, &params, [1, 1, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (tile, tiles) = (Self::TILE as usize, self.tiles() as usize);
        let chosen = memory.read::<u32>(b.chosen)[..self.choices as usize].to_vec();
        let mut sorted = vec![NONE; self.numbers() as usize];
        let mut next = 0;
        for expert in 0..self.experts {
            let of_expert: Vec<u32> = (0..self.choices).filter(|choice| chosen[*choice as usize].min(self.experts - 1) == expert).collect();
            for choices in of_expert.chunks(tile) {
                sorted[next] = expert;
                sorted[tiles + next * tile..][..choices.len()].copy_from_slice(choices);
                next += 1;
            }
        }
        memory.write::<u32>(b.sorted)[..sorted.len()].copy_from_slice(&sorted);
    }
}

/// Weighs and adds the outputs `(rows, used, dim)` of each row's experts, and of one that all rows have.
#[derive(Clone, Copy, Debug)]
pub struct MoeCombine {
    /// Number of rows.
    pub rows: u32,
    /// Elements of a row; a multiple of 4.
    pub dim: u32,
    /// Experts of a row.
    pub used: u32,
    /// Factor on the sum.
    pub scale: f32,
    /// Add to the output.
    pub add: bool,
    /// An expert that all rows have, whose output is bound.
    pub shared: Shared,
}

/// Whether all rows have an expert besides those that they choose. The values are those of `shaders/moe_combine.wesl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// None.
    None = 0,
    /// One, as it is.
    Plain = 1,
    /// One, times the sigmoid of a number for each row.
    Gated = 2,
}

impl Kernel for MoeCombine {
    type Bindings = MoeCombineBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let params = MoeCombineParams { rows: self.rows, dim: self.dim, used: self.used, scale: self.scale, add: u32::from(self.add) };
        Plan::new(MoeCombineVariant, &params, grid_2d((self.rows * self.dim / 4).div_ceil(64))).with("SHARED", self.shared as u32)
    }

    fn cost(&self, _: u32) -> Cost {
        let elements = u64::from(self.rows) * u64::from(self.dim);
        Cost { bytes: 4 * elements * u64::from(self.used + 1), multiply_adds: elements * u64::from(self.used) }
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (dim, used) = (self.dim as usize, self.used as usize);
        let weights = memory.read::<f32>(b.expert_weights).to_vec();
        let y = memory.read::<f32>(b.y).to_vec();
        let gate = |row: usize| match b.shared_gate {
            Some(gate) => 1.0 / (1.0 + (-f64::from(memory.read::<f32>(gate)[row])).exp()),
            None => 1.0,
        };
        let shared = b.shared_out.map(|shared| memory.read::<f32>(shared).to_vec());
        let mut sums = Vec::new();
        for row in 0..self.rows as usize {
            let gate = gate(row);
            for i in 0..dim {
                let of_choice = |choice: usize| f64::from(weights[choice]) * f64::from(y[choice * dim + i]);
                let sum: f64 = (row * used..(row + 1) * used).map(of_choice).sum();
                let shared = shared.as_ref().map_or(0.0, |shared| gate * f64::from(shared[row * dim + i]));
                sums.push((f64::from(self.scale) * (sum + shared)) as f32);
            }
        }
        for (out, sum) in memory.write::<f32>(b.out).iter_mut().zip(sums) {
            *out = if self.add { *out + sum } else { sum };
        }
    }
}
