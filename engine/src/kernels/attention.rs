//! Attention over the paged cache: a split kernel for decode, three tiers for prefill.

use super::cache::{KvFormat, PAGE};
use super::norm::{NormKind, normalize};
use super::rope::{RopeKv, Rotary};
use super::sample::Row;
use super::{
    AttentionCombineBindings, AttentionDecodeBindings, AttentionPrefillBindings, Capabilities, Cost, Kernel, Plan, RopeKvBindings, grid_2d,
};
use crate::buffer::{BufferId, HostMemory};
use crate::shaders::params::{AttentionCombineParams, AttentionDecodeParams, AttentionParams};
use crate::shaders::variants::{
    AttentionCombineVariant, AttentionDecodeGroup, AttentionDecodeVariant, AttentionPrefillHead, AttentionPrefillVariant,
    AttentionStreamingVariant, AttentionTiledHead, AttentionTiledVariant,
};

/// Fewest positions of a split, by head size: with fewer, reducing the splits costs more than it saves.
fn min_split(head_dim: u32) -> u32 {
    match head_dim {
        0..=64 => 512,
        65..=128 => 256,
        _ => 128,
    }
}

/// Most splits, so that reducing them stays cheap.
const MAX_SPLITS: u32 = 64;

/// How decoding divides the cache among workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Splits {
    /// Number of splits. More than one need [`AttentionCombine`].
    pub count: u32,
    /// Positions of a split.
    pub length: u32,
}

impl Splits {
    /// For caches of up to `positions`, rounded up so that few programs serve all lengths. Never two: reducing them takes longer than one
    /// split.
    pub fn of(positions: u32, head_dim: u32) -> Self {
        let least = min_split(head_dim);
        let positions = positions.clamp(2 * least, 1 << 31).next_power_of_two();
        let count = if positions == 2 * least { 1 } else { (positions / least).min(MAX_SPLITS) };
        Self { count, length: positions / count }
    }
}

/// Largest head of the kernels that use workgroup memory.
const MAX_TILED_HEAD: u32 = 256;

/// Parameters of all attention kernels.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads` (grouped-query attention, Ainslie et al. 2023).
    pub kv_heads: u32,
    /// Elements of a head; a multiple of 4.
    pub head_dim: u32,
    /// Elements from a row of q to the next; a multiple of 4.
    pub q_stride: u32,
    /// Row length of the block tables.
    pub pages_per_slot: u32,
    /// Positions that a query sees, itself included; 0: all.
    pub window: u32,
    /// Later positions that a query sees: 0 where attention is causal. Only in [`AttentionPrefill`].
    pub right_window: u32,
    /// Factor on the scores.
    pub scale: f32,
    /// Soft cap on the scores; 0: none.
    pub cap: f32,
    /// Where a sink of each head begins in the layer's constants: a score that takes weight and has no value. 0: there are none.
    pub sinks: u32,
    /// Elements of the cache.
    pub kv: KvFormat,
}

impl AttentionShape {
    /// Of `rows` queries that see `visible` positions together, of `read` that are in the cache.
    fn cost(&self, rows: u32, visible: u64, read: u32) -> Cost {
        let cached = 2 * 4 * u64::from(self.kv.head_words(self.head_dim)) * u64::from(self.kv_heads) * u64::from(read);
        let query = u64::from(self.heads) * u64::from(self.head_dim);
        Cost { bytes: cached + 2 * 4 * query * u64::from(rows), multiply_adds: 2 * query * visible }
    }

    /// First position that a query at `position` sees.
    fn first_visible(&self, position: u32) -> u32 {
        if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) }
    }

    /// Last position that a query sees.
    fn last_visible(&self, row: &Row) -> u32 {
        row.position + self.right_window.min(row.remaining.wrapping_sub(1))
    }

    /// Positions that a query at the end of `positions` sees.
    fn visible(&self, positions: u32) -> u32 {
        if self.window == 0 { positions } else { positions.min(self.window) }
    }

    fn params(&self, rows: u32, splits: u32) -> AttentionParams {
        AttentionParams {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rows,
            q_stride: self.q_stride / 4,
            pages_per_slot: self.pages_per_slot,
            window: self.window,
            right_window: self.right_window,
            scale: self.scale,
            cap: self.cap,
            splits,
            sinks: self.sinks,
        }
    }
}

