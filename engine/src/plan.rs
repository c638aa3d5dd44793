//! What a model needs on a device, known before anything of it is loaded.
//!
//! The plan is not a formula beside the code but the code itself: the model is allocated by an executor that only counts, and the list
//! of what a load would read is made, but nothing is read.

use std::ops::Range;

use futures::FutureExt;

use crate::error::{EngineError, Result};
use crate::exec::{DryRun, Executor, Recording, Scope};
use crate::formats::Checkpoint;
use crate::kernels::{Capabilities, PAGE};
use crate::model::{MemoryUse, Model, ModelOptions};
use crate::serve::Scheduler;

/// Bytes on the device, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// Weights, cache and scratch.
    pub memory: MemoryUse,
    /// Most bytes at a time, while loading or after.
    pub peak: u64,
    /// Positions of a sequence: what was asked for, clipped to what the model was trained for.
    pub context: u32,
    /// Sequences of this length that the cache holds at a time.
    pub sequences: u32,
    /// Positions of such a sequence that layers with a window hold, where those are fewer.
    pub window: Option<u32>,
}

/// Plans a model on a device with these capabilities.
///
/// # Errors
/// As [`Model::load`], but for reading: the model is not supported, or one of its buffers is larger than the device takes.
pub fn plan(checkpoint: &Checkpoint, capabilities: &Capabilities, options: ModelOptions) -> Result<MemoryPlan> {
    Ok(dry_load(checkpoint, capabilities, options)?.memory)
}

/// What loading a model needs and reads, and serving it runs.
#[derive(Debug)]
pub struct LoadPlan {
    /// Bytes on the device.
    pub memory: MemoryPlan,
    /// The ranges of the source that are read, in order.
    pub reads: Vec<Range<u64>>,
    /// What every request runs, and what some do: see [`Scheduler::usual_recordings`].
    pub recordings: [Vec<Recording>; 2],
}

/// Plans the loading of a model onto a device with these capabilities.
///
/// # Errors
/// As [`plan`].
pub fn load_plan(checkpoint: &Checkpoint, capabilities: &Capabilities, options: ModelOptions) -> Result<LoadPlan> {
    let DryLoad { memory, reads, model, scheduler } = dry_load(checkpoint, capabilities, options)?;
    Ok(LoadPlan { memory, reads, recordings: scheduler.usual_recordings(&model) })
}

/// A load on a device that only counts buffers.
struct DryLoad {
    memory: MemoryPlan,
    reads: Vec<Range<u64>>,
    model: Model,
    scheduler: Scheduler,
}

fn dry_load(checkpoint: &Checkpoint, capabilities: &Capabilities, options: ModelOptions) -> Result<DryLoad> {
    let executor = Executor::Dry(DryRun::new(capabilities.clone()));
    let mut scope = Scope::default();
    let (model, reads) = Model::plan(&executor, &mut scope, checkpoint, options)?;
    let before = executor.allocated_bytes();
    let scheduler = Scheduler::new(&executor, &mut scope, &model)?;
    let memory = MemoryUse { scratch: model.memory.scratch + executor.allocated_bytes() - before, ..model.memory };
    let peak = if let Executor::Dry(dry) = &executor { dry.peak() } else { memory.total() };
    let window = model.pages.windows.map(|windows| windows.most * PAGE);
    let memory = MemoryPlan { memory, peak, context: model.options.context, sequences: model.pages.sequences(), window };
    Ok(DryLoad { memory, reads, model, scheduler })
}

/// The longest context, in whole pages, with which a model whose cache holds one sequence fits `bytes`; `None` if there is none.
///
/// # Errors
/// As [`plan`].
pub fn largest_context(checkpoint: &Checkpoint, capabilities: &Capabilities, options: ModelOptions, bytes: u64) -> Result<Option<u32>> {
    let found = longest_context(checkpoint, capabilities, options, async |needed| needed <= bytes);
    found.now_or_never().unwrap_or(Ok(None))
}

/// The same where `holds` tells whether so many bytes fit.
async fn longest_context(
    checkpoint: &Checkpoint,
    capabilities: &Capabilities,
    options: ModelOptions,
    holds: impl AsyncFn(u64) -> bool,
) -> Result<Option<u32>> {
    let fits = async |pages: u32| -> Result<bool> {
        let options = ModelOptions { context: pages * PAGE, kv_bytes: 0, ..options };
        match plan(checkpoint, capabilities, options) {
            Ok(plan) => Ok(holds(plan.peak).await),
            Err(EngineError::TooLarge { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let (mut fitting, mut most) = (0, options.context.div_ceil(PAGE).min(u32::MAX / PAGE));
    while fitting < most {
        let middle = fitting + (most - fitting).div_ceil(2);
        if fits(middle).await? {
            fitting = middle;
        } else {
            most = middle - 1;
        }
    }
    Ok((fitting > 0).then_some((fitting * PAGE).min(options.context)))
}

/// The error that refuses a model of this plan, with the numbers and what would fit: within `available` bytes, or where those are not
/// known, as far as the device gives memory now.
pub(crate) async fn out_of_memory(
    checkpoint: &Checkpoint,
    executor: &Executor,
    options: ModelOptions,
    available: Option<u64>,
) -> EngineError {
    let capabilities = executor.capabilities();
    let plan = match plan(checkpoint, capabilities, options) {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    let holds = async |bytes| match available {
        Some(available) => bytes <= available,
        None => executor.could_hold(bytes).await,
    };
    let context = longest_context(checkpoint, capabilities, options, holds).await.ok().flatten();
    // While it is loaded a very small model takes more than after.
    let scratch = plan.memory.scratch + plan.peak.saturating_sub(plan.memory.total());
    EngineError::OutOfMemory { memory: MemoryUse { scratch, ..plan.memory }, context: plan.context, available, fitting: context }
}
