//! Sampling on the device: penalties, temperature, top-k, top-p, min-p, and the draw.
//!
//! The order is that of Hugging Face's transformers. Filters keep a token by its likelihood alone, so tokens as
//! likely as the last one kept stay too. The draw adds Gumbel noise to the log-likelihoods and takes the largest (Gumbel 1954;
//! Maddison et al. 2014): exact without a sum, and a function of seed, step and token only, the same on every device.
//!
//! It takes two dispatches or three. [`SampleGroups`] finds the best of each group of tokens on the whole device, which is all that
//! the most likely token needs. [`SampleDraw`], for rows without `top_k` and `top_p`, draws from each group. [`Sample`] does the rest,
//! a workgroup for each row: it filters and draws, and looks only into groups whose best token may stay.

use bytemuck::{Pod, Zeroable};

use super::{Capabilities, Kernel, Plan, SampleBindings};
use crate::buffer::HostMemory;
use crate::shaders::Variant;
use crate::shaders::params::SampleParams;
use crate::shaders::variants::{SampleDrawVariant, SampleGroupsVariant, SampleVariant};

/// A token on its way through the model, and where its sequence's cache is: `shaders/shared/rows.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Token id.
    pub token: u32,
    /// Position in its sequence.
    pub position: u32,
    /// Row of the block tables, samplers, token counts and sampled tokens.
    pub slot: u32,
    /// Tokens that may still be sampled, or in prefill the positions of its text from this one on. 0: the row is inactive; it is not sampled,
    /// and puts nothing into the cache.
    pub remaining: u32,
}

/// Sampling state of a slot: `Sampler` in `shaders/shared/sampling.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Sampler {
    /// Divides logits. Below 1e-5 the most likely token is taken, of equals the one with the lowest id.
    pub temperature: f32,
    /// Keep this many most likely tokens; 0: all.
    pub top_k: u32,
    /// Keep the fewest most likely tokens that together have this fraction of the probability that `top_k` left (Holtzman et al. 2020); 1: all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the most likely; 0: all.
    pub min_p: f32,
    /// Divides positive logits of tokens in prompt or answer, multiplies negative ones (Keskar et al. 2019); 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from logits of tokens in the answer.
    pub presence_penalty: f32,
    /// Subtracted for each time the token is in the answer.
    pub frequency_penalty: f32,
    /// Same seed, same logits: same tokens.
    pub seed: u32,
    /// Tokens drawn so far. Moves on with each; its remainder is the place in the ring.
    pub step: u32,
    /// Zero.
    pub padding: [u32; 3],
}

impl Default for Sampler {
    /// The most likely token, nothing filtered.
    fn default() -> Self {
        Self { top_p: 1.0, repetition_penalty: 1.0, ..Self::zeroed() }
    }
}

impl Sampler {
    /// Whether token counts are looked at and kept.
    #[allow(clippy::float_cmp)] // Exactly these values mean off.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether the row needs [`SampleDraw`]: it draws from more tokens than one workgroup should look at.
    pub fn draws_from_all(&self) -> bool {
        self.temperature >= GREEDY && self.top_k == 0 && self.top_p >= 1.0
    }
}

/// A token and its score. `Best` in `shaders/shared/sampling.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Best {
    /// Logit after penalties or, where it is drawn, relative log-likelihood with noise.
    pub score: f32,
    /// Token id.
    pub token: u32,
}

/// Summary of consecutive tokens of a row. `Group` in `shaders/shared/sampling.wesl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Group {
    /// The most likely, of equals the first.
    pub best: Best,
    /// The one drawn, by [`SampleDraw`]; its score is -2e30 if none may be.
    pub drawn: Best,
    /// Likelihood of all together relative to the most likely, for rows with `top_p`.
    pub mass: f32,
}

/// Rows to sample, and how they lie in memory: logits (rows, vocab), rows (rows), groups (rows, [`Self::groups`]), counts (slots, vocab),
/// samplers (slots), sampled (slots, ring).
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Vocabulary.
    pub vocab: u32,
    /// First row.
    pub first_row: u32,
    /// Rows.
    pub rows: u32,
    /// Tokens of a row that are kept for reading.
    pub ring: u32,
}

impl Sampling {
    /// Groups of a row: at most 1024, as many as a workgroup keeps.
    pub fn groups(vocab: u32) -> u32 {
        vocab.div_ceil(Self::group_tokens(vocab))
    }

    /// Tokens of a group: blocks of 128.
    fn group_tokens(vocab: u32) -> u32 {
        128 * vocab.div_ceil(128 * 1024)
    }