/// Attention of rows that may belong to different sequences, split along the cache: from qkv to the result. Rotates queries
/// and keys (`RoPE`) and writes keys and values to the cache. Inactive rows get no result.
#[derive(Debug)]
pub struct AttentionDecode {
    /// Shape. The queries' stride is that of qkv.
    pub shape: AttentionShape,
    /// Rows of qkv.
    pub rows: u32,
    /// Splits of the longest row's cache.
    pub splits: Splits,
    /// Rotary position embedding.
    pub rotary: Rotary,
    /// Normalize each query and key; the weights are bound behind the frequencies.
    pub qk_norm: Option<HeadNorm>,
}

/// A norm of each query and key (`RMSNorm`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNorm {
    /// Epsilon.
    pub eps: f32,
    /// Behind the rotation of heads that are rotated whole, instead of before it.
    pub behind_rotation: bool,
}

impl AttentionDecode {
    /// The shader's constant: quads that it reduces together.
    const SCRATCH: u32 = 512;

    /// Whether the kernel serves heads of this size; [`AttentionPrefill`]'s streaming tier serves all.
    pub fn serves(head_dim: u32) -> bool {
        head_dim <= MAX_TILED_HEAD
    }

    /// The norm is behind the rotation.
    fn norm_behind(&self) -> bool {
        self.qk_norm.is_some_and(|norm| norm.behind_rotation)
    }
}

impl Kernel for AttentionDecode {
    type Bindings = AttentionDecodeBindings;

    fn plan(&self, capabilities: &Capabilities) -> Plan<Self::Bindings> {
        let s = &self.shape;
        debug_assert_eq!(s.right_window, 0, "decoding is causal");
        debug_assert_eq!(s.q_stride, (s.heads + 2 * s.kv_heads) * s.head_dim);
        let (temperature, temperature_span) = self.rotary.temperature_params();
        let params = AttentionDecodeParams {
            heads: s.heads,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            rotated: self.rotary.rotated,
            splits: self.splits.count,
            split: self.splits.length,
            pages_per_slot: s.pages_per_slot,
            window: s.window,
            scale: s.scale,
            cap: s.cap,
            magnitude: self.rotary.magnitude,
            temperature,
            temperature_span,
            eps: self.qk_norm.map_or(0.0, |norm| norm.eps),
            norm_weights: self.rotary.norm_weights(),
            sinks: s.sinks,
        };
        // Query heads of a workgroup: several, so that keys and values are read once, unless that leaves a large device idle.
        let sharing = s.heads / s.kv_heads;
        let shared = s.kv_heads * sharing.div_ceil(4) * self.splits.count * self.rows;
        let alone = sharing == 1 || shared < capabilities.tuning.decode_workgroups;
        let (queries, group) = if alone { (1, AttentionDecodeGroup::Group1) } else { (4, AttentionDecodeGroup::Group4) };
        // Streams with subgroups where one holds a stream.
        let quads = s.head_dim / 4;
        let lanes = quads.div_ceil(2).next_power_of_two();
        let subgroup = capabilities.subgroup_size.filter(|size| *size >= lanes);
        let workgroup = if subgroup.is_some() { capabilities.tuning.decode_workgroup } else { 64 };
        let members = (workgroup / subgroup.unwrap_or(lanes)).max(1);
        let variant = AttentionDecodeVariant { group, cache: s.kv.variant(), subgroups: subgroup.is_some() };
        Plan::new(variant, &params, [s.kv_heads * sharing.div_ceil(queries), self.splits.count, self.rows])
            .with_cache(s.kv, s.head_dim)
            .with("WORKGROUP", workgroup)
            .with("LANES", lanes)
            .with("REDUCED_HEADS", (Self::SCRATCH / (members * quads)).min(queries))
            .with("PAIRING", self.rotary.pairing as u32)
            .with("QK_NORM", u32::from(self.qk_norm.is_some()) + u32::from(self.norm_behind()))
    }

