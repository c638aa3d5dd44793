//! Frames between JavaScript values and Rust, and the engine's types as the wire has them.

use doppler_engine::engine::ModelInfo;
use doppler_engine::error::EngineError;
use doppler_engine::exec::gpu::{AdapterSummary, DeviceTier, MatrixSupport};
use doppler_engine::model::MemoryUse;
use doppler_engine::serve::Priority;
use doppler_protocol::Event;
use doppler_protocol::engine::{Adapter, Matrices, Memory, Model, Tier};
use doppler_protocol::error::{Failure, FailureData};
use doppler_protocol::frames::{self, Answer, Part, Told};
use js_sys::{Function, JSON};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::JsValue;

/// A request, whose parameters are read by its method.
pub(crate) type Request = frames::Request<Value>;

/// Reads a request as JSON text, whose reader takes 128 arrays and objects in each other: one that walks through the values
/// themselves needs as much of the stack as they are deep.
///
/// # Errors
/// A description of the problem, to follow on "request".
pub(crate) fn read_request(frame: &JsValue) -> Result<Request, String> {
    let text = JSON::stringify(frame).map_err(|_| "cannot be written as JSON: send arrays and objects less deep".to_owned())?;
    serde_json::from_str(&whole_characters(&String::from(text))).map_err(|error| format!("cannot be read: {error}"))
}

/// Reads the parameters of a request.
///
/// # Errors
/// [`EngineError::InvalidRequest`] when they are not those of the method.
pub(crate) fn params<'a, T: Deserialize<'a>>(params: &'a Value) -> Result<T, EngineError> {
    T::deserialize(params).map_err(|problem| invalid(&problem))
}

/// Parameters, or what was made of them, that JSON cannot say.
pub(crate) fn invalid(problem: &serde_json::Error) -> EngineError {
    EngineError::InvalidRequest { field: "params".to_owned(), problem: problem.to_string() }
}

/// JSON of `JSON.stringify` with U+FFFD for halves of characters, which it writes as escapes (`\ud800` to `\udfff`; whole ones it
/// never escapes) and which no text of Rust has.
fn whole_characters(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let half = matches!(&rest.as_bytes()[at + 1..], [b'u', b'd', b'8' | b'9' | b'a'..=b'f', ..]);
        let (kept, taken) = if half { (at, at + 6) } else { (at + 2, at + 2) };
        out.push_str(&rest[..kept]);
        out.push_str(if half { "\\ufffd" } else { "" });
        rest = &rest[taken..];
    }
    out + rest
}

