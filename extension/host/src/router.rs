//! Calls of the worker to the offscreen document, which has the extension's messaging and a worker has not.
//!
//! `{ask: number, method, params}` goes out, `{answer: number, done}` or `{answer: number, error}` comes back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use doppler_engine::error::EngineError;
use futures::channel::oneshot;
use js_sys::{Function, Reflect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::JsValue;

/// Calls to the offscreen document, with their pending replies.
#[derive(Debug)]
pub(crate) struct Router {
    post: Function,
    next: Cell<u32>,
    waiting: RefCell<HashMap<u32, oneshot::Sender<Result<JsValue, EngineError>>>>,
}

/// `{name, message, code}` of a failed answer.
#[derive(Deserialize)]
struct Failure {
    message: String,
    code: String,
}

impl Router {
    pub(crate) fn new(post: Function) -> Self {
        Self { post, next: Cell::default(), waiting: RefCell::default() }
    }

    /// Calls a method and waits for the reply.
    ///
    /// # Errors
    /// [`EngineError::ModelStore`] with the other side's error.
    pub(crate) async fn call(&self, method: &str, params: &Value) -> Result<JsValue, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let ask = self.notify(method, params);
        self.waiting.borrow_mut().insert(ask, sender);
        // The router lives as long as the worker and answers everything once.
        receiver.await.unwrap_or(Err(EngineError::Aborted))
    }

    /// Sends a call whose reply is not waited for; returns its number.
    pub(crate) fn notify(&self, method: &str, params: &Value) -> u32 {
        let ask = self.next.replace(self.next.get().wrapping_add(1));
        let frame = json!({ "ask": ask, "method": method, "params": params });
        let sent = frame.serialize(&Serializer::json_compatible()).map_err(JsValue::from);
        if let Err(error) = sent.and_then(|frame| self.post.call1(&JsValue::NULL, &frame)) {
            log::error!("a question was lost: {error:?}");
        }
        ask
    }

    /// Completes the call that a frame replies to; `false`: the frame is no reply.
    pub(crate) fn handle_reply(&self, frame: &JsValue) -> bool {
        let field = |name: &str| Reflect::get(frame, &name.into()).ok().filter(|value| !value.is_undefined());
        let Some(ask) = field("answer").and_then(|answer| answer.as_f64()) else { return false };
        if let Some(waiting) = self.waiting.borrow_mut().remove(&(ask as u32)) {
            let answer = match field("error") {
                None => Ok(field("done").unwrap_or_default()),
                Some(error) => Err(refused(error)),
            };
            // The caller may have been dropped.
            let _ = waiting.send(answer);
        }
        true
    }
}

fn refused(error: JsValue) -> EngineError {
    match serde_wasm_bindgen::from_value(error) {
        Ok(Failure { message, code }) => EngineError::ModelStore { code, message },
        Err(problem) => EngineError::ModelStore { code: "internal".to_owned(), message: problem.to_string() },
    }
}
