//! The time of each kernel, and the device's roofline.

use serde::Serialize;

use super::BenchOptions;
use crate::engine::Engine;
use crate::error::Result;
use crate::exec::{
    Device, Executor, Gpu, Recording, Scope,
    gpu::{DeviceTier, KernelTime},
};
use crate::kernels::{
    Group, RooflineMultiply, RooflineMultiplyBindings, RooflineRead, RooflineReadBindings, SampleBindings, Sampler, Sampling,
};
use crate::model::{Model, Output, Pass};

/// The kernels of a decode step with greedy sampling, one for each number of streams, of a prefill step, and of sampling with the usual
/// filters.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// The device's roofline, measured like the kernels.
    pub roofline: Roofline,
    /// One for each pass.
    pub kernels: Vec<PassReport>,
}

/// Peak rates of kernels that do nothing else.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Roofline {
    /// Reading a buffer larger than the device's caches, in billions of bytes a second.
    pub gigabytes_per_second: f64,
    /// Multiply-adds in single precision, in trillions of operations a second. Half precision may exceed it.
    pub teraflops: f64,
}

/// The kernels of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassReport {
    /// `decode`, `prefill` or `sampling`.
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

/// Runs the kernels of each many times; `None` if the device has no clock.
///
/// # Errors
/// When the device fails.
pub(super) async fn measure(engine: &mut Engine, options: &BenchOptions) -> Result<Option<KernelReport>> {
    let positions = options.prompts.last().copied().unwrap_or(512).min(engine.parts().1.options.context);
    let (executor, model) = engine.parts();
    let rows = model.options.prefill_rows.min(positions);
    let mut scope = Scope::default();
    let filtered = Sampler { temperature: 0.7, top_k: 40, top_p: 0.95, ..Sampler::default() };
    let mut passes = Vec::new();
    let batches = if options.streams.is_empty() { &[1][..] } else { &options.streams };
    for &batch in batches.iter().filter(|batch| **batch <= model.options.sequences) {
        let decode = model.decode_pass(batch, positions);
        let mut recording = model.record(&decode);
        record_sampling(executor, &mut scope, model, batch, Sampler::default(), &mut recording)?;
        passes.push(("decode", decode, recording));
    }
    let prefill = Pass::prefill(rows, Output::Cache);
    passes.push(("prefill", prefill, model.record(&prefill)));
    let mut sampling = Recording::new();
    record_sampling(executor, &mut scope, model, 1, filtered, &mut sampling)?;
    passes.push(("sampling", model.decode_pass(1, positions), sampling));
    let mut reports = Vec::new();
    for (name, pass, recording) in passes {
        model.place(executor, &pass, positions - pass.rows);
        let Executor::Gpu(gpu) = executor else { break };
        let Some(kernels) = gpu.profile(&recording, positions).await? else { break };
        let total_us = kernels.iter().map(|k| k.total_us).sum();
        reports.push(PassReport { pass: name, rows: pass.rows, positions, total_us, kernels });
    }
    scope.free(executor);
    if reports.is_empty() {
        return Ok(None);
    }
    let Executor::Gpu(gpu) = executor else { return Ok(None) };
    Ok(roofline(gpu).await?.map(|roofline| KernelReport { roofline, kernels: reports }))
}

/// Appends the sampling of the first decode rows, with state in buffers of its own.
fn record_sampling(
    executor: &Executor,
    scope: &mut Scope,
    model: &Model,
    rows: u32,
    sampler: Sampler,
    recording: &mut Recording,
) -> Result<()> {
    let sampling = Sampling { vocab: model.spec.vocab, first_row: 0, rows, ring: 1 };
    let mut buffer = |label, elements: u32, size: usize| scope.create_buffer(executor, label, u64::from(elements) * size as u64);
    let counts = buffer("token counts", rows * sampling.vocab, 4)?;
    let samplers = buffer("samplers", rows, size_of::<Sampler>())?;
    let groups = buffer("token groups", rows * Sampling::groups(sampling.vocab), size_of::<Group>())?;
    let sampled = buffer("sampled", rows, 4)?;
    executor.write(samplers, 0, bytemuck::cast_slice(&vec![sampler; rows as usize]));
    let (logits, rows) = (model.buffers.logits, model.buffers.decode_rows);
    recording.sample(sampling, sampler.draws_from_all(), SampleBindings { logits, counts, samplers, rows, groups, sampled });
    Ok(())
}

async fn roofline(gpu: &Gpu) -> Result<Option<Roofline>> {
    // A software adapter would take minutes for the sizes of a GPU.
    let (most_bytes, workgroups) = if gpu.adapter().tier == DeviceTier::Basic { (16 << 20, 64) } else { (512 << 20, 1 << 14) };
    let bytes = gpu.capabilities().max_binding.min(most_bytes);
    let read = RooflineRead { vectors: (bytes / 16) as u32 };
    let multiply = RooflineMultiply { workgroups, rounds: 256 };
    let source = gpu.create_buffer("roofline", bytes)?;
    let sums = gpu.create_buffer("sums", u64::from(4 * read.sums().max(256 * workgroups)))?;
    let mut recording = Recording::new();
    recording.dispatch(read, RooflineReadBindings { x: source, out: sums });
    recording.dispatch(multiply, RooflineMultiplyBindings { out: sums });
    let times = gpu.profile(&recording, 0).await;
    for buffer in [source, sums] {
        gpu.destroy_buffer(buffer);
    }
    Ok(times?.map(|times| {
        let most = |of: fn(&KernelTime) -> f64| times.iter().map(of).fold(0.0, f64::max);
        Roofline { gigabytes_per_second: most(|k| k.gigabytes_per_second), teraflops: most(|k| k.teraflops) }
    }))
}