    /// A row of the counts for a sequence with this much of its answer: bits 0 to 15 count a token in the answer, bit 16 tells that it is in the prompt.
    pub fn counts(prompt: &[u32], answer: &[u32], vocab: usize) -> Vec<u32> {
        let mut counts = vec![0; vocab];
        for &token in prompt {
            counts[token as usize] = 1 << 16;
        }
        for &token in answer {
            let count = &mut counts[token as usize];
            *count += u32::from(*count & 0xffff < 0xffff);
        }
        counts
    }

    /// The plan of a stage: with a workgroup for each row, or for eight groups of one.
    fn plan<V: Variant<Params = SampleParams>>(self, variant: V, whole_rows: bool) -> Plan<V::Bindings> {
        let Self { vocab, first_row, rows, ring } = self;
        let (groups, group_tokens) = (Self::groups(vocab), Self::group_tokens(vocab));
        let params = SampleParams { vocab, first_row, ring, groups, group_tokens };
        let workgroups = if whole_rows { [rows, 1, 1] } else { [groups.div_ceil(8), rows, 1] };
        Plan::new(variant, &params, workgroups)
    }

    /// Calls `f` with sampler, logits after penalties, and groups of each active row.
    fn each_row(self, memory: &mut HostMemory, b: &SampleBindings, f: impl Fn(&Sampler, &[f32], &mut [Group])) {
        let (vocab, groups) = (self.vocab as usize, Self::groups(self.vocab) as usize);
        for index in self.first_row as usize..(self.first_row + self.rows) as usize {
            let row = memory.read::<Row>(b.rows)[index];
            let sampler = memory.read::<Sampler>(b.samplers)[row.slot as usize];
            let counts = &memory.read::<u32>(b.counts)[row.slot as usize * vocab..][..vocab];
            let logits = all_penalized(&memory.read::<f32>(b.logits)[index * vocab..][..vocab], counts, &sampler);
            if row.remaining != 0 {
                f(&sampler, &logits, &mut memory.write::<Group>(b.groups)[index * groups..][..groups]);
            }
        }
    }
}

/// First stage: [`Group::best`], and [`Group::mass`] where it is asked for.
#[derive(Debug)]
pub struct SampleGroups(pub Sampling);

impl Kernel for SampleGroups {
    type Bindings = SampleBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        self.0.plan(SampleGroupsVariant, false)
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let tokens = Sampling::group_tokens(self.0.vocab);
        self.0.each_row(memory, b, |sampler, logits, groups| {
            for ((group, logits), first) in groups.iter_mut().zip(logits.chunks(tokens as usize)).zip((0..).step_by(tokens as usize)) {
                group.best = best(first, logits.iter().copied());
                if sampler.temperature >= GREEDY && sampler.top_p < 1.0 {
                    group.mass = relative(logits, group.best.score, sampler.temperature).iter().map(|l| l.exp()).sum();
                }
            }
        });
    }
}

/// Second stage, for rows without `top_k` and `top_p`: [`Group::drawn`].
#[derive(Debug)]
pub struct SampleDraw(pub Sampling);

impl Kernel for SampleDraw {
    type Bindings = SampleBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        self.0.plan(SampleDrawVariant, false)
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let tokens = Sampling::group_tokens(self.0.vocab);
        self.0.each_row(memory, b, |sampler, logits, groups| {
            let largest = logits[best(0, logits.iter().copied()).token as usize];
            for ((group, logits), first) in groups.iter_mut().zip(logits.chunks(tokens as usize)).zip((0..).step_by(tokens as usize)) {
                if sampler.draws_from_all() {
                    group.drawn = draw(first, &relative(logits, largest, sampler.temperature), 0, sampler);
                }
            }
        });
    }
}

/// Last stage: chooses the next token of each row. Writes it to the row, to the ring and, if the sampler penalizes, to the counts;
/// moves the row to the next position. Where logits are no numbers the ring gets [`NO_TOKEN`] and the row token 0.
#[derive(Debug)]
pub struct Sample(pub Sampling);

impl Kernel for Sample {
    type Bindings = SampleBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        self.0.plan(SampleVariant, true)
    }

    /// Without looking at the groups.
    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let Sampling { vocab, first_row, rows, ring } = self.0;
        let vocab = vocab as usize;
        for index in first_row as usize..(first_row + rows) as usize {
            let mut row = memory.read::<Row>(b.rows)[index];
            let slot = row.slot as usize;
            let mut sampler = memory.read::<Sampler>(b.samplers)[slot];
            let step = sampler.step;
            let logits = memory.read::<f32>(b.logits)[index * vocab..][..vocab].to_vec();
            let counts = &mut memory.write::<u32>(b.counts)[slot * vocab..][..vocab];
            if let Some(token) = sample_reference(&logits, counts, &mut sampler, &mut row) {
                memory.write::<Row>(b.rows)[index] = row;
                memory.write::<Sampler>(b.samplers)[slot] = sampler;
                memory.write::<u32>(b.sampled)[slot * ring as usize + (step % ring) as usize] = token;
            }
        }
    }
}

