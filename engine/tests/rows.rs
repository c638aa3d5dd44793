//! The kernels that work on rows of activations, against their CPU references.

use doppler_engine::cpu::Cpu;
use doppler_engine::executor::Executor;
use doppler_engine::gpu::{Gpu, GpuOptions};
use doppler_engine::kernels::{Capabilities, Kernel, RmsNorm, SiluMul};
use doppler_engine::recording::Recording;

/// What must stay as it is behind an output.
const SENTINEL: f32 = 12345.0;

fn values(count: u32, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
}

/// Runs a kernel that reads `inputs` and writes `out` floats; returns these and what is behind them.
fn run(executor: &mut Executor, kernel: impl Kernel + 'static, inputs: &[Vec<f32>], out: u32) -> Vec<f32> {
    let output = vec![SENTINEL; out as usize + 4];
    let mut buffers = Vec::new();
    for data in inputs.iter().chain([&output]) {
        let buffer = executor.create_buffer("test", 4 * data.len() as u64).expect("fits");
        executor.write(buffer, 0, bytemuck::cast_slice(data));
        buffers.push(buffer);
    }
    let mut recording = Recording::new();
    recording.dispatch(kernel, &buffers);
    executor.run_once("test", recording).expect("runs");
    let pending = executor.submit_and_read(&[], buffers[inputs.len()], 0, 4 * output.len() as u64).expect("reads");
    let read = bytemuck::pod_collect_to_vec(&pollster::block_on(pending.wait()).expect("reads"));
    for buffer in buffers {
        executor.destroy_buffer(buffer);
    }
    read
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what} [{i}]: {a}, reference {b}");
    }
    assert_eq!(found[found.len() - 4..], [SENTINEL; 4], "{what}: written past the end");
}

/// Runs a test on the device with all its features, then without subgroups.
fn on_devices(name: &str, test: impl Fn(&mut Executor, &str)) {
    for without_subgroups in [false, true] {
        let what = if without_subgroups { "workgroup memory" } else { "subgroups" };
        match pollster::block_on(Gpu::open(&GpuOptions { without_subgroups, ..GpuOptions::default() })) {
            Ok(gpu) if without_subgroups || gpu.capabilities().subgroups => test(&mut Executor::Gpu(Box::new(gpu)), what),
            Ok(_) => eprintln!("SKIPPED {name}: the device has no subgroups"),
            Err(error) => eprintln!("SKIPPED {name} with {what}: {error}"),
        }
    }
}

#[test]
fn rms_norm() {
    on_devices("rms_norm", |gpu, what| {
        for (rows, dim) in [(1, 4), (3, 64), (2, 1028), (5, 4096)] {
            let inputs = [values(rows * dim, 3.0), values(dim, 1.5)];
            let kernel = || RmsNorm { rows, dim, eps: 1e-5 };
            let expected = run(&mut Executor::Cpu(Cpu::new(Capabilities::BASELINE)), kernel(), &inputs, rows * dim);
            assert_near(&run(gpu, kernel(), &inputs, rows * dim), &expected, &format!("{rows} x {dim} with {what}"));
        }
    });
}

#[test]
fn silu_mul() {
    on_devices("silu_mul", |gpu, what| {
        for (rows, dim) in [(1, 2), (3, 514), (300, 1376)] {
            let inputs = [values(2 * rows * dim, 8.0)];
            let expected = run(&mut Executor::Cpu(Cpu::new(Capabilities::BASELINE)), SiluMul { rows, dim }, &inputs, rows * dim);
            assert_near(&run(gpu, SiluMul { rows, dim }, &inputs, rows * dim), &expected, &format!("{rows} x {dim} with {what}"));
        }
    });
}
