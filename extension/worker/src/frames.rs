//! Frames of the wire protocol, between JavaScript values and Rust.

use doppler_engine::error::EngineError;
use js_sys::{Function, JSON};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::JsValue;

/// `{id, method, params, client?}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Value,
    /// The origin that asks. The router knows it from the browser.
    pub(crate) client: Option<String>,
}

impl Request {
    /// Reads a frame as JSON text, whose reader takes 128 arrays and objects in each other: one that walks through the values
    /// themselves needs as much of the stack as they are deep.
    ///
    /// # Errors
    /// What is wrong with it, to follow on "request".
    pub(crate) fn from_js(frame: &JsValue) -> Result<Self, String> {
        let text = JSON::stringify(frame).map_err(|_| "cannot be written as JSON: send arrays and objects less deep".to_owned())?;
        serde_json::from_str(&whole_characters(&String::from(text))).map_err(|error| format!("cannot be read: {error}"))
    }
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

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Outbox(Function);

impl Outbox {
    pub(crate) fn new(post: Function) -> Self {
        Self(post)
    }

    pub(crate) fn chunk(&self, id: u32, chunk: &Value) {
        self.post(&json!({ "id": id, "chunk": chunk }));
    }

    pub(crate) fn done(&self, id: u32, done: &Value) {
        self.post(&json!({ "id": id, "done": done }));
    }

    pub(crate) fn error(&self, id: u32, error: &EngineError) {
        self.post(&json!({ "id": id, "error": error_value(error) }));
    }

    pub(crate) fn event(&self, event: &str, detail: &Value) {
        self.post(&json!({ "event": event, "detail": detail }));
    }

    fn post(&self, frame: &Value) {
        let sent =
            frame.serialize(&Serializer::json_compatible()).map_err(JsValue::from).and_then(|frame| self.0.call1(&JsValue::NULL, &frame));
        if let Err(error) = sent {
            log::error!("a frame was lost: {error:?}");
        }
    }
}

/// `{name, message, code, public, data?}`.
pub(crate) fn error_value(error: &EngineError) -> Value {
    let (name, code, public) = (error.dom_name(), error.code(), error.is_public());
    let mut value = json!({ "name": name, "message": error.to_string(), "code": code, "public": public });
    match error {
        EngineError::ContextExceeded { requested, quota, .. } => value["data"] = json!({ "requested": requested, "quota": quota }),
        EngineError::OutOfMemory { memory, context, fitting, .. } => {
            value["data"] = json!({ "memory": memory, "context": context, "largest_context": fitting });
        }
        EngineError::UnsupportedField { field, .. } | EngineError::InvalidRequest { field, .. } => {
            value["data"] = json!({ "param": field });
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use doppler_engine::engine::ModelInfo;
    use doppler_engine::exec::gpu::AdapterSummary;
    use doppler_engine::model::MemoryUse;
    use doppler_protocol::engine::{Adapter, Described, Memory, Model};
    use doppler_protocol::error::{CONTEXT_EXCEEDED, Failure, FailureData, NO_GPU};
    use serde::de::DeserializeOwned;

    use super::*;

    /// Every field of `T` is in what is sent.
    fn sends<T: DeserializeOwned + Serialize>(sent: &Value) {
        let read = serde_json::to_value(T::deserialize(sent).expect("readable")).expect("a value");
        for name in read.as_object().expect("fields").keys() {
            assert!(sent.get(name).is_some(), "no {name} in {sent}");
        }
    }

    #[test]
    fn frames_send_every_protocol_field() {
        sends::<Adapter>(&json!(AdapterSummary::default()));
        let memory = MemoryUse::default();
        let model = json!(ModelInfo {
            id: "a".to_owned(),
            name: "A".to_owned(),
            architecture: "llama".to_owned(),
            quantization: "Q8_0".to_owned(),
            parameters: 1,
            file_bytes: 1,
            context: 1,
            memory,
            embedding: None,
            generates: true,
            notes: vec!["Its vision part is not used.".to_owned()],
        });
        sends::<Model>(&model);
        sends::<Described>(&model);
        sends::<Memory>(&model["memory"]);
        let failure = error_value(&EngineError::OutOfMemory { memory, context: 2, available: None, fitting: Some(1) });
        sends::<Failure>(&failure);
        sends::<FailureData>(&failure["data"]);
    }

    #[test]
    fn engine_error_codes_equal_protocol() {
        let exceeded = EngineError::ContextExceeded { requested: 2, at_least: false, quota: 1 };
        assert_eq!((exceeded.code(), EngineError::NoAdapter.code()), (CONTEXT_EXCEEDED, NO_GPU));
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