/// Sampled where a logit is NaN or infinity, or all are -infinity.
pub const NO_TOKEN: u32 = u32::MAX;

/// Below this temperature the most likely token is taken.
const GREEDY: f32 = 1e-5;

/// Logits are clamped to this; those at the lower end are never chosen.
const LIMIT: f32 = 1e30;

/// The score of NaN and infinity: above all others.
const BROKEN: f32 = 2.0 * LIMIT;

/// Chooses the next token of one row, or [`NO_TOKEN`], from its logits (vocab) and counts (vocab), and moves the row on. `None` if not
/// active.
pub fn sample_reference(logits: &[f32], counts: &mut [u32], sampler: &mut Sampler, row: &mut Row) -> Option<u32> {
    if row.remaining == 0 {
        return None;
    }
    row.remaining -= 1;
    let logits = all_penalized(logits, counts, sampler);
    let Best { score, mut token } = best(0, logits.iter().copied());
    if sampler.temperature >= GREEDY {
        let likelihoods = relative(&logits, score, sampler.temperature);
        token = draw(0, &likelihoods, threshold(&likelihoods, sampler), sampler).token;
    }
    let usable = score > -LIMIT && score <= LIMIT;
    let count = &mut counts[token as usize];
    if sampler.penalizes() && usable && *count & 0xffff < 0xffff {
        *count += 1;
    }
    sampler.step += 1;
    row.token = if usable { token } else { 0 };
    row.position += 1;
    Some(if usable { token } else { NO_TOKEN })
}

/// The first of the largest, of tokens from `first` on.
fn best(first: u32, scores: impl Iterator<Item = f32>) -> Best {
    let nothing = Best { score: -2.0 * LIMIT, token: 0 };
    scores.zip(first..).fold(nothing, |best, (score, token)| if score > best.score { Best { score, token } } else { best })
}

/// Draws from tokens from `first` on whose key is at least `kept`.
fn draw(first: u32, likelihoods: &[f32], kept: u32, sampler: &Sampler) -> Best {
    let noisy = likelihoods.iter().zip(first..).map(|(&likelihood, token)| {
        let keep = likelihood > -LIMIT && key(likelihood) >= kept && (sampler.min_p <= 0.0 || likelihood >= sampler.min_p.min(1.0).ln());
        if keep { likelihood + gumbel(random(sampler.seed, sampler.step, token)) } else { -2.0 * LIMIT }
    });
    best(first, noisy)
}

fn all_penalized(logits: &[f32], counts: &[u32], sampler: &Sampler) -> Vec<f32> {
    logits.iter().zip(counts).map(|(&logit, &count)| penalized(logit, count, sampler)).collect()
}

fn penalized(logit: f32, count: u32, sampler: &Sampler) -> f32 {
    if logit.is_nan() || logit == f32::INFINITY {
        return BROKEN;
    }
    let mut logit = logit.clamp(-LIMIT, LIMIT);
    if sampler.penalizes() && count != 0 && logit.abs() < LIMIT {
        logit = if logit > 0.0 { logit / sampler.repetition_penalty } else { logit * sampler.repetition_penalty };
        let answered = count & 0xffff;
        if answered != 0 {
            logit -= sampler.presence_penalty + answered as f32 * sampler.frequency_penalty;
        }
    }
    logit.clamp(-LIMIT, LIMIT)
}

/// Log-likelihoods relative to the most likely token.
fn relative(logits: &[f32], largest: f32, temperature: f32) -> Vec<f32> {
    let relative = |&logit: &f32| if logit <= -LIMIT { -LIMIT } else { ((logit - largest) / temperature).max(-0.5 * LIMIT) };
    logits.iter().map(relative).collect()
}

/// The shader's fixed point: monotonic, and 0 for all that is too unlikely to matter.
fn key(likelihood: f32) -> u32 {
    ((likelihood + 32.0) * (1u32 << 27) as f32).clamp(0.0, 4_294_967_040.0) as u32
}

