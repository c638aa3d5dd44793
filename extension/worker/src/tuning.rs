//! How kernels are set up on this computer's devices: found by measuring (`engine.tune`), kept by the offscreen document, and checked
//! whenever it is read, since anything may be in a browser's storage.

use std::rc::Rc;
use std::time::Duration;

use doppler_engine::bench::{BenchOptions, LengthReport, tune};
use doppler_engine::error::EngineError;
use doppler_engine::exec::{
    Gpu,
    gpu::{AdapterSummary, DeviceTier, GpuOptions},
};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::kernels::{Capabilities, Tuning};
use doppler_protocol::Nothing;
use doppler_protocol::engine::{self, Trial, TuneReport};
use doppler_protocol::worker::{ClearTunings, ReadTuning, TunedDevice, WriteTuning, WriteTuningParams};
use serde::Deserialize;
use serde_json::Value;
use web_time::{SystemTime, UNIX_EPOCH};

use crate::SharedError;
use crate::bench::{SPARK, open};
use crate::calls::Calls;
use crate::frames;
use crate::serving::{Serving, open_gpu};

/// The shape that is measured by default where a GPU has the memory: small, with the layers of larger models.
const SHAPE: &str = "llama-3.2-1b";

/// The settings that were found for a device.
pub(crate) type Tuned = engine::Tuned<Tuning>;

/// Reads what was kept.
///
/// # Errors
/// Why it must not be used on this device.
fn read(text: &str, device: &Capabilities) -> Result<Tuned, String> {
    let tuned: Tuned = serde_json::from_str(text).map_err(|problem| problem.to_string())?;
    if tune::is_choice(device, tuned.tuning) { Ok(tuned) } else { Err(format!("there is no such choice: {:?}", tuned.tuning)) }
}

/// The key of a device's settings: the names that the web tells, and the features, which decide what the device can do. A driver is not
/// visible, and the browser's version is left out: it changes every few weeks, and a setting that was found with another one is never
/// wrong, at worst a little slower. The extension's pages say when it was found.
fn key(adapter: &AdapterSummary) -> String {
    let names = [adapter.vendor.as_str(), &adapter.description];
    names.into_iter().chain(adapter.features.iter().copied()).collect::<Vec<_>>().join(", ")
}

/// How a device is set up for which nothing was found.
fn by_default(device: &Capabilities) -> Tuning {
    device.default_tuning()
}

/// Stored settings, reached through the offscreen document.
#[derive(Debug)]
pub(crate) struct Tunings {
    calls: Rc<Calls>,
}

impl Tunings {
    /// Kept by the offscreen document.
    pub(crate) fn new(calls: Rc<Calls>) -> Self {
        Self { calls }
    }

    /// Sets a device up as was found for it, which is the answer, or else by default.
    pub(crate) async fn apply(&self, gpu: &mut Gpu) -> Option<Tuned> {
        let kept = self.calls.call::<ReadTuning>(&TunedDevice { device: key(gpu.adapter()) }).await;
        let tuned = match kept {
            Ok(None) => None,
            Ok(Some(text)) => Some(read(&text, gpu.capabilities())),
            Err(error) => Some(Err(error.to_string())),
        };
        let tuned = tuned.and_then(|tuned| tuned.inspect_err(|problem| log::warn!("the tuning that is kept is not used: {problem}")).ok());
        gpu.set_tuning(tuned.as_ref().map_or_else(|| by_default(gpu.capabilities()), |tuned| tuned.tuning));
        tuned
    }

    /// Keeps what was found, or forgets what was before.
    async fn write(&self, adapter: &AdapterSummary, tuned: Option<&Tuned>) -> Result<(), EngineError> {
        let text = tuned.map(serde_json::to_string).transpose().map_err(|problem| frames::invalid(&problem))?;
        self.calls.call_unread::<WriteTuning>(&WriteTuningParams { device: key(adapter), text }).await?;
        Ok(())
    }
}

/// The measurements to take.
#[derive(Debug, Deserialize)]
struct Params {
    /// A published shape, or [`SPARK`].
    shape: Option<String>,
    /// Types of a shape's weights.
    quant: Option<Recipe>,
    /// The most settings to measure.
    trials: Option<usize>,
    #[serde(flatten)]
    options: BenchOptions,
}

