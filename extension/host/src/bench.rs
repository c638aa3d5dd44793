//! `engine.bench`: the engine times itself on a device and a model of its own, beside those that serve.

use doppler_engine::bench::{BenchOptions, Shape, Synthetic, run};
use doppler_engine::engine::Engine;
use doppler_engine::error::EngineError;
use doppler_engine::executor::Executor;
use doppler_engine::formats::convert::Recipe;
use doppler_engine::gpu::Gpu;
use doppler_engine::source::Source;
use js_sys::global;
use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen::JsCast;
use web_sys::WorkerGlobalScope;
use web_time::Instant;

use crate::SharedError;
use crate::models::EMBEDDED;
use crate::serving::Serving;

/// The shape that is no shape, but the embedded file.
const SPARK: &str = "spark";

/// What to measure.
#[derive(Debug, Deserialize)]
struct Params {
    /// A published shape, or [`SPARK`].
    shape: String,
    /// Types of a shape's weights.
    quant: Option<Recipe>,
    #[serde(flatten)]
    options: BenchOptions,
}

/// Measures on `gpu`: `{shape, quant?, prompts?, tokens?, runs?, kernels?, context?, kv?}` → the report, with the browser's name.
/// What was loaded for it is gone afterwards.
///
/// # Errors
/// When something asked for does not exist or does not fit, or the device fails.
pub(crate) async fn bench(serving: &Serving, gpu: Gpu, params: &Value) -> Result<Value, SharedError> {
    let invalid = |problem: serde_json::Error| EngineError::InvalidRequest { field: "params".to_owned(), problem: problem.to_string() };
    let Params { shape, quant, options } = Params::deserialize(params).map_err(invalid)?;
    let source: Box<dyn Source> = if shape == SPARK {
        serving.open(EMBEDDED).await?.source
    } else {
        Box::new(Synthetic::new(Shape::find(&shape)?, quant.unwrap_or(Recipe::Q4_K_M))?)
    };
    let begin = Instant::now();
    let executor = Executor::Gpu(Box::new(gpu));
    let loaded = Engine::load(executor, source.name(), &*source, options.model_options(), &mut |_| {}).await;
    let (mut engine, client) = loaded.map_err(|(_, error)| error)?;
    let report = run(&mut engine, &client, &options, begin.elapsed()).await?;
    let mut report = serde_json::to_value(report).map_err(invalid)?;
    let scope: Option<WorkerGlobalScope> = global().dyn_into().ok();
    report["browser"] = scope.and_then(|scope| scope.navigator().user_agent().ok()).into();
    Ok(report)
}
