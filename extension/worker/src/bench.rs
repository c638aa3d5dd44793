//! `engine.bench`: the engine times itself on a device and a model of its own, beside those that serve.

use doppler_engine::bench::{BenchOptions, Shape, Synthetic, run};
use doppler_engine::engine::Engine;
use doppler_engine::error::EngineError;
use doppler_engine::exec::Executor;
use doppler_engine::formats::convert::Recipe;
use doppler_engine::source::Source;
use js_sys::global;
use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen::JsCast;
use web_sys::WorkerGlobalScope;
use web_time::Instant;

use crate::SharedError;
use crate::frames::{self, invalid};
use crate::models::EMBEDDED;
use crate::serving::{Serving, open_gpu};

/// The shape that is no shape, but the embedded file.
pub(crate) const SPARK: &str = "spark";

/// The measurements to take.
#[derive(Debug, Deserialize)]
struct Params {
    /// A published shape, or [`SPARK`].
    shape: String,
    /// Types of a shape's weights.
    quant: Option<Recipe>,
    #[serde(flatten)]
    options: BenchOptions,
}

/// Measures, on a device that is set up as those that serve. What was loaded for it is gone afterwards.
///
/// # Errors
/// When something asked for does not exist or does not fit, or the device fails.
pub(crate) async fn bench(serving: &Serving, params: &Value) -> Result<Value, SharedError> {
    let Params { shape, quant, options } = frames::params(params)?;
    options.check()?;
    let source = open(serving, &shape, quant).await?;
    let mut gpu = open_gpu(&|_| {}).await?;
    serving.tunings().apply(&mut gpu).await;
    let begin = Instant::now();
    let executor = Executor::Gpu(Box::new(gpu));
    let loaded = Engine::load(executor, source.name(), &*source, options.model_options(), &mut |_| {}).await;
    let (mut engine, client) = loaded.map_err(|(_, error)| error)?;
    let report = run(&mut engine, &client, &options, begin.elapsed()).await?;
    let mut report = serde_json::to_value(report).map_err(|problem| invalid(&problem))?;
    let scope: Option<WorkerGlobalScope> = global().dyn_into().ok();
    report["browser"] = scope.and_then(|scope| scope.navigator().user_agent().ok()).into();
    Ok(report)
}

/// The model of a shape's name.
///
/// # Errors
/// When there is no such shape.
pub(crate) async fn open(serving: &Serving, shape: &str, quant: Option<Recipe>) -> Result<Box<dyn Source>, EngineError> {
    if shape == SPARK {
        return Ok(serving.open(EMBEDDED).await?.source);
    }
    Ok(Box::new(Synthetic::new(Shape::find(shape)?, quant.unwrap_or(Recipe::Q4_K_M))?))
}