    fn cost(&self, positions: u32) -> Cost {
        // Rows may be of as many sequences.
        let visible = self.shape.visible(positions) * self.rows;
        self.shape.cost(self.rows, u64::from(visible), visible)
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let s = &self.shape;
        let (heads, dim) = (s.heads as usize, s.head_dim as usize);
        // The kernel leaves qkv as it is.
        let qkv = memory.read::<f32>(b.qkv).to_vec();
        if let Some(HeadNorm { eps, behind_rotation }) = self.qk_norm {
            let mut weights = memory.read::<f32>(b.rope_constants)[self.rotary.norm_weights() as usize..][..2 * dim].to_vec();
            if behind_rotation {
                weights.fill(1.0);
            }
            let normalized = heads + s.kv_heads as usize;
            for row in memory.write::<f32>(b.qkv).chunks_exact_mut(s.q_stride as usize).take(self.rows as usize) {
                for (i, head) in row.chunks_exact_mut(dim).take(normalized).enumerate() {
                    let weights = if i < heads { &weights[..dim] } else { &weights[dim..] };
                    normalize(head, NormKind::Rms, weights, eps);
                }
            }
        }
        let rope = RopeKv {
            rows: self.rows,
            heads: s.heads,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            rotary: self.rotary,
            weighted: self.norm_behind(),
            pages_per_slot: s.pages_per_slot,
            kv: s.kv,
        };
        let AttentionDecodeBindings { qkv: buffer, keys, values, pages, rows, rope_constants, .. } = *b;
        rope.reference(memory, &RopeKvBindings { qkv: buffer, keys, values, pages, rows, rope_constants });
        let cached = Cached { keys, values, pages };
        let rotated_qkv = memory.read::<f32>(b.qkv).to_vec();
        memory.write::<f32>(b.qkv).copy_from_slice(&qkv);
        for r in 0..self.rows as usize {
            let row = memory.read::<Row>(b.rows)[r];
            for head in 0..if row.remaining == 0 { 0 } else { heads } {
                for split in 0..self.splits.count {
                    let span = split * self.splits.length..(split + 1) * self.splits.length;
                    let q = &rotated_qkv[r * s.q_stride as usize + head * dim..][..dim];
                    let (sums, maximum, weight) = attend(memory, cached, s, q, head, row.slot, row.position, span);
                    if self.splits.count == 1 {
                        let sink = sink_weight(memory, Some(b.rope_constants), s.sinks, head, maximum);
                        store(memory, b.out, (r * heads + head) * dim, &sums, weight + sink);
                    } else {
                        let at = (r * heads + head) * self.splits.count as usize + split as usize;
                        store_part(memory, b.workspace, at, &(sums, maximum, weight));
                    }
                }
            }
        }
    }
}

/// Reduces the splits of [`AttentionDecode`] or [`AttentionPrefill`].
#[derive(Debug)]
pub struct AttentionCombine {
    /// Query heads.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Rows.
    pub rows: u32,
    /// Splits.
    pub splits: u32,
    /// As [`AttentionShape::sinks`].
    pub sinks: u32,
}

impl AttentionCombine {
    /// Bytes of the workspace, `(rows, heads, splits, head_dim + 4)`; 0 with one split, whose result is the output.
    pub fn workspace_bytes(&self) -> u64 {
        let results = u64::from(self.rows) * u64::from(self.heads) * u64::from(self.splits);
        if self.splits > 1 { 4 * results * u64::from(self.head_dim + 4) } else { 0 }
    }
}

impl Kernel for AttentionCombine {
    type Bindings = AttentionCombineBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.splits <= MAX_SPLITS);
        let params = AttentionCombineParams { head_dim: self.head_dim, splits: self.splits, heads: self.heads, sinks: self.sinks };
        Plan::new(AttentionCombineVariant, &params, [self.heads, self.rows, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (dim, splits) = (self.head_dim as usize, self.splits as usize);
        for row_head in 0..(self.rows * self.heads) as usize {
            let workspace = &memory.read::<f32>(b.workspace)[row_head * splits * (dim + 4)..][..splits * (dim + 4)];
            let maximum = workspace.chunks_exact(dim + 4).map(|p| p[dim]).fold(f32::MIN, f32::max);
            let mut sums = vec![0.0f64; dim];
            let mut weight = 0.0f64;
            for part in workspace.chunks_exact(dim + 4) {
                let factor = f64::from(part[dim] - maximum).exp();
                weight += factor * f64::from(part[dim + 1]);
                for (s, p) in sums.iter_mut().zip(part) {
                    *s += factor * f64::from(*p);
                }
            }
            let head = row_head % self.heads as usize;
            let sink = sink_weight(memory, b.constants, self.sinks, head, f64::from(maximum));
            store(memory, b.out, row_head * dim, &sums, weight + sink);
        }
    }
}

/// How much workgroup memory the prefill kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionTier {
    /// Heads up to 64 with 20 KiB, up to 256 with 36 KiB: `attention_tiled`.
    Large,
    /// Heads up to 256, 8 KiB.
    Small,
    /// Any head, no workgroup memory.
    Streaming,
}

