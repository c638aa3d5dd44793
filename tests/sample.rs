//! Sampling against its CPU reference: each stage and the whole, every option, awkward logits, odd vocabularies, several steps in one
//! submission.

#![allow(missing_docs)]

use bytemuck::Pod;
use doppler_engine::exec::{BufferId, Cpu, Executor, Program, Recording, gpu::GpuOptions};
use doppler_engine::kernels::{Capabilities, Group, NO_TOKEN, Row, SampleBindings, SampleDraw, SampleGroups, Sampler, Sampling};
use doppler_engine::shaders::Bindings as _;
use doppler_tests::Random;

const FIRST_ROW: u32 = 1;
const RING: u32 = 4;
/// More than the ring holds.
const STEPS: u32 = 6;

/// Logits of a shape that is hard in some way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// A bell, with values that must never be chosen among them.
    Bell,
    /// A bell whose values are whole numbers: many of each.
    Ties,
    /// All the same.
    Flat,
    /// So close together that all fall to few keys.
    Narrow,
    /// Few that matter, far from each other in the vocabulary.
    Peaks,
    /// Nothing that may be chosen.
    Nothing,
    /// A bell with one that is no number.
    OneNan,
    /// A bell with one that is infinite.
    OneInfinity,
    /// Some certain, and of the largest size.
    Extreme,
}

impl Shape {
    fn logits(self, vocab: usize, rows: usize) -> Vec<f32> {
        let mut random = Random::new(12345);
        let mut normal = || (0..6).map(|_| random.float()).sum::<f32>() * 2.0;
        let mut logit = |i: usize| match self {
            Self::Bell if i % 101 == 50 => f32::NEG_INFINITY,
            Self::OneNan if i % vocab == vocab / 3 => f32::NAN,
            Self::OneInfinity if i % vocab == vocab - 1 => f32::INFINITY,
            Self::Bell | Self::OneNan | Self::OneInfinity => normal(),
            Self::Ties => normal().round(),
            Self::Flat => 3.25,
            Self::Narrow => 7.0 + 1e-4 * normal(),
            Self::Peaks if i % 997 == 3 => normal(),
            Self::Peaks => normal() - 60.0,
            Self::Nothing => f32::NEG_INFINITY,
            Self::Extreme => [f32::NEG_INFINITY, -1e38, 1e38, 0.0, f32::MIN_POSITIVE][i % 5],
        };
        (0..vocab * rows).map(&mut logit).collect()
    }
}

fn warm() -> Sampler {
    Sampler { temperature: 0.8, seed: 11, ..Sampler::default() }
}

/// Rows that one workgroup each serves.
fn filtered() -> Vec<Sampler> {
    let penalties = Sampler { repetition_penalty: 1.2, presence_penalty: 0.7, frequency_penalty: 0.3, ..warm() };
    vec![
        warm(), // before the first row
        Sampler::default(),
        Sampler { temperature: 0.0, ..penalties },
        Sampler { temperature: 1e-6, top_k: 9, ..warm() },
        warm(), // not active
        Sampler { top_k: 5, ..warm() },
        Sampler { top_k: 1, ..warm() },
        Sampler { top_k: 700, temperature: 3.0, ..warm() },
        Sampler { top_k: 100_000, ..warm() },
        Sampler { top_p: 0.9, seed: 99, ..warm() },
        Sampler { top_p: 0.0, ..warm() },
        Sampler { top_p: 0.999, temperature: 1000.0, ..warm() },
        Sampler { top_p: 0.5, temperature: 1e-4, ..warm() },
        Sampler { top_p: 0.8, min_p: 0.01, ..penalties },
        Sampler { top_k: 300, top_p: 0.6, temperature: 2.0, ..warm() },
        Sampler { top_k: 40, top_p: 0.95, min_p: 0.02, repetition_penalty: 1.5, frequency_penalty: 0.5, seed: u32::MAX, ..warm() },
    ]
}

