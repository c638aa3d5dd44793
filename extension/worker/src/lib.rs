//! The engine in its dedicated worker: frames in, frames out (see `docs/protocol.md`).
//!
//! `worker.js` makes one [`EngineWorker`] and hands it every message. A model is loaded by the first request that names it, and
//! again when its device was lost.

mod activity;
mod bench;
mod blob;
mod calls;
mod frames;
mod host_files;
mod log_console;
mod models;
mod readers;
mod serving;
mod tuning;
mod unread;
mod working;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use doppler_engine::api::{ChatRequest, CompletionShape};
use doppler_engine::engine::{Client, Piece};
use doppler_engine::error::EngineError;
use doppler_engine::verify::{Comparison, Reference, compare};
use doppler_protocol::Method;
use doppler_protocol::engine::{self, Count, LoadParams, NamedModel, Verified, VerifyParams};
use doppler_protocol::frames::{CANCEL, Part, PartsRead, READ, Resume};
use futures::future::{AbortHandle, abortable};
use js_sys::{Function, Int32Array, Reflect};
use serde_json::Value;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use wasm_bindgen_futures::spawn_local;
use web_sys::WorkerGlobalScope;
use web_time::{Instant, SystemTime, UNIX_EPOCH};

use activity::Activity;
use calls::Calls;
use frames::{Outbox, Request, params};
use models::{EMBEDDED, Models};
use serving::Serving;
use tuning::Tunings;
use unread::Unread;
use working::{Working, working_for};

/// An error that several requests can be told.
type SharedError = Rc<EngineError>;

/// The engine behind a message port.
#[wasm_bindgen]
pub struct EngineWorker {
    inner: Rc<Inner>,
}

struct Inner {
    outbox: Rc<Outbox>,
    calls: Rc<Calls>,
    serving: Rc<Serving>,
    running: RefCell<HashMap<u32, Running>>,
    activity: Activity,
    working: Working,
}

/// A request that has not ended.
struct Running {
    abort: AbortHandle,
    unread: Rc<Unread>,
}

#[wasm_bindgen]
impl EngineWorker {
    /// `post` takes frames; `models` is the URL of the folder of embedded models, `reader` that of `reader.js`; `working` is
    /// one number in memory that is shared with the offscreen document.
    #[wasm_bindgen(constructor)]
    pub fn new(post: Function, models: String, reader: String, working: Int32Array) -> Self {
        log_console::init();
        let outbox = Rc::new(Outbox::new(post.clone()));
        let calls = Rc::new(Calls::new(post));
        let tunings = Tunings::new(Rc::clone(&calls));
        let serving = Rc::new(Serving::new(Models::new(models, reader, Rc::clone(&calls)), tunings, Rc::clone(&outbox)));
        let (running, activity, working) = (RefCell::default(), Activity::default(), Working::new(working));
        Self { inner: Rc::new(Inner { outbox, calls, serving, running, activity, working }) }
    }

    /// Takes one frame from the offscreen document. Answers come through `post`.
    pub fn handle(&self, frame: &JsValue) {
        if self.inner.calls.handle_reply(frame) {
            return;
        }
        let received = Instant::now();
        match frames::read_request(frame) {
            Ok(request) if request.method == CANCEL => self.inner.cancel(request.id),
            Ok(request) if request.method == READ => self.inner.read(&request),
            Ok(request) => Rc::clone(&self.inner).start(request, received),
            Err(problem) => self.inner.refuse(frame, problem),
        }
    }
}