impl AttentionTier {
    /// The fastest tier that the device and the head size allow.
    pub fn choose(capabilities: &Capabilities, head_dim: u32) -> Self {
        let storage = capabilities.workgroup_storage;
        if (head_dim <= 64 && storage >= 20 << 10) || (head_dim <= MAX_TILED_HEAD && storage >= 36 << 10) {
            Self::Large
        } else if head_dim <= MAX_TILED_HEAD && storage >= 8 << 10 {
            Self::Small
        } else {
            Self::Streaming
        }
    }
}

/// Attention of runs of consecutive positions of a sequence, each from a multiple of [`Self::TILE`] rows on. Rows between runs repeat the last
/// one of a run.
#[derive(Debug)]
pub struct AttentionPrefill {
    /// Shape.
    pub shape: AttentionShape,
    /// Rows of q.
    pub rows: u32,
    /// Kernel; [`AttentionTier::Streaming`] also serves rows of different sequences.
    pub tier: AttentionTier,
    /// Splits of the cache, each with a row of the workspace `(rows, heads, splits, head_dim + 4)`, to be reduced by [`AttentionCombine`].
    /// More than one in [`AttentionTier::Large`] only.
    pub splits: u32,
}

impl AttentionPrefill {
    /// Queries, and as many keys, of a tile of [`AttentionTier::Large`]: keys of two pages at most. A multiple of the queries of other
    /// tiers.
    pub const TILE: u32 = 32;
    const _TWO_PAGES: () = assert!(PAGE >= Self::TILE);

    /// Splits of the cache that fill the device with a run of so many rows; 1 where there are enough.
    pub fn splits(heads: u32, run: u32, tier: AttentionTier, capabilities: &Capabilities) -> u32 {
        // There are at least as many positions as rows, so a split of the last tile of queries has two tiles of keys or more.
        let most = if tier == AttentionTier::Large { (run / (2 * Self::TILE)).min(8) } else { 1 };
        let workgroups = run.div_ceil(Self::TILE) * heads;
        (capabilities.tuning.prefill_workgroups / workgroups).min(most).max(1)
    }

    /// The positions that a split reads for the tile of queries whose first row is `first`.
    fn span(&self, rows: &[Row], first: usize, split: u32) -> std::ops::Range<u32> {
        let last = (first + Self::TILE as usize).min(rows.len()) - 1;
        let end = self.shape.last_visible(&rows[last]) + 1;
        let visible = self.shape.first_visible(rows[first].position);
        let part = (end - visible).div_ceil(Self::TILE * self.splits) * Self::TILE;
        visible + split * part..(visible + (split + 1) * part).min(end)
    }
}

impl Kernel for AttentionPrefill {
    type Bindings = AttentionPrefillBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        let s = &self.shape;
        debug_assert!(self.splits == 1 || self.tier == AttentionTier::Large);
        let params = s.params(self.rows, self.splits);
        let cache = s.kv.variant();
        if self.tier == AttentionTier::Streaming {
            let tasks = self.rows * s.heads * (s.head_dim / 4).div_ceil(8);
            return Plan::new(AttentionStreamingVariant { cache }, &params, grid_2d(tasks.div_ceil(64))).with_cache(s.kv, s.head_dim);
        }
        let workgroups = |queries: u32| [self.rows.div_ceil(queries), s.heads, self.splits];
        let plan = if self.tier == AttentionTier::Large {
            let head = match s.head_dim {
                0..=64 => AttentionTiledHead::Head64,
                65..=128 => AttentionTiledHead::Head128,
                _ => AttentionTiledHead::Head256,
            };
            Plan::new(AttentionTiledVariant { head, cache }, &params, workgroups(Self::TILE))
        } else {
            let head = match s.head_dim {
                0..=64 => AttentionPrefillHead::Small64,
                65..=128 => AttentionPrefillHead::Small128,
                _ => AttentionPrefillHead::Small256,
            };
            Plan::new(AttentionPrefillVariant { head, cache }, &params, workgroups(16))
        };
        plan.with_cache(s.kv, s.head_dim)
    }

    fn cost(&self, positions: u32) -> Cost {
        let s = &self.shape;
        let visible =
            (positions.saturating_sub(self.rows) + 1..=positions).map(|end| u64::from(s.visible((end + s.right_window).min(positions))));
        s.cost(self.rows, visible.sum(), s.visible(positions).max(self.rows.min(positions)))
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let (heads, dim) = (self.shape.heads as usize, self.shape.head_dim as usize);
        let cached = Cached { keys: b.keys, values: b.values, pages: b.pages };
        for r in 0..self.rows as usize {
            let row = memory.read::<Row>(b.rows)[r];
            for head in 0..heads {
                let end = self.shape.last_visible(&row);
                let q = memory.read::<f32>(b.q)[r * self.shape.q_stride as usize + head * dim..][..dim].to_vec();
                if self.splits == 1 {
                    let (sums, maximum, weight) = attend(memory, cached, &self.shape, &q, head, row.slot, row.position, 0..end + 1);
                    let sink = sink_weight(memory, b.constants, self.shape.sinks, head, maximum);
                    store(memory, b.out, (r * heads + head) * dim, &sums, weight + sink);
                    continue;
                }
                let rows = memory.read::<Row>(b.rows)[..self.rows as usize].to_vec();
                let tile = r / Self::TILE as usize * Self::TILE as usize;
                for split in 0..self.splits {
                    let span = self.span(&rows, tile, split);
                    let part = attend(memory, cached, &self.shape, &q, head, row.slot, row.position, span.start..span.end.min(end + 1));
                    store_part(memory, b.out, (r * heads + head) * self.splits as usize + split as usize, &part);
                }
            }
        }
    }
}

