//! The connection to the offscreen document, through `extension/shared/engine-port.js`.

use crate::call::{Call, DRAFT};
use crate::state::{ModelMsg, Msg};
use doppler_protocol::conversations::{
    ConversationChanged, ConversationEvent, Delete, GetConversation, ListConversations, NewConversation, Regenerate, Send, Stop,
    StorageChanged,
};
use doppler_protocol::engine::CountTokens;
use doppler_protocol::error::Failure;
use doppler_protocol::ui::{ActivityChanged, ChooseModel, DescribeModel, ForgetModel, GetStatus, ListModels, StatusChanged, StopSite};
use doppler_protocol::{Event, Method, Nothing};
use js_sys::{Function, Object, Promise, Reflect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// An `EnginePort`.
    pub(crate) type EnginePort;

    #[wasm_bindgen(method)]
    fn request(this: &EnginePort, method: &str, params: JsValue) -> Promise;

    /// The detail of a `conversation` event.
    type Detail;

    #[wasm_bindgen(method, getter, js_name = type)]
    fn kind(this: &Detail) -> Option<String>;

    /// A rejection: any object, most likely an error.
    type Rejection;

    #[wasm_bindgen(method, getter)]
    fn name(this: &Rejection) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn message(this: &Rejection) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn code(this: &Rejection) -> JsValue;

    #[wasm_bindgen(method, getter)]
    fn data(this: &Rejection) -> JsValue;
}

/// An open connection.
pub(crate) struct Connection {
    /// For requests.
    pub(crate) port: Rc<EnginePort>,
    /// Resolves when the offscreen document went away.
    pub(crate) closed: Promise,
    /// Called by the port; lives as long as the connection.
    _on_event: Closure<dyn FnMut(String, JsValue)>,
}

/// Opens a connection; the offscreen document is created if it is not there.
///
/// # Errors
/// When the extension's service worker cannot create it.
pub(crate) async fn connect(connect_engine: &Function, deliver: Rc<dyn Fn(Msg)>) -> Result<Connection, Failure> {
    let on_event = Closure::new(move |event: String, detail: JsValue| {
        if let Some(msg) = event_message(&event, detail) {
            deliver(msg);
        }
    });
    let options = Object::new();
    let set = |key: &str, value: &JsValue| drop(Reflect::set(&options, &key.into(), value));
    set("onEvent", on_event.as_ref());
    let closed = Promise::new(&mut |resolve, _| set("onClose", &resolve));
    let pending = connect_engine.call1(&JsValue::NULL, &options).map_err(failure)?;
    let port = JsFuture::from(Promise::resolve(&pending)).await.map_err(failure)?;
    Ok(Connection { port: Rc::new(port.unchecked_into()), closed, _on_event: on_event })
}

/// Asks, and says what came of it.
pub(crate) async fn ask(port: &EnginePort, call: Call) -> Option<Msg> {
    let Request { method, params, read } = request(&call);
    let answer = match params {
        Ok(params) => JsFuture::from(port.request(method, params)).await.map_err(failure),
        Err(error) => Err(unreadable(&error)),
    };
    answer.and_then(read).unwrap_or_else(|failure| Some(Msg::Failed(call, failure)))
}

/// A call on the wire.
struct Request {
    method: &'static str,
    params: Result<JsValue, serde_wasm_bindgen::Error>,
    /// Reads the answer.
    read: Box<dyn FnOnce(JsValue) -> Result<Option<Msg>, Failure>>,
}

impl Request {
    /// A request whose answer becomes a message.
    fn to<M: Method<Params: Serialize, Done: DeserializeOwned>>(params: &M::Params, msg: impl FnOnce(M::Done) -> Msg + 'static) -> Self {
        Self { read: Box::new(|answer| Ok(Some(msg(read(answer)?)))), ..Self::silent::<M>(params) }
    }

    /// A request whose answer says no more than that it is done, which becomes a message.
    fn done<M: Method<Params: Serialize>>(params: &M::Params, msg: Msg) -> Self {
        Self { read: Box::new(|_| Ok(Some(msg))), ..Self::silent::<M>(params) }
    }

