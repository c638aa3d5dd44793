//! Timing: the same measurements natively and in a browser, as one JSON report.
//!
//! Tokens are random ids, decoding is greedy and never stops early. Figures are medians over the runs; the first run of a length, which
//! also compiles pipelines and allocates memory, is reported apart as `cold`.

mod arrivals;
mod kernels;
mod shapes;
mod streams;
pub mod tune;

pub use arrivals::{ArrivalReport, CachedReport};
pub use kernels::{KernelReport, PassReport, Roofline};
pub use shapes::{SHAPES, Shape, Synthetic};
pub use streams::StreamsReport;

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{Client, Engine, ModelInfo, Trace};
use crate::error::{EngineError, Result};
use crate::exec::{Counters, Executor, gpu::AdapterSummary};
use crate::kernels::{KvFormat, Tuning};
use crate::model::ModelOptions;

/// The measurements to take.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BenchOptions {
    /// Tokens of the prompts.
    pub prompts: Vec<u32>,
    /// Tokens of the answers.
    pub tokens: u32,
    /// Runs of each prompt, after a warm-up run.
    pub runs: u32,
    /// Also measure this many concurrent requests, for each number, with prompts of the first length. Requests without a slot wait.
    pub streams: Vec<u32>,
    /// Also measure a prompt of so many tokens that arrives while answers are decoded.
    pub arrival: Option<u32>,
    /// Also measure a prompt of so many tokens of which 95 % are in the prefix cache.
    pub cached: Option<u32>,
    /// Also measure the time of each kernel.
    pub kernels: bool,
    /// Positions of the context; `None`: those of the longest prompt with its answer, at least 4096.
    pub context: Option<u32>,
    /// Elements of the cache.
    pub kv: KvFormat,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            prompts: vec![64, 512, 2048],
            tokens: 128,
            runs: 5,
            streams: Vec::new(),
            arrival: None,
            cached: None,
            kernels: false,
            context: None,
            kv: KvFormat::default(),
        }
    }
}

impl BenchOptions {
    /// Options to load the model with: for one sequence, or for as many as there are concurrent streams.
    pub fn model_options(&self) -> ModelOptions {
        let longest = self.prompts.iter().copied().chain(self.arrival).chain(self.cached).max().unwrap_or(0).saturating_add(self.tokens);
        let context = self.context.unwrap_or(longest.div_ceil(256).saturating_mul(256).max(4096));
        let served = ModelOptions::default();
        let beside = self.arrival.map(|_| arrivals::STREAMS + 1);
        let sequences = self.streams.iter().copied().chain(beside).max().unwrap_or(1).min(served.sequences);
        // All streams fit, so that none is preempted.
        let kv_bytes = if sequences > 1 { 2 << 30 } else { served.kv_bytes };
        ModelOptions { context, sequences, kv: self.kv, kv_bytes, ..served }
    }

    /// Fails when there is nothing to count: to be asked before a model is loaded for it.
    ///
    /// # Errors
    /// [`EngineError::InvalidRequest`] with the field.
    pub fn check(&self) -> Result<()> {
        let least = |all: &[u32]| all.iter().copied().min().unwrap_or(1);
        let arrivals = [("arrival", self.arrival.unwrap_or(1)), ("cached", self.cached.unwrap_or(1))];
        let fields = [("tokens", self.tokens), ("runs", self.runs), ("prompts", least(&self.prompts)), ("streams", least(&self.streams))];
        for (field, value) in fields.into_iter().chain(arrivals) {
            if value == 0 {
                return Err(EngineError::InvalidRequest { field: field.to_owned(), problem: "must be at least 1".to_owned() });
            }
        }
        Ok(())
    }
}