/// The key/value cache.
#[derive(Clone, Copy)]
struct Cached {
    keys: BufferId,
    values: BufferId,
    pages: BufferId,
}

/// Softmax-weighted values over the visible positions in `span`: unnormalized sums, largest score, sum of weights.
#[allow(clippy::too_many_arguments, reason = "a query, its visible positions and their buffers")]
fn attend(
    memory: &HostMemory,
    cached: Cached,
    shape: &AttentionShape,
    q: &[f32],
    head: usize,
    slot: u32,
    position: u32,
    span: std::ops::Range<u32>,
) -> (Vec<f64>, f64, f64) {
    let kv_heads = shape.kv_heads as usize;
    let kv_head = head / (shape.heads as usize / kv_heads);
    let visible = span.start.max(shape.first_visible(position))..span.end.min(position + shape.right_window + 1);
    let head_of = |buffer: BufferId, p: u32| {
        let page = memory.read::<u32>(cached.pages)[(slot * shape.pages_per_slot + p / PAGE) as usize];
        let head = (page * PAGE + p % PAGE) as usize * kv_heads + kv_head;
        shape.kv.load(memory.read(buffer), shape.head_dim, head)
    };
    let scores: Vec<f64> = visible
        .clone()
        .map(|p| {
            let dot: f64 = q.iter().zip(head_of(cached.keys, p)).map(|(q, k)| f64::from(*q) * f64::from(k)).sum();
            let score = dot * f64::from(shape.scale);
            if shape.cap > 0.0 { f64::from(shape.cap) * (score / f64::from(shape.cap)).tanh() } else { score }
        })
        .collect();
    let maximum = scores.iter().copied().fold(-1e30, f64::max);
    let mut sums = vec![0.0; q.len()];
    let mut weight = 0.0;
    for (p, score) in visible.zip(scores) {
        let w = (score - maximum).exp();
        weight += w;
        for (s, v) in sums.iter_mut().zip(head_of(cached.values, p)) {
            *s += w * f64::from(v);
        }
    }
    (sums, maximum, weight)
}

/// The part of a head's sink in a sum of weights.
fn sink_weight(memory: &HostMemory, constants: Option<BufferId>, first: u32, head: usize, maximum: f64) -> f64 {
    match constants {
        Some(constants) if first > 0 => (f64::from(memory.read::<f32>(constants)[first as usize + head]) - maximum).exp(),
        _ => 0.0,
    }
}

/// Writes the result of [`attend`] for a split to row `index` of the workspace.
fn store_part(memory: &mut HostMemory, buffer: BufferId, index: usize, (sums, maximum, weight): &(Vec<f64>, f64, f64)) {
    let dim = sums.len();
    let part = &mut memory.write::<f32>(buffer)[index * (dim + 4)..][..dim + 4];
    for (p, s) in part.iter_mut().zip(sums) {
        *p = *s as f32;
    }
    part[dim..].copy_from_slice(&[*maximum as f32, *weight as f32, 0.0, 0.0]);
}

fn store(memory: &mut HostMemory, out: BufferId, at: usize, sums: &[f64], weight: f64) {
    for (out, s) in memory.write::<f32>(out)[at..].iter_mut().zip(sums) {
        *out = (s / weight) as f32;
    }
}