    /// A request whose answer is not read.
    fn silent<M: Method>(params: &impl Serialize) -> Self {
        let params = params.serialize(&serde_wasm_bindgen::Serializer::json_compatible());
        Self { method: M::NAME, params, read: Box::new(|_| Ok(None)) }
    }
}

fn request(call: &Call) -> Request {
    match call.clone() {
        Call::Status => Request::to::<GetStatus>(&Nothing {}, Msg::Status),
        Call::Warm => Request::silent::<CountTokens>(&DRAFT),
        Call::Models(number, params) => Request::to::<ListModels>(&params, move |list| Msg::Models(ModelMsg::Listed(number, list))),
        Call::Describe(listing) => {
            let id = listing.id.clone();
            Request::to::<DescribeModel>(&listing, |model| Msg::Models(ModelMsg::Described(id, Ok(model))))
        }
        Call::Choose(choice) => Request::done::<ChooseModel>(&choice, Msg::Models(ModelMsg::Chosen(choice.id.clone(), Ok(())))),
        Call::Forget(model) => Request::done::<ForgetModel>(&model, Msg::Models(ModelMsg::Forgotten)),
        Call::StopSite(site) => Request::silent::<StopSite>(&site),
        Call::List => Request::to::<ListConversations>(&Nothing {}, Msg::Listed),
        Call::Get(id) => Request::to::<GetConversation>(&id, |opened| Msg::Opened(opened.conversation)),
        Call::New => Request::silent::<NewConversation>(&Nothing {}),
        Call::Send(question) => Request::to::<Send>(&question, Msg::Accepted),
        Call::Stop(id) => Request::silent::<Stop>(&id),
        Call::Regenerate(id) => Request::to::<Regenerate>(&id, Msg::Accepted),
        Call::Delete(id) => Request::silent::<Delete>(&id),
    }
}

/// `None` for events the popup does not know.
fn event_message(event: &str, detail: JsValue) -> Option<Msg> {
    match event {
        StatusChanged::NAME => event_detail::<StatusChanged>(detail).map(Msg::Status),
        ActivityChanged::NAME => event_detail::<ActivityChanged>(detail).map(|activity| Msg::Activity(activity.sites)),
        StorageChanged::NAME => event_detail::<StorageChanged>(detail).map(|storage| Msg::Storage(storage.problem)),
        ConversationChanged::NAME => conversation_event(detail).map(Msg::Conversation),
        _ => None,
    }
}

fn event_detail<E: Event<Detail: DeserializeOwned>>(detail: JsValue) -> Option<E::Detail> {
    understood(read(detail))
}

fn conversation_event(detail: JsValue) -> Option<ConversationEvent> {
    match detail.unchecked_ref::<Detail>().kind()?.as_str() {
        "message" => understood(read(detail)).map(ConversationEvent::Message),
        "delta" => understood(read(detail)).map(ConversationEvent::Delta),
        "deleted" => understood(read(detail)).map(ConversationEvent::Deleted),
        _ => None,
    }
}

fn read<T: DeserializeOwned>(value: JsValue) -> Result<T, Failure> {
    serde_wasm_bindgen::from_value(value).map_err(|error| unreadable(&error))
}

/// Notes an event that cannot be read, and does without it.
fn understood<T>(event: Result<T, Failure>) -> Option<T> {
    event.inspect_err(|failure| web_sys::console::error_1(&failure.message.as_str().into())).ok()
}

fn unreadable(error: &serde_wasm_bindgen::Error) -> Failure {
    let message = format!("popup and engine do not understand each other: {error}");
    Failure { name: "DataError".to_owned(), message, ..Failure::default() }
}

/// The failure that a promise was rejected with.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn failure(rejection: JsValue) -> Failure {
    if !rejection.is_object() {
        let message = rejection.as_string().unwrap_or_default();
        return Failure { name: "UnknownError".to_owned(), message, ..Failure::default() };
    }
    let rejection: &Rejection = rejection.unchecked_ref();
    Failure {
        name: rejection.name().unwrap_or_else(|| "UnknownError".to_owned()),
        message: rejection.message().unwrap_or_default(),
        // A DOMException's code is a number.
        code: rejection.code().as_string().unwrap_or_default(),
        // Most failures have none, or another.
        data: serde_wasm_bindgen::from_value(rejection.data()).unwrap_or_default(),
        public: None,
    }
}