impl Inner {
    fn start(self: Rc<Self>, request: Request, received: Instant) {
        let id = request.id;
        let this = Rc::clone(&self);
        let unread = Rc::new(Unread::new(request.max_unread));
        let parts = Rc::clone(&unread);
        let (work, abort) = abortable(async move {
            // A chat is a large state, and it is moved.
            working_for(id, |from, to| this.working.exchange(from, to), Box::pin(this.answer(&request, received, &parts))).await
        });
        self.running.borrow_mut().insert(id, Running { abort, unread });
        spawn_local(async move {
            let result = work.await;
            self.running.borrow_mut().remove(&id);
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.outbox.error(id, &error),
                // Dropping the work dropped its completion, which frees its place in the batch.
                Err(_) => self.outbox.error(id, &EngineError::Aborted),
            }
        });
    }

    /// Answers a request that cannot be read.
    fn refuse(&self, frame: &JsValue, problem: String) {
        match Reflect::get(frame, &"id".into()).ok().and_then(|id| id.as_f64()) {
            Some(id) => self.outbox.error(id as u32, &EngineError::InvalidRequest { field: "request".to_owned(), problem }),
            None => log::error!("unreadable frame: {problem}"),
        }
    }

    fn cancel(&self, id: u32) {
        if let Some(running) = self.running.borrow().get(&id) {
            running.abort.abort();
        }
    }

    /// What cannot be read, or is about a request that has ended, does no harm.
    fn read(&self, request: &Request) {
        if let (Some(running), Ok(PartsRead { parts })) = (self.running.borrow().get(&request.id), params(&request.params)) {
            running.unread.read(parts);
        }
    }

    /// Answers a request, unless it fails.
    async fn answer(self: &Rc<Self>, request: &Request, received: Instant, unread: &Unread) -> Result<(), SharedError> {
        let (outbox, id) = (&self.outbox, request.id);
        match request.method.as_str() {
            engine::GetStatus::NAME => outbox.done(id, &self.serving.status()),
            engine::ListEmbedded::NAME => outbox.done(id, &Models::list()),
            engine::LoadModel::NAME => {
                let LoadParams { model, context } = params(&request.params)?;
                let client = self.serving.choose(model.as_deref().unwrap_or(EMBEDDED), context).await?;
                outbox.done(id, &frames::model(client.info()));
            }
            engine::DescribeModel::NAME => {
                let NamedModel { model } = params(&request.params)?;
                outbox.done(id, &frames::model(&self.serving.describe(model.as_deref().unwrap_or(EMBEDDED)).await?));
            }
            engine::Chat::NAME => outbox.done(id, &self.chat(request, received, unread).await?),
            engine::CountTokens::NAME => outbox.done(id, &self.count(request).await?),
            engine::GetChats::NAME => outbox.done(id, &self.activity.list(Instant::now())),
            engine::Verify::NAME => outbox.done(id, &self.verify(&request.params).await?),
            engine::Bench::NAME => outbox.done(id, &bench::bench(&self.serving, &request.params).await?),
            engine::Tune::NAME => {
                outbox.done(id, &tuning::tune(&self.serving, &request.params, |trial| outbox.chunk(id, trial)).await?);
            }
            engine::Untune::NAME => outbox.done(id, &tuning::untune(&self.serving).await?),
            other => {
                let (field, hint) = (other.to_owned(), "there is no such method".to_owned());
                return Err(Rc::new(EngineError::UnsupportedField { field, hint }));
            }
        }
        Ok(())
    }

    /// The whole answer; nothing after a stream.
    async fn chat(self: &Rc<Self>, request: &Request, received: Instant, unread: &Unread) -> Result<Value, SharedError> {
        let chat = ChatRequest::parse(&request.params).map_err(Rc::new)?;
        let answering = self.activity.begin(request.origin.as_deref().unwrap_or_default());
        let client = self.client(chat.model.as_deref()).await?;
        answering.set_model(&client.info().name);
        let mut shape = shape(client.info().id.clone()).map_err(Rc::new)?;
        if let Some(Resume { id, created, .. }) = &request.resume {
            shape = CompletionShape { id: id.clone(), created: u64::from(*created), ..shape };
        }
        let model = mark(&shape);
        // Its tokens are another model's.
        if request.resume.as_ref().is_some_and(|resume| resume.model != model) {
            return Err(Rc::new(EngineError::ModelSwitched));
        }
        let answered = request.resume.as_ref().map_or(&[][..], |resume| &resume.tokens);
        let (mut completion, before) = client_of(&client, request).resume_chat(&chat, answered).await.map_err(Rc::new)?;
        completion.admitted().await;
        answering.set_running(completion.prompt_tokens());
        let mut text = String::new();
        let mut first_token_ms = None;
        if let Some(Resume { retell, .. }) = &request.resume {
            first_token_ms = Some(received.elapsed().as_secs_f64() * 1e3);
            if *retell {
                self.outbox.chunk_of(request.id, &shape.chunk(&before, true), Part { model, tokens: Vec::new() });
                unread.sent();
            }
        }
        while let Some(piece) = {
            unread.room().await;
            completion.next_burst().await
        } {
            answering.set_answered(completion.completion_tokens(), Instant::now());
            match piece? {
                Piece::Text(more) => {
                    let first = first_token_ms.is_none();
                    first_token_ms.get_or_insert_with(|| received.elapsed().as_secs_f64() * 1e3);
                    if chat.stream {
                        let part = Part { model, tokens: completion.take_tokens() };
                        self.outbox.chunk_of(request.id, &shape.chunk(&more, first), part);
                        unread.sent();
                    } else {
                        text.push_str(&more);
                    }
                }
                Piece::End(reason, timings) => {
                    let first_token_ms = first_token_ms.unwrap_or_else(|| received.elapsed().as_secs_f64() * 1e3);
                    if !chat.stream {
                        return Ok(shape.completion(&text, reason, &timings, first_token_ms));
                    }
                    self.outbox.chunk(request.id, &shape.last_chunk(reason, &timings, first_token_ms, chat.include_usage));
                    return Ok(Value::Object(serde_json::Map::new()));
                }
            }
        }
        Err(Rc::new(EngineError::DeviceLost { reason: "the engine has stopped".to_owned() }))
    }

    async fn count(self: &Rc<Self>, request: &Request) -> Result<Count, SharedError> {
        let chat = ChatRequest::parse(&request.params).map_err(Rc::new)?;
        let client = self.client(chat.model.as_deref()).await?;
        let tokens = client_of(&client, request).count(&chat).await.map_err(Rc::new)?;
        Ok(Count { tokens, context: client.info().context })
    }

    /// Compares a model with reference outputs.
    async fn verify(self: &Rc<Self>, params: &Value) -> Result<Verified<Comparison>, SharedError> {
        let VerifyParams::<Reference> { model, prompts } = frames::params(params)?;
        let client = self.client(model.as_deref()).await?;
        let mut results = Vec::new();
        for prompt in &prompts {
            results.push(compare(&client, prompt).await?);
        }
        Ok(Verified { results })
    }

    async fn client(&self, model: Option<&str>) -> Result<Rc<Client>, SharedError> {
        self.serving.client(model.unwrap_or(EMBEDDED)).await
    }
}

/// [`Part::model`]: the same model gives each answer another one.
fn mark(shape: &CompletionShape) -> u32 {
    let mut hasher = DefaultHasher::new();
    (&shape.model, &shape.id).hash(&mut hasher);
    hasher.finish() as u32
}

/// The client for a request of this origin and priority.
fn client_of(client: &Client, request: &Request) -> Client {
    let client = client.clone().with_priority(frames::priority(request.priority));
    match &request.origin {
        Some(origin) => client.sharing(origin),
        None => client,
    }
}

/// The constant parts of an answer. Its id is random: a number would tell a page how much the others ask.
fn shape(model: String) -> Result<CompletionShape, EngineError> {
    let crypto = js_sys::global().unchecked_into::<WorkerGlobalScope>().crypto();
    let crypto = crypto.map_err(|error| EngineError::ModelStore { code: "internal".to_owned(), message: format!("{error:?}") })?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(CompletionShape { id: format!("chatcmpl-{}", crypto.random_uuid()), created, model })
}
