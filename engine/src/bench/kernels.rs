//! The time of each kernel, and what the device can do at most.

use serde::Serialize;

use super::BenchOptions;
use crate::engine::Engine;
use crate::error::Result;
use crate::executor::Executor;
use crate::gpu::{DeviceTier, Gpu, KernelTime};
use crate::kernels::{CeilingMultiply, CeilingRead};
use crate::model::{Attend, Output, Pass};
use crate::recording::Recording;

/// The kernels of a decode step and of a prefill step.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// What the device can do at most, measured as the kernels are.
    pub ceilings: Ceilings,
    /// Of both steps.
    pub kernels: Vec<PassReport>,
}

/// What kernels reach that do nothing else.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    /// Reading a buffer larger than the device's caches, in billions of bytes a second.
    pub gigabytes_per_second: f64,
    /// Multiplying and adding single-precision numbers, in trillions of operations a second. Products of halves may be above.
    pub teraflops: f64,
}

/// The kernels of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassReport {
    /// `decode` or `prefill`.
    pub pass: &'static str,
    /// Rows of the pass and positions in the cache.
    pub rows: u32,
    /// Positions in the cache.
    pub positions: u32,
    /// Sum over all dispatches, in microseconds.
    pub total_us: f64,
    /// Dispatches of the same variant and size together, the longest first.
    pub kernels: Vec<KernelTime>,
}

/// Runs the kernels of both steps many times; `None` if the device has no clock.
///
/// # Errors
/// When the device fails.
pub(super) async fn measure(engine: &mut Engine, options: &BenchOptions) -> Result<Option<KernelReport>> {
    let positions = options.prompts.last().copied().unwrap_or(512).min(engine.parts().1.options.context);
    let (executor, model) = engine.parts();
    let rows = model.options.prefill_rows.min(positions);
    let passes = [("decode", model.decode_pass(1, positions)), ("prefill", Pass { rows, attend: Attend::Prefill, output: Output::Cache })];
    let mut reports = Vec::new();
    for (name, pass) in passes {
        model.place(executor, &pass, positions - pass.rows);
        let Executor::Gpu(gpu) = executor else { return Ok(None) };
        let Some(kernels) = gpu.profile(&model.record(&pass), positions).await? else { return Ok(None) };
        let total_us = kernels.iter().map(|k| k.total_us).sum();
        reports.push(PassReport { pass: name, rows: pass.rows, positions, total_us, kernels });
    }
    let Executor::Gpu(gpu) = executor else { return Ok(None) };
    Ok(ceilings(gpu).await?.map(|ceilings| KernelReport { ceilings, kernels: reports }))
}

async fn ceilings(gpu: &mut Gpu) -> Result<Option<Ceilings>> {
    // A program on the CPU would take minutes for what a GPU does in a moment.
    let (most_bytes, workgroups) = if gpu.adapter().tier == DeviceTier::Basic { (16 << 20, 64) } else { (512 << 20, 1 << 14) };
    let bytes = gpu.capabilities().max_binding.min(most_bytes);
    let read = CeilingRead { vectors: (bytes / 16) as u32 };
    let multiply = CeilingMultiply { workgroups, rounds: 256 };
    let source = gpu.create_buffer("ceiling", bytes)?;
    let sums = gpu.create_buffer("sums", u64::from(4 * read.sums().max(256 * workgroups)))?;
    let mut recording = Recording::new();
    recording.dispatch(read, &[source, sums]);
    recording.dispatch(multiply, &[sums]);
    let times = gpu.profile(&recording, 0).await;
    for buffer in [source, sums] {
        gpu.destroy_buffer(buffer);
    }
    Ok(times?.map(|times| {
        let most = |of: fn(&KernelTime) -> f64| times.iter().map(of).fold(0.0, f64::max);
        Ceilings { gigabytes_per_second: most(|k| k.gigabytes_per_second), teraflops: most(|k| k.teraflops) }
    }))
}