/// A frame as JavaScript has it.
///
/// # Errors
/// When it has a number that JavaScript cannot say.
pub(crate) fn to_js(frame: &impl Serialize) -> Result<JsValue, JsValue> {
    Ok(frame.serialize(&Serializer::json_compatible())?)
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Outbox(Function);

impl Outbox {
    pub(crate) fn new(post: Function) -> Self {
        Self(post)
    }

    pub(crate) fn chunk(&self, id: u32, chunk: &impl Serialize) {
        self.post(&Answer::Chunk { id, chunk, part: None });
    }

    /// A chunk of an answer, and what it takes to go on behind it.
    pub(crate) fn chunk_of(&self, id: u32, chunk: &impl Serialize, part: Part) {
        self.post(&Answer::Chunk { id, chunk, part: Some(part) });
    }

    pub(crate) fn done(&self, id: u32, done: &impl Serialize) {
        self.post(&Answer::Done { id, done });
    }

    pub(crate) fn error(&self, id: u32, error: &EngineError) {
        self.post(&Answer::<()>::Error { id, error: failure(error) });
    }

    pub(crate) fn event<E: Event>(&self, detail: &impl Serialize) {
        self.post(&Told { event: E::NAME, detail });
    }

    fn post(&self, frame: &impl Serialize) {
        if let Err(error) = to_js(frame).and_then(|frame| self.0.call1(&JsValue::NULL, &frame)) {
            log::error!("a frame was lost: {error:?}");
        }
    }
}

/// A failure of the engine.
pub(crate) fn failure(error: &EngineError) -> Failure {
    let none = FailureData::default();
    let data = match error {
        EngineError::ContextExceeded { requested, quota, .. } => {
            Some(FailureData { requested: Some(*requested), quota: Some(*quota), ..none })
        }
        EngineError::OutOfMemory { memory: needed, context, fitting, .. } => {
            Some(FailureData { memory: Some(memory(*needed)), context: Some(*context), largest_context: *fitting, ..none })
        }
        EngineError::UnsupportedField { field, .. } | EngineError::InvalidRequest { field, .. } => {
            Some(FailureData { param: Some(field.clone()), ..none })
        }
        _ => None,
    };
    Failure {
        name: error.dom_name().to_owned(),
        message: error.to_string(),
        code: error.code().to_owned(),
        public: Some(error.is_public()),
        data: data.map(Box::new),
    }
}

/// A priority.
pub(crate) fn priority(priority: frames::Priority) -> Priority {
    match priority {
        frames::Priority::Foreground => Priority::Foreground,
        frames::Priority::Background => Priority::Background,
    }
}

/// An adapter.
pub(crate) fn adapter(summary: &AdapterSummary) -> Adapter {
    let AdapterSummary { vendor, description, tier, features, matrices } = summary.clone();
    let matrices = matrices.map(|MatrixSupport { shapes, used, unused_because }| Matrices { shapes, used, unused_because });
    let tier = match tier {
        DeviceTier::Unified => Tier::Unified,
        DeviceTier::Discrete => Tier::Discrete,
        DeviceTier::Basic => Tier::Basic,
    };
    Adapter { vendor, description, tier, features: features.into_iter().map(str::to_owned).collect(), matrices }
}

/// A model.
pub(crate) fn model(info: &ModelInfo) -> Model {
    let ModelInfo { id, name, architecture, quantization, parameters, file_bytes, context, memory: used, embedding, generates, notes } =
        info.clone();
    Model {
        id,
        name,
        architecture,
        quantization,
        parameters: parameters as f64,
        file_bytes: file_bytes as f64,
        context: Some(context),
        memory: memory(used),
        embedding,
        generates,
        notes,
    }
}

fn memory(MemoryUse { weights, cache, scratch }: MemoryUse) -> Memory {
    Memory { weights: weights as f64, cache: cache as f64, scratch: scratch as f64 }
}

#[cfg(test)]
mod tests {
    use doppler_protocol::error::{CONTEXT_EXCEEDED, NO_GPU};
    use serde_json::json;

    use super::*;

    #[test]
    fn failure_has_the_data_of_its_code() {
        let sent = |error: &EngineError| json!(failure(error));
        let exceeded = sent(&EngineError::ContextExceeded { requested: 2, at_least: false, quota: 1 });
        assert_eq!(exceeded["data"], json!({ "requested": 2, "quota": 1 }));
        assert_eq!((exceeded["code"].as_str(), EngineError::NoAdapter.code()), (Some(CONTEXT_EXCEEDED), NO_GPU));
        let memory = MemoryUse { weights: 3, cache: 2, scratch: 1 };
        let too_large = sent(&EngineError::OutOfMemory { memory, context: 2, available: None, fitting: Some(1) });
        let needed = json!({ "weights": 3.0, "cache": 2.0, "scratch": 1.0 });
        assert_eq!(too_large["data"], json!({ "memory": needed, "context": 2, "largest_context": 1 }));
        assert_eq!(sent(&EngineError::Aborted).get("data"), None);
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        for (json, want) in [
            (r#"{"a":"x\ud83d","b":"\n\\ud83d"}"#, json!({ "a": "x\u{fffd}", "b": "\n\\ud83d" })),
            (r#""\udfff\ud800😀\ud7ff\"\\""#, json!("\u{fffd}\u{fffd}😀\u{d7ff}\"\\")),
        ] {
            assert_eq!(serde_json::from_str::<Value>(&whole_characters(json)).expect("valid"), want);
        }
    }
}
