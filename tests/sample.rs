//! The sampling kernel against its CPU reference: every option, odd vocabularies, several steps in one submission.

#![allow(missing_docs)]

use bytemuck::Pod;
use doppler_engine::cpu::Cpu;
use doppler_engine::executor::{Executor, Program};
use doppler_engine::gpu::GpuOptions;
use doppler_engine::kernels::{Capabilities, Row, Sample, Sampler};
use doppler_engine::recording::Recording;

const FIRST_ROW: u32 = 1;
const RING: u32 = 4;
/// More than the ring holds.
const STEPS: u32 = 6;

/// Bell-shaped logits of a fixed sequence, with values that must never be chosen among them.
fn logits(count: usize) -> Vec<f32> {
    let mut state = 12345u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    let mut normal = || (0..6).map(|_| uniform()).sum::<f32>() * 4.0 - 12.0;
    let special = |i: usize| match i % 101 {
        50 => Some(f32::NEG_INFINITY),
        51 => Some(f32::NAN),
        _ => None,
    };
    (0..count).map(|i| special(i).unwrap_or_else(&mut normal)).collect()
}

fn samplers() -> Vec<Sampler> {
    let warm = Sampler { temperature: 0.8, seed: 11, ..Sampler::default() };
    vec![
        warm, // before the first row
        Sampler::default(),
        Sampler { presence_penalty: 0.7, frequency_penalty: 0.3, repetition_penalty: 1.2, ..Sampler::default() },
        Sampler { temperature: 2.0, seed: 3, step: 5, ..warm },
        warm, // not active
        Sampler { top_k: 5, ..warm },
        Sampler { top_k: 100_000, ..warm },
        Sampler { top_p: 0.9, seed: 99, ..warm },
        Sampler { top_p: 0.0, ..warm },
        Sampler { min_p: 0.1, temperature: 3.0, ..warm },
        Sampler { top_k: 40, top_p: 0.95, min_p: 0.02, repetition_penalty: 1.5, frequency_penalty: 0.5, seed: u32::MAX, ..warm },
    ]
}

fn bytes<T: Pod>(data: &[T]) -> &[u8] {
    bytemuck::cast_slice(data)
}

/// Everything that sampling leaves behind: counts, samplers, rows, ring.
fn run(executor: &mut Executor, vocab: u32) -> [Vec<u32>; 4] {
    let samplers = samplers();
    let count = samplers.len() as u32;
    let rows: Vec<Row> =
        (0..count).map(|i| Row { token: 7, position: 10 + i, slot: count - 1 - i, flags: u32::from(i != 4) * Row::ACTIVE }).collect();
    let counts: Vec<u32> = (0..count).flat_map(|_| Sample::prompt_counts(&[0, 3, vocab - 1], vocab as usize)).collect();
    let size = (count * vocab) as usize;

    let mut upload = |label, bytes: &[u8]| {
        let buffer = executor.create_buffer(label, bytes.len() as u64).expect("fits");
        executor.write(buffer, 0, bytes);
        buffer
    };
    let logits = upload("logits", bytes(&logits(size)));
    let outputs = [
        (upload("counts", bytes(&counts)), size),
        (upload("samplers", bytes(&samplers)), samplers.len() * size_of::<Sampler>() / 4),
        (upload("rows", bytes(&rows)), rows.len() * size_of::<Row>() / 4),
        (upload("sampled", bytes(&vec![u32::MAX; (count * RING) as usize])), (count * RING) as usize),
    ];

    let mut recording = Recording::new();
    let sample = Sample { vocab, first_row: FIRST_ROW, rows: count - FIRST_ROW, ring: RING };
    recording.dispatch(sample, &[logits, outputs[0].0, outputs[1].0, outputs[2].0, outputs[3].0]);
    let program = executor.compile("sample", recording);
    let programs: Vec<&Program> = (0..STEPS).map(|_| &program).collect();
    executor.submit(&programs).expect("runs");
    let read = outputs.map(|(buffer, words)| {
        let pending = executor.submit_and_read(&[], buffer, 0, 4 * words as u64).expect("reads");
        bytemuck::pod_collect_to_vec(&pollster::block_on(pending.wait()).expect("reads"))
    });
    for (buffer, _) in outputs {
        executor.destroy_buffer(buffer);
    }
    executor.destroy_buffer(logits);
    read
}

#[test]
fn the_device_samples_like_the_reference() {
    let mut gpu = Executor::Gpu(Box::new(doppler_tests::gpu(&GpuOptions::default())));
    let mut cpu = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    for vocab in [5, 255, 1031, 32_000, 151_937] {
        let expected = run(&mut cpu, vocab);
        let found = run(&mut gpu, vocab);
        assert_eq!(found[3], expected[3], "tokens, vocabulary {vocab}");
        assert_eq!(found[2], expected[2], "rows, vocabulary {vocab}");
        assert_eq!(found[1], expected[1], "samplers, vocabulary {vocab}");
        assert!(found[0] == expected[0], "counts, vocabulary {vocab}");
        let ring = RING as usize;
        assert_eq!(found[3][..ring], [u32::MAX; RING as usize], "the row before the first");
        assert_eq!(found[3][4 * ring..5 * ring], [u32::MAX; RING as usize], "the row that is not active");
    }
}