/// The same, and rows that draw from all tokens.
fn mixed() -> Vec<Sampler> {
    let mut all = filtered();
    all.extend([
        Sampler { temperature: 2.0, seed: 3, step: 5, ..warm() },
        Sampler { temperature: 1e-4, ..warm() },
        Sampler { temperature: 1000.0, ..warm() },
        Sampler { min_p: 0.1, temperature: 3.0, ..warm() },
        Sampler { min_p: 1.0, ..warm() },
        Sampler { frequency_penalty: 2.0, repetition_penalty: 0.9, ..warm() },
    ]);
    all
}

/// State of a batch on a device.
struct Batch<'a> {
    executor: &'a Executor,
    sampling: Sampling,
    draws: bool,
    /// Buffers with their words.
    buffers: SampleBindings<(BufferId, usize)>,
}

impl<'a> Batch<'a> {
    fn new(executor: &'a Executor, vocab: u32, shape: Shape, samplers: &[Sampler]) -> Self {
        fn upload<T: Pod>(executor: &Executor, data: &[T]) -> (BufferId, usize) {
            let buffer = executor.create_buffer("test", size_of_val(data) as u64).expect("fits");
            executor.write(buffer, 0, bytemuck::cast_slice(data));
            (buffer, size_of_val(data) / 4)
        }
        let count = samplers.len() as u32;
        let row = |i| Row { token: 7, position: 10 + i, slot: count - 1 - i, remaining: u32::from(i != 4) * 9 };
        let counts: Vec<u32> = (0..count).flat_map(|_| Sampling::counts(&[0, 3 % vocab, vocab - 1], &[], vocab as usize)).collect();
        let buffers = SampleBindings {
            logits: upload(executor, &shape.logits(vocab as usize, count as usize)),
            counts: upload(executor, &counts),
            samplers: upload(executor, samplers),
            rows: upload(executor, &(0..count).map(row).collect::<Vec<_>>()),
            groups: upload(executor, &vec![u32::MAX; count as usize * Sampling::groups(vocab) as usize * size_of::<Group>() / 4]),
            sampled: upload(executor, &vec![u32::MAX; (count * RING) as usize]),
        };
        let sampling = Sampling { vocab, first_row: FIRST_ROW, rows: count - FIRST_ROW, ring: RING };
        // Slots run against the rows.
        let draws = samplers[..(count - FIRST_ROW) as usize].iter().any(Sampler::draws_from_all);
        Self { executor, sampling, draws, buffers }
    }

    fn run(&mut self, recording: Recording, times: u32) {
        let program = self.executor.compile("sample", recording);
        let programs: Vec<&Program> = (0..times).map(|_| &program).collect();
        self.executor.submit(&programs).expect("runs");
    }

    fn bindings(&self) -> SampleBindings {
        SampleBindings::bind(&self.buffers, &mut |_, (id, _)| *id)
    }

    fn read(&mut self, (id, words): (BufferId, usize)) -> Vec<u32> {
        doppler_tests::read(self.executor, id, words)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let Self { executor, buffers, .. } = self;
        SampleBindings::bind(buffers, &mut |_, (id, _)| {
            executor.destroy_buffer(*id);
            *id
        });
    }
}

/// Everything that some steps leave behind: counts, samplers, rows, ring.
fn sample(executor: &Executor, vocab: u32, shape: Shape, samplers: &[Sampler]) -> [Vec<u32>; 4] {
    let mut batch = Batch::new(executor, vocab, shape, samplers);
    let mut recording = Recording::new();
    recording.sample(batch.sampling, batch.draws, batch.bindings());
    batch.run(recording, STEPS);
    let SampleBindings { counts, samplers, rows, sampled, .. } = batch.buffers;
    [counts, samplers, rows, sampled].map(|buffer| batch.read(buffer))
}

fn executors() -> (Executor, Executor) {
    let gpu = Executor::Gpu(Box::new(doppler_tests::gpu(&GpuOptions::default())));
    (gpu, Executor::Cpu(Cpu::new(Capabilities::BASELINE)))
}

