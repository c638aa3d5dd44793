//! Calls of the worker to the offscreen document, which has the extension's messaging and a worker has not.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use doppler_engine::error::EngineError;
use doppler_protocol::Method;
use doppler_protocol::error::Failure;
use doppler_protocol::frames::Ask;
use futures::channel::oneshot;
use js_sys::{Function, Reflect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;

use crate::frames::to_js;

/// Calls to the offscreen document, with their pending replies.
#[derive(Debug)]
pub(crate) struct Calls {
    post: Function,
    next: Cell<u32>,
    waiting: RefCell<HashMap<u32, oneshot::Sender<Result<JsValue, EngineError>>>>,
}

impl Calls {
    pub(crate) fn new(post: Function) -> Self {
        Self { post, next: Cell::default(), waiting: RefCell::default() }
    }

    /// Calls a method and waits for the reply.
    ///
    /// # Errors
    /// [`EngineError::ModelStore`] with the other side's error, or when its reply is not one to `M`.
    pub(crate) async fn call<M: Method<Params: Serialize, Done: DeserializeOwned>>(
        &self,
        params: &M::Params,
    ) -> Result<M::Done, EngineError> {
        read(self.call_unread::<M>(params).await?)
    }

    /// As [`Self::call`], for replies that have more than data, or none.
    ///
    /// # Errors
    /// [`EngineError::ModelStore`] with the other side's error.
    pub(crate) async fn call_unread<M: Method<Params: Serialize>>(&self, params: &M::Params) -> Result<JsValue, EngineError> {
        let (sender, receiver) = oneshot::channel();
        let ask = self.notify::<M>(params);
        self.waiting.borrow_mut().insert(ask, sender);
        // The offscreen document lives as long as the worker and answers everything once.
        receiver.await.unwrap_or(Err(EngineError::Aborted))
    }

    /// Sends a call whose reply is not waited for; returns its number.
    pub(crate) fn notify<M: Method<Params: Serialize>>(&self, params: &M::Params) -> u32 {
        let ask = self.next.replace(self.next.get().wrapping_add(1));
        let frame = to_js(&Ask { ask, method: M::NAME, params });
        if let Err(error) = frame.and_then(|frame| self.post.call1(&JsValue::NULL, &frame)) {
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
    read::<Failure>(error).map_or_else(|problem| problem, |Failure { message, code, .. }| EngineError::ModelStore { code, message })
}

/// An answer as data.
///
/// # Errors
/// [`EngineError::ModelStore`] when it is something else.
pub(crate) fn read<T: DeserializeOwned>(answer: JsValue) -> Result<T, EngineError> {
    let unreadable =
        |problem: serde_wasm_bindgen::Error| EngineError::ModelStore { code: "internal".to_owned(), message: problem.to_string() };
    serde_wasm_bindgen::from_value(answer).map_err(unreadable)
}