/// All measurements of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the engine.
    pub version: &'static str,
    /// The device.
    pub adapter: Option<AdapterSummary>,
    /// How its kernels were set up.
    pub tuning: Tuning,
    /// The model.
    pub model: ModelInfo,
    /// Seconds from the file to a model that is ready.
    pub load_seconds: f64,
    /// One for each length of prompt.
    pub lengths: Vec<LengthReport>,
    /// One for each number of requests at once; empty where none was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamsReport>,
    /// Where a prompt that arrives was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival: Option<ArrivalReport>,
    /// Where a cached prompt was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<CachedReport>,
    /// Bytes of all buffers on the device.
    pub device_bytes: u64,
    /// Bytes of the wasm memory, which never shrinks: the most that loading and running took. 0 natively.
    pub wasm_bytes: u64,
    /// The time of each kernel, where it was asked for and the device can tell.
    #[serde(flatten)]
    pub kernels: Option<KernelReport>,
}

/// Measurements with prompts of one length.
#[derive(Clone, Debug, Serialize)]
pub struct LengthReport {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub tokens: u32,
    /// Milliseconds to the first token in the very first run.
    pub cold_first_token_ms: f64,
    /// Milliseconds to the first token.
    pub first_token_ms: f64,
    /// Tokens of the prompt over the time to the first token.
    pub prefill_tokens_per_second: f64,
    /// Tokens after the first over the time from the first to the last.
    pub decode_tokens_per_second: f64,
    /// Milliseconds for a token after the first, of which half, nine tenths and 99 hundredths are below: the time from one burst of
    /// tokens to the next, spread over the tokens of that.
    pub token_ms: [f64; 3],
    /// Tokens that come together: the median.
    pub burst_tokens: u32,
    /// Of a token after the first.
    pub dispatches_per_token: f64,
    /// Of a token after the first.
    pub submissions_per_token: f64,
    /// Of a token after the first: bytes that the host read.
    pub read_bytes_per_token: f64,
}

/// The measurements through a [`Client`].
#[derive(Default)]
struct Measured {
    lengths: Vec<LengthReport>,
    streams: Vec<StreamsReport>,
    arrival: Option<ArrivalReport>,
    cached: Option<CachedReport>,
}

/// Measures a loaded model. Prompts that do not fit its context with their answer are left out.
///
/// # Errors
/// When there is nothing to count, or the engine stops.
pub async fn run(engine: &mut Engine, client: &Client, options: &BenchOptions, load: Duration) -> Result<Report, Rc<EngineError>> {
    options.check()?;
    let counters = engine.executor().counters();
    let places = engine.parts().1.options.sequences;
    let fits = |length: &&u32| length.saturating_add(options.tokens) <= client.info().context;
    let measured = async {
        let mut measured = Measured::default();
        for length in options.prompts.iter().filter(fits) {
            measured.lengths.push(measure(client, &counters, *length, options).await?);
        }
        if options.prompts.first().as_ref().is_some_and(fits) {
            measured.streams = streams::measure(client, places, options).await?;
            if let Some(length) = options.arrival.filter(|length| fits(&length)) {
                measured.arrival = Some(arrivals::arrival(client, options, length).await?);
            }
        }
        if let Some(length) = options.cached.filter(|length| fits(&length)) {
            measured.cached = Some(arrivals::cached(client, options, length).await?);
        }
        Ok::<_, Rc<EngineError>>(measured)
    };
    let Measured { lengths, streams, arrival, cached } =
        match futures::future::select(std::pin::pin!(measured), std::pin::pin!(engine.run())).await {
            futures::future::Either::Left((measured, _)) => measured?,
            futures::future::Either::Right((stopped, _)) => {
                stopped?;
                Measured::default()
            }
        };
    let kernels = if options.kernels { kernels::measure(engine, options).await? } else { None };
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        adapter: if let Executor::Gpu(gpu) = engine.executor() { Some(gpu.adapter().clone()) } else { None },
        tuning: engine.executor().capabilities().tuning,
        model: client.info().clone(),
        load_seconds: load.as_secs_f64(),
        lengths,
        streams,
        arrival,
        cached,
        device_bytes: engine.executor().allocated_bytes(),
        wasm_bytes: wasm_bytes(),
        kernels,
    })
}

