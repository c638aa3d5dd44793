//! `doppler inspect`.

use std::fmt::Write as _;

use doppler_engine::engine::main_dtype;
use doppler_engine::error::EngineError;
use doppler_engine::exec::{Gpu, gpu::AdapterSummary};
use doppler_engine::formats::{Checkpoint, TensorInfo};
use doppler_engine::kernels::{Capabilities, KvFormat};
use doppler_engine::model::{ModelOptions, families, read_checkpoint};
use doppler_engine::plan::{MemoryPlan, largest_context, plan};
use doppler_engine::source;
use doppler_files::printable;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Failure;
use super::args::ModelArgs;
use super::open::size;

/// Contexts of the table, and what the model was trained for.
const CONTEXTS: [u32; 3] = [4096, 8192, 32768];

pub(super) async fn inspect(args: &ModelArgs, tensors: bool, as_json: bool) -> Result<(), Failure> {
    let source = source::open(&args.model)?;
    let checkpoint = read_checkpoint(&*source).await?;
    let (device, capabilities) = device(args).await;
    let memory = Memory::plan(&checkpoint, &capabilities, args);
    if as_json {
        let mut report = contents(&checkpoint, tensors)?;
        report["device"] = json!(device);
        match &memory {
            Ok(memory) => report["memory"] = json!(memory),
            Err(error) => report["error"] = error.to_string().into(),
        }
        format!("{report:#}").lines().for_each(|line| println!("{}", printable(line)));
        memory?;
        return Ok(());
    }
    for (key, value) in checkpoint.metadata.iter() {
        println!("{} = {}", printable(key), printable(&value.to_string()));
    }
    println!("{} tensors, mostly {}", checkpoint.tensors.len(), main_dtype(&checkpoint, None)?);
    if tensors {
        for t in &checkpoint.tensors {
            println!("{:40} {:6} {:?}", printable(&t.name), t.dtype.to_string(), t.shape);
        }
    }
    for note in &checkpoint.notes {
        println!("note: {}", printable(note));
    }
    match device {
        Some(device) => println!("\ndevice: {}, {}", device.description, json!(device.tier).as_str().unwrap_or_default()),
        None => println!("\ndevice: none, planned as for one that takes any buffer"),
    }
    print!("{}", memory?.describe());
    Ok(())
}

/// The GPU and what it can do; without one, what takes any buffer.
async fn device(args: &ModelArgs) -> (Option<AdapterSummary>, Capabilities) {
    match Gpu::open(&args.gpu_options()).await {
        Ok(gpu) => (Some(gpu.adapter().clone()), gpu.capabilities().clone()),
        Err(error) => {
            eprintln!("{error}");
            (None, Capabilities { max_binding: u64::MAX, max_buffer: u64::MAX, ..Capabilities::BASELINE })
        }
    }
}

fn contents(checkpoint: &Checkpoint, tensors: bool) -> Result<Value, EngineError> {
    let metadata: Map<String, Value> = checkpoint.metadata.iter().map(|(key, value)| (key.to_owned(), value.to_string().into())).collect();
    let mut contents = json!({
        "metadata": metadata,
        "tensor_count": checkpoint.tensors.len(),
        "quantization": main_dtype(checkpoint, None)?.to_string(),
        "notes": checkpoint.notes,
    });
    if tensors {
        let describe = |t: &TensorInfo| json!({ "name": t.name, "type": t.dtype.to_string(), "shape": t.shape });
        contents["tensors"] = checkpoint.tensors.iter().map(describe).collect();
    }
    Ok(contents)
}

/// A plan for people.
pub(super) fn plan_line(plan: &MemoryPlan) -> String {
    let MemoryPlan { memory, peak, context, sequences, window } = plan;
    let window = window.map_or_else(String::new, |positions| format!("; of each {positions} in layers with a window"));
    let [weights, cache, scratch, total, peak] = [memory.weights, memory.cache, memory.scratch, memory.total(), *peak].map(size);
    format!(
        "memory: weights {weights}, cache {cache} (holds {sequences} × {context} tokens{window}), scratch {scratch}, total {total}; \
         {peak} while loading"
    )
}

/// The memory that a model needs. All numbers are bytes.
#[derive(Serialize)]
struct Memory {
    /// With the chosen context and cache.
    plan: MemoryPlan,
    /// With other contexts and caches.
    table: Vec<Row>,
    /// Whether `--memory` is enough, where it was given.
    fit: Option<Fit>,
}

#[derive(Serialize)]
struct Row {
    context: u32,
    kv: &'static str,
    /// `None`: a buffer is larger than the device takes.
    plan: Option<MemoryPlan>,
}

#[derive(Serialize)]
struct Fit {
    available: u64,
    fits: bool,
    /// The longest context for one sequence that would fit.
    largest_context: Option<u32>,
}

impl Memory {
    fn plan(checkpoint: &Checkpoint, capabilities: &Capabilities, args: &ModelArgs) -> Result<Self, EngineError> {
        let trained = families::spec(checkpoint)?.context;
        let options = args.model_options();
        let mut table = Vec::new();
        for context in CONTEXTS.into_iter().filter(|context| *context < trained).chain([trained]) {
            for (kv, format) in [("f16", KvFormat::F16), ("q8", KvFormat::Q8)] {
                let plan = match plan(checkpoint, capabilities, ModelOptions { context, kv: format, ..options }) {
                    Err(EngineError::TooLarge { .. }) => None,
                    plan => Some(plan?),
                };
                table.push(Row { context, kv, plan });
            }
        }
        let plan = plan(checkpoint, capabilities, options)?;
        let fit = |available: u64| -> Result<Fit, EngineError> {
            let largest_context = largest_context(checkpoint, capabilities, ModelOptions { context: trained, ..options }, available)?;
            Ok(Fit { available, fits: plan.peak <= available, largest_context })
        };
        Ok(Self { plan, table, fit: args.memory.map(|memory| fit(memory.as_u64())).transpose()? })
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{}\n\n{:>8} {:>4} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            plan_line(&self.plan),
            "context",
            "kv",
            "weights",
            "cache",
            "scratch",
            "total",
            "sequences"
        );
        for Row { context, kv, plan } in &self.table {
            let _ = match plan {
                Some(MemoryPlan { memory: m, sequences, .. }) => {
                    let [weights, cache, scratch, total] = [m.weights, m.cache, m.scratch, m.total()].map(size);
                    writeln!(text, "{context:>8} {kv:>4} {weights:>10} {cache:>10} {scratch:>10} {total:>10} {sequences:>10}")
                }
                None => writeln!(text, "{context:>8} {kv:>4} a buffer is larger than the device takes"),
            };
        }
        if let Some(Fit { available, fits, largest_context }) = self.fit {
            let many = if fits { "this fits" } else { "this does not fit" };
            let one = largest_context.map_or("nor would a single token".to_owned(), |n| format!("one sequence of {n} tokens would"));
            let _ = writeln!(text, "\n{}: {many}; {one}", size(available));
        }
        text
    }
}