/// The key from which on `top_k` and `top_p` keep tokens.
fn threshold(likelihoods: &[f32], sampler: &Sampler) -> u32 {
    let mut sorted: Vec<f32> = likelihoods.iter().copied().filter(|&l| l > -LIMIT).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut threshold = 0;
    if sampler.top_k > 0 && !sorted.is_empty() {
        threshold = key(sorted[sorted.len().min(sampler.top_k as usize) - 1]);
    }
    if sampler.top_p < 1.0 {
        sorted.retain(|&l| key(l) >= threshold);
        let total: f64 = sorted.iter().map(|&l| f64::from(l).exp()).sum();
        let mut sum = 0.0;
        for &likelihood in &sorted {
            sum += f64::from(likelihood).exp();
            threshold = key(likelihood);
            if sum >= f64::from(sampler.top_p) * total {
                break;
            }
        }
    }
    threshold
}

/// 32 random bits.
fn random(seed: u32, step: u32, token: u32) -> u32 {
    let stream = pcg(seed);
    let offset = pcg(step.wrapping_add(stream));
    pcg(pcg(token ^ stream).wrapping_add(offset))
}

/// A permutation of the 32-bit integers: PCG RXS-M-XS (O'Neill 2014).
fn pcg(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// A Gumbel variable; precise where it is large, as the largest decide.
fn gumbel(bits: u32) -> f32 {
    let v = ((bits as f32 + 0.5) * 2.328_306_4e-10).min(0.999_999_94);
    let exponential = if v < 0.001 { v + 0.5 * v * v } else { -(1.0 - v).ln() };
    -exponential.ln()
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // The expected values are exact.
mod tests {
    use super::*;

    const LOGITS: [f32; 8] = [1.0, 2.5, -0.5, 2.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 2.0];

    fn draw(logits: &[f32], counts: &mut [u32], sampler: &mut Sampler) -> u32 {
        let mut row = Row { remaining: 1, ..Row::default() };
        sample_reference(logits, counts, sampler, &mut row).expect("active")
    }

    /// Draws 20,000 tokens and compares their frequencies with `weights` by Pearson's chi-square.
    fn check_distribution(logits: &[f32], mut sampler: Sampler, weights: &[f64]) {
        const DRAWS: u32 = 20_000;
        let mut seen = vec![0u32; logits.len()];
        for _ in 0..DRAWS {
            seen[draw(logits, &mut vec![0; logits.len()], &mut sampler) as usize] += 1;
        }
        let total: f64 = weights.iter().sum();
        let mut chi_square = 0.0;
        for (token, (&n, &weight)) in seen.iter().zip(weights).enumerate() {
            if weight == 0.0 {
                assert_eq!(n, 0, "token {token} must not be drawn");
            } else {
                let expected = f64::from(DRAWS) * weight / total;
                chi_square += (f64::from(n) - expected).powi(2) / expected;
            }
        }
        // 7 degrees of freedom exceed this once in 10,000 times; the seed is fixed.
        assert!(chi_square < 29.9, "chi-square {chi_square}: {seen:?}, weights {weights:?}");
    }

    fn weights(temperature: f64, keep: &[usize]) -> Vec<f64> {
        let weight = |(i, &l): (usize, &f32)| if keep.contains(&i) { (f64::from(l) / temperature).exp() } else { 0.0 };
        LOGITS.iter().enumerate().map(weight).collect()
    }

    fn warm() -> Sampler {
        Sampler { temperature: 1.0, seed: 7, ..Sampler::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        let mut counts = vec![0; 4];
        assert_eq!(draw(&[1.0, 3.0, 3.0, f32::NEG_INFINITY], &mut counts, &mut Sampler::default()), 1);
        assert_eq!(draw(&[f32::NEG_INFINITY, f32::NEG_INFINITY, -1e9, -2e9], &mut counts, &mut Sampler::default()), 2);
        assert_eq!(counts, [0; 4], "nothing penalizes");
    }

    #[test]
    fn no_token_is_drawn_from_what_is_no_number() {
        let penalizes = Sampler { presence_penalty: 1.0, ..warm() };
        for mut sampler in [Sampler::default(), warm(), Sampler { top_k: 1, ..warm() }, Sampler { top_p: 0.5, ..warm() }, penalizes] {
            let mut counts = vec![1; 4];
            for logits in [[1.0, f32::NAN, 3.0, 2.0], [0.0, 5.0, 1.0, f32::INFINITY], [f32::NAN; 4], [f32::NEG_INFINITY; 4]] {
                assert_eq!(draw(&logits, &mut counts, &mut sampler), NO_TOKEN, "{logits:?} {sampler:?}");
            }
            assert_eq!(counts, [1; 4]);
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let all = [0, 1, 2, 3, 5, 7];
        check_distribution(&LOGITS, warm(), &weights(1.0, &all));
        check_distribution(&LOGITS, Sampler { temperature: 2.5, ..warm() }, &weights(2.5, &all));
        check_distribution(&LOGITS, Sampler { temperature: 0.3, ..warm() }, &weights(0.3, &all));
    }

    #[test]
    fn top_k_keeps_ties() {
        check_distribution(&LOGITS, Sampler { top_k: 1, ..warm() }, &weights(1.0, &[1]));
        check_distribution(&LOGITS, Sampler { top_k: 2, ..warm() }, &weights(1.0, &[1, 3, 7]));
        check_distribution(&LOGITS, Sampler { top_k: 4, ..warm() }, &weights(1.0, &[0, 1, 3, 7]));
        check_distribution(&LOGITS, Sampler { top_k: 100, ..warm() }, &weights(1.0, &[0, 1, 2, 3, 5, 7]));
    }

    #[test]
    fn top_p_keeps_the_fewest_that_suffice() {
        // e^2.5 : e^2 : e^2 : e : 1 : e^-0.5 = 12.18 : 7.39 : 7.39 : 2.72 : 1 : 0.61, together 31.29.
        check_distribution(&LOGITS, Sampler { top_p: 0.0, ..warm() }, &weights(1.0, &[1]));
        check_distribution(&LOGITS, Sampler { top_p: 0.38, ..warm() }, &weights(1.0, &[1]));
        check_distribution(&LOGITS, Sampler { top_p: 0.85, ..warm() }, &weights(1.0, &[1, 3, 7]));
        check_distribution(&LOGITS, Sampler { top_p: 0.87, ..warm() }, &weights(1.0, &[0, 1, 3, 7]));
        // Of the 26.96 that top_k left: the most likely has 0.452.
        check_distribution(&LOGITS, Sampler { top_k: 2, top_p: 0.44, ..warm() }, &weights(1.0, &[1]));
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        check_distribution(&LOGITS, Sampler { min_p: 0.5, ..warm() }, &weights(1.0, &[1, 3, 7]));
        check_distribution(&LOGITS, Sampler { min_p: 0.2, ..warm() }, &weights(1.0, &[0, 1, 3, 7]));
        check_distribution(&LOGITS, Sampler { min_p: 1.0, ..warm() }, &weights(1.0, &[1]));
    }

    #[test]
    fn penalties_look_at_prompt_and_answer() {
        let mut counts = Sampling::counts(&[1, 2], &[], 4);
        let repetition = Sampler { repetition_penalty: 2.0, ..Sampler::default() };
        let penalize = |logit, count, sampler: &Sampler| penalized(logit, count, sampler);
        assert_eq!(penalize(3.0, counts[1], &repetition), 1.5);
        assert_eq!(penalize(-3.0, counts[2], &repetition), -6.0);
        assert_eq!(penalize(3.0, counts[0], &repetition), 3.0);
        let frequency = Sampler { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampler::default() };
        assert_eq!(penalize(3.0, counts[1], &frequency), 3.0, "the prompt is not the answer");
        assert_eq!(penalize(3.0, counts[1] + 3, &frequency), 1.75);
        assert_eq!(penalize(3.0, 1, &frequency), 2.25);

        let mut sampler = Sampler { presence_penalty: 1.0, ..Sampler::default() };
        let logits = [0.0, 1.0, 0.6, 0.5];
        let tokens: Vec<u32> = (0..5).map(|_| draw(&logits, &mut counts, &mut sampler)).collect();
        assert_eq!(tokens, [1, 2, 3, 0, 1]);
        assert_eq!(counts, [1, (1 << 16) + 2, (1 << 16) + 1, 1]);
    }

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let run = |seed| {
            let mut sampler = Sampler { seed, ..warm() };
            (0..64).map(|_| draw(&LOGITS, &mut [0; 8], &mut sampler)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_ne!(run(1)[1..], run(1)[..63], "steps differ");
    }

    #[test]
    fn rows_move_on_unless_inactive() {
        let (mut sampler, mut row) = (warm(), Row { token: 9, position: 5, slot: 3, remaining: 0 });
        assert_eq!(sample_reference(&LOGITS, &mut [0; 8], &mut sampler, &mut row), None);
        assert_eq!((sampler.step, row.position, row.token), (0, 5, 9));
        row.remaining = 2;
        let token = sample_reference(&LOGITS, &mut [0; 8], &mut sampler, &mut row);
        assert_eq!((sampler.step, row.position, Some(row.token), row.remaining), (1, 6, token, 1));
    }
}