/// Looks for the settings that are fastest on this device, keeps them, and loads the model that serves again with them. `progress` is
/// told of each setting before it is measured.
///
/// Without a `shape` that is [`SHAPE`], or [`SPARK`] on a software adapter and where the device has no memory left.
///
/// # Errors
/// When something asked for does not exist or does not fit, the device fails, or what was found cannot be kept.
pub(crate) async fn tune(
    serving: &Rc<Serving>,
    params: &Value,
    progress: impl Fn(&Trial<Tuning>),
) -> Result<TuneReport<Tuning, LengthReport>, SharedError> {
    let Params { shape, quant, trials, options } = frames::params(params)?;
    let options = BenchOptions { kernels: false, streams: Vec::new(), ..options };
    let gpu = open_gpu(&|_| {}).await?;
    let (adapter, device) = (gpu.adapter().clone(), gpu.capabilities().clone());
    drop(gpu);
    let trials = trials.unwrap_or(usize::MAX).min(tune::trials(&device));
    let search = async |model: &str| -> Result<Found, SharedError> {
        let source = open(serving, model, quant).await?;
        let mut tried = Vec::new();
        let measure = async |tuning| -> Result<Duration, SharedError> {
            if tried.len() >= trials {
                return Ok(Duration::MAX);
            }
            progress(&Trial { model: model.to_owned(), trial: tried.len() + 1, trials, tuning });
            let lengths = tune::measure(&GpuOptions::default(), tuning, &*source, &options).await?;
            let time = tune::time(&lengths);
            tried.push((tuning, lengths));
            Ok(time)
        };
        let tuning = tune::search(&device, measure).await?;
        let of = |wanted| tried.iter().find(|(tuning, _)| *tuning == wanted).map(|(_, lengths)| lengths.clone()).unwrap_or_default();
        Ok(Found { tuning, before: of(device.tuning), after: of(tuning) })
    };
    let mut model = shape.as_deref().unwrap_or(if adapter.tier == DeviceTier::Basic { SPARK } else { SHAPE });
    let mut found = search(model).await;
    if shape.is_none() && found.as_ref().is_err_and(|error| lacks_memory(error)) {
        model = SPARK;
        found = search(model).await;
    }
    let Found { tuning, before, after } = found?;
    let gain = gain(tune::time(&before), tune::time(&after));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let tuned = (tuning != device.tuning).then(|| Tuned { tuning, since, gain, model: model.to_owned() });
    serving.tunings().write(&adapter, tuned.as_ref()).await?;
    serving.retune(|_| tuning);
    Ok(TuneReport { adapter: frames::adapter(&adapter), model: model.to_owned(), tuning, before, after, gain })
}

/// Forgets everything that was found, and loads the model that serves again if that changes how its kernels are set up.
///
/// # Errors
/// When the storage fails.
pub(crate) async fn untune(serving: &Rc<Serving>) -> Result<Nothing, SharedError> {
    serving.tunings().calls.call_unread::<ClearTunings>(&Nothing {}).await?;
    serving.retune(by_default);
    Ok(Nothing {})
}

/// The fastest settings, and what was measured by default and with them.
struct Found {
    tuning: Tuning,
    before: Vec<LengthReport>,
    after: Vec<LengthReport>,
}

fn lacks_memory(error: &EngineError) -> bool {
    matches!(error, EngineError::NoMemory { .. } | EngineError::OutOfMemory { .. } | EngineError::TooLarge { .. })
}

fn gain(before: Duration, after: Duration) -> f64 {
    1.0 - after.as_secs_f64() / before.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tuned() -> Tuned {
        let tuning = Tuning { matvec_workgroups: 1024, ..Tuning::of(None, false) };
        Tuned { tuning, since: 1_795_305_600_000, gain: 0.125, model: SHAPE.to_owned() }
    }

    #[test]
    fn tuned_roundtrips_as_text() {
        let text = serde_json::to_string(&tuned()).expect("text");
        assert_eq!(read(&text, &Capabilities::BASELINE), Ok(tuned()));
    }

    #[test]
    fn tuned_invalid_text_is_refused() {
        let written = serde_json::to_value(tuned()).expect("a value");
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut changed = written.clone();
            change(&mut changed);
            assert!(read(&changed.to_string(), &Capabilities::BASELINE).is_err(), "{changed}");
        };
        refused(&|tuned| tuned["tuning"]["matvec_workgroups"] = json!(1023));
        refused(&|tuned| tuned["tuning"]["decode_workgroups"] = json!(0));
        refused(&|tuned| tuned["tuning"]["matmul_tiles"] = json!(-1));
        refused(&|tuned| tuned["tuning"]["matmul_half"] = json!(1));
        refused(&|tuned| tuned["tuning"]["warp"] = json!(32));
        refused(&|tuned| tuned["tuning"] = Value::Null);
        refused(&|tuned| tuned["more"] = Value::Null);
        refused(&|tuned| *tuned = json!([]));
        // Settings that this device does not support.
        refused(&|tuned| tuned["tuning"]["matvec_workgroup"] = json!(256));
        refused(&|tuned| tuned["tuning"]["matmul_half"] = json!(true));
        for text in ["", "null", "{", "\u{0}"] {
            assert!(read(text, &Capabilities::BASELINE).is_err(), "{text}");
        }
    }

    #[test]
    fn key_differs_by_features() {
        let adapter = AdapterSummary { vendor: "nvidia".to_owned(), description: "hopper".to_owned(), ..AdapterSummary::default() };
        let other = AdapterSummary { features: vec!["shader-f16", "subgroups"], ..adapter.clone() };
        assert_eq!(key(&adapter), "nvidia, hopper");
        assert_eq!(key(&other), "nvidia, hopper, shader-f16, subgroups");
    }

    #[test]
    fn gain_is_fraction_of_time_saved() {
        let ms = Duration::from_millis;
        assert!((gain(ms(200), ms(150)) - 0.25).abs() < 1e-9 && gain(ms(7), ms(7)) == 0.0);
    }

    #[test]
    fn smaller_shape_is_tried_only_without_memory() {
        assert!(lacks_memory(&EngineError::NoMemory { available: None }));
        assert!(!lacks_memory(&EngineError::Aborted));
    }
}