fn check(shape: Shape, vocabularies: &[u32], samplers: &[Sampler]) {
    let (gpu, cpu) = executors();
    for &vocab in vocabularies {
        let expected = sample(&cpu, vocab, shape, samplers);
        let found = sample(&gpu, vocab, shape, samplers);
        let ring = RING as usize;
        for (i, (found, expected)) in found[3].chunks(ring).zip(expected[3].chunks(ring)).enumerate() {
            assert_eq!(found, expected, "tokens of {:?}, vocabulary {vocab}", samplers[i]);
        }
        assert_eq!(found[2], expected[2], "rows, vocabulary {vocab}");
        assert_eq!(found[1], expected[1], "samplers, vocabulary {vocab}");
        assert!(found[0] == expected[0], "counts, vocabulary {vocab}");
        // Slots run against the rows.
        let slot = |row: usize| &found[3][(samplers.len() - 1 - row) * ring..][..ring];
        assert_eq!(slot(0), [u32::MAX; RING as usize], "the row before the first");
        assert_eq!(slot(4), [u32::MAX; RING as usize], "the row that is not active");
    }
}

/// Vocabularies of one token, of less than a block, of groups that do not fill a workgroup, and of groups of three blocks.
#[test]
fn sample_on_device_equals_reference() {
    check(Shape::Bell, &[1, 7, 255, 1031, 50_257, 262_147], &mixed());
    check(Shape::Bell, &[1031], &filtered());
}

#[test]
fn sample_ties_equal_reference() {
    check(Shape::Ties, &[130, 32_000], &mixed());
    check(Shape::Flat, &[130, 140_000], &mixed());
}

#[test]
fn sample_narrow_and_peaked_logits_equal_reference() {
    check(Shape::Narrow, &[7, 40_000], &mixed());
    check(Shape::Peaks, &[7, 50_257], &mixed());
}

#[test]
fn sample_extreme_logits_equal_reference() {
    check(Shape::Extreme, &[7, 5000], &mixed());
}

/// NaN, infinity, or nothing that may be chosen: said at each step, whatever the row asks for.
#[test]
fn sample_not_finite_gives_no_token() {
    for shape in [Shape::OneNan, Shape::OneInfinity, Shape::Nothing] {
        check(shape, &[7, 5000], &mixed());
        let [_, _, _, sampled] = sample(&executors().0, 5000, shape, &mixed());
        assert!(sampled.iter().all(|token| *token == NO_TOKEN), "{shape:?}: {sampled:?}");
    }
}

/// Groups after a stage of sampling, from what the reference of the stage before left.
fn groups(executor: &Executor, vocab: u32, draws: bool) -> Vec<Group> {
    let mut batch = Batch::new(executor, vocab, Shape::Bell, &mixed());
    let mut recording = Recording::new();
    recording.dispatch(SampleGroups(batch.sampling), batch.bindings());
    if draws {
        recording.dispatch(SampleDraw(batch.sampling), batch.bindings());
    }
    batch.run(recording, 1);
    bytemuck::pod_collect_to_vec(&batch.read(batch.buffers.groups))
}

#[test]
fn sample_groups_equal_reference() {
    let (gpu, cpu) = executors();
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-3 * b.abs().max(1.0) || a.to_bits() == b.to_bits();
    for (vocab, draws) in [(7, true), (1031, false), (1031, true), (151_937, true)] {
        let found = groups(&gpu, vocab, draws);
        let expected = groups(&cpu, vocab, draws);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let tokens = |group: &Group| (group.best.token, group.drawn.token);
            assert_eq!(tokens(found), tokens(expected), "group {i}, vocabulary {vocab}");
            assert!(close(found.best.score, expected.best.score), "group {i}, vocabulary {vocab}: {found:?}, not {expected:?}");
            assert!(close(found.drawn.score, expected.drawn.score), "group {i}, vocabulary {vocab}: {found:?}, not {expected:?}");
            assert!(close(found.mass, expected.mass), "group {i}, vocabulary {vocab}: {found:?}, not {expected:?}");
        }
    }
}