/// Bytes of the wasm memory, which never shrinks; 0 natively.
#[cfg(target_arch = "wasm32")]
pub fn wasm_bytes() -> u64 {
    core::arch::wasm32::memory_size(0) as u64 * 65_536
}

/// Bytes of the wasm memory, which never shrinks; 0 natively.
#[cfg(not(target_arch = "wasm32"))]
pub fn wasm_bytes() -> u64 {
    0
}

/// Token ids of a prompt; prompts of different numbers differ from their first token on.
fn prompt(length: u32, number: u32) -> Vec<u32> {
    (0..length).map(|i| (i * 7 + number * 31) % 251).collect()
}

async fn measure(client: &Client, counters: &Counters, length: u32, options: &BenchOptions) -> Result<LengthReport, Rc<EngineError>> {
    let run = async |number: u32, tokens: u32| {
        let before = counters.get();
        let trace = client.trace(prompt(length, number), tokens, 0).await?;
        let after = counters.get();
        let counted = [after.dispatches - before.dispatches, after.submissions - before.submissions, after.read_bytes - before.read_bytes];
        Ok::<_, Rc<EngineError>>((trace, counted))
    };
    let mut traces: Vec<Trace> = Vec::new();
    let mut whole = [0; 3];
    for number in 0..=options.runs {
        let (trace, counted) = run(number, options.tokens).await?;
        traces.push(trace);
        whole = counted;
    }
    // The first token's dispatches belong to the prompt.
    let (_, first_token) = run(options.runs, 1).await?;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let first = |trace: &Trace| trace.arrivals.first().copied().map_or(0.0, ms);
    let warm = &traces[1..];
    let first_token_ms = median(warm.iter().map(first).collect());
    let decode = |trace: &Trace| {
        let count = trace.arrivals.len().saturating_sub(1) as f64;
        count * 1e3 / (trace.arrivals.last().copied().map_or(0.0, ms) - first(trace)).max(1e-9)
    };
    let mut bursts: Vec<_> = warm.iter().flat_map(|trace| bursts(&trace.arrivals)).collect();
    let mut times: Vec<f64> = bursts.iter().flat_map(|(time, tokens)| std::iter::repeat_n(ms(*time) / *tokens as f64, *tokens)).collect();
    times.sort_by(f64::total_cmp);
    bursts.sort_by_key(|(_, tokens)| *tokens);
    let quantile = |q: f64| times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(0.0);
    let per_token = |i: usize| whole[i].saturating_sub(first_token[i]) as f64 / f64::from(options.tokens.max(2) - 1);
    Ok(LengthReport {
        prompt_tokens: length,
        tokens: options.tokens,
        cold_first_token_ms: first(&traces[0]),
        first_token_ms,
        prefill_tokens_per_second: f64::from(length) * 1e3 / first_token_ms,
        decode_tokens_per_second: median(warm.iter().map(decode).collect()),
        token_ms: [0.5, 0.9, 0.99].map(quantile),
        burst_tokens: bursts.get(bursts.len() / 2).map_or(0, |(_, tokens)| *tokens as u32),
        dispatches_per_token: per_token(0),
        submissions_per_token: per_token(1),
        read_bytes_per_token: per_token(2),
    })
}

/// The tokens after the first that came together: the time since those before, and how many.
fn bursts(arrivals: &[Duration]) -> Vec<(Duration, usize)> {
    let bursts: Vec<_> = arrivals.chunk_by(PartialEq::eq).collect();
    bursts.windows(2).map(|pair| (pair[1][0].saturating_sub(pair[0][0]), pair[1].len())).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_group_tokens_of_one_arrival() {
        let arrivals = [10, 14, 14, 22, 22, 22, 23].map(Duration::from_millis);
        assert_eq!(bursts(&arrivals), [(4, 2), (8, 3), (1, 1)].map(|(ms, tokens)| (Duration::from_millis(ms), tokens)));
        assert!(bursts(&arrivals[..1]).is_empty() && bursts(&[]).is_empty());
    }
}
