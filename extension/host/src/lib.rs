//! The engine in its dedicated worker: frames in, frames out (see README, "Wire protocol").
//!
//! `worker.js` makes one [`Host`] and hands it every message. The model is loaded by the first request that needs it, and
//! loaded anew by the next request after the device was lost.

mod bench;
mod blob;
mod frames;
mod log_console;
mod models;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use doppler_engine::api::{ChatRequest, CompletionShape};
use doppler_engine::engine::{Client, Engine, Piece};
use doppler_engine::error::EngineError;
use doppler_engine::executor::Executor;
use doppler_engine::gpu::{AdapterSummary, Gpu, GpuOptions};
use doppler_engine::model::ModelOptions;
use doppler_engine::verify::{Reference, compare};
use futures::FutureExt;
use futures::future::{AbortHandle, LocalBoxFuture, Shared, abortable};
use gloo_timers::future::TimeoutFuture;
use serde_json::{Value, json};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use wasm_bindgen_futures::spawn_local;
use web_time::{Instant, SystemTime, UNIX_EPOCH};

use frames::{Outbox, Request};

/// An error that several requests can be told.
type SharedError = Rc<EngineError>;

/// A load that several requests can wait for.
type Loading = Shared<LocalBoxFuture<'static, Result<Client, SharedError>>>;

/// The engine behind a message port.
#[wasm_bindgen]
pub struct Host {
    inner: Rc<Inner>,
}

struct Inner {
    outbox: Outbox,
    models: models::Models,
    loading: RefCell<Option<Loading>>,
    status: RefCell<Value>,
    running: RefCell<HashMap<String, AbortHandle>>,
    answers: RefCell<u64>,
}

#[wasm_bindgen]
impl Host {
    /// `post` takes frames; `models` is the URL of the folder of embedded models.
    #[wasm_bindgen(constructor)]
    pub fn new(post: js_sys::Function, models: String) -> Self {
        log_console::init();
        Self {
            inner: Rc::new(Inner {
                outbox: Outbox::new(post),
                models: models::Models::new(models),
                loading: RefCell::default(),
                status: RefCell::new(json!({ "state": "idle" })),
                running: RefCell::default(),
                answers: RefCell::default(),
            }),
        }
    }

    /// Takes one frame from the offscreen document. Answers come through `post`.
    pub fn handle(&self, frame: JsValue) {
        let received = Instant::now();
        match Request::from_js(frame) {
            Ok(request) if request.method == "cancel" => self.inner.cancel(&request.id),
            Ok(request) => Rc::clone(&self.inner).start(request, received),
            Err(problem) => log::error!("unreadable frame: {problem}"),
        }
    }
}

impl Inner {
    fn start(self: Rc<Self>, request: Request, received: Instant) {
        let id = request.id.clone();
        let this = Rc::clone(&self);
        let (work, handle) = abortable(async move { this.answer(&request, received).await });
        self.running.borrow_mut().insert(id.clone(), handle);
        spawn_local(async move {
            let result = work.await;
            self.running.borrow_mut().remove(&id);
            match result {
                Ok(Ok(done)) => self.outbox.done(&id, &done),
                Ok(Err(error)) => self.outbox.error(&id, &error),
                // Dropping the work dropped its completion, which frees its place in the batch.
                Err(_) => self.outbox.error(&id, &EngineError::Aborted),
            }
        });
    }

    fn cancel(&self, id: &str) {
        if let Some(handle) = self.running.borrow().get(id) {
            handle.abort();
        }
    }

    async fn answer(self: &Rc<Self>, request: &Request, received: Instant) -> Result<Value, SharedError> {
        match request.method.as_str() {
            "engine.status" => Ok(self.status.borrow().clone()),
            "models.list" => Ok(models::Models::list()),
            "chat.completions" => self.chat(request, received).await,
            "tokens.count" => self.count(&request.params).await,
            "engine.verify" => self.verify(&request.params).await,
            "engine.bench" => bench::bench(&self.models, open_gpu().await?, &request.params).await,
            other => Err(Rc::new(EngineError::UnsupportedField { field: other.to_owned(), hint: "there is no such method".to_owned() })),
        }
    }

    async fn chat(self: &Rc<Self>, request: &Request, received: Instant) -> Result<Value, SharedError> {
        let chat = ChatRequest::parse(&request.params).map_err(Rc::new)?;
        let client = self.client(chat.model.as_deref()).await?;
        let mut completion = client.chat(&chat).map_err(Rc::new)?;
        let shape = self.shape(client.info().id.clone());
        let mut text = String::new();
        let mut first_token_ms = None;
        while let Some(piece) = completion.next().await {
            match piece? {
                Piece::Text(more) => {
                    let first = first_token_ms.is_none();
                    first_token_ms.get_or_insert_with(|| received.elapsed().as_secs_f64() * 1e3);
                    if chat.stream {
                        self.outbox.chunk(&request.id, &shape.chunk(&more, first));
                    } else {
                        text.push_str(&more);
                    }
                }
                Piece::End(reason, timings) => {
                    let first_token_ms = first_token_ms.unwrap_or_else(|| received.elapsed().as_secs_f64() * 1e3);
                    if !chat.stream {
                        return Ok(shape.completion(&text, reason, &timings, first_token_ms));
                    }
                    self.outbox.chunk(&request.id, &shape.last_chunk(reason, &timings, first_token_ms, chat.include_usage));
                }
            }
        }
        Ok(json!({}))
    }

    fn shape(&self, model: String) -> CompletionShape {
        let mut answers = self.answers.borrow_mut();
        *answers += 1;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        CompletionShape { id: format!("chatcmpl-{created}-{answers}"), created, model }
    }

    async fn count(self: &Rc<Self>, params: &Value) -> Result<Value, SharedError> {
        let chat = ChatRequest::parse(params).map_err(Rc::new)?;
        let client = self.client(chat.model.as_deref()).await?;
        let tokens = client.encode_chat(&chat.messages, chat.tools.as_ref()).map_err(Rc::new)?.len();
        Ok(json!({ "tokens": tokens, "context": client.info().context }))
    }

    /// Compares the loaded model with reference outputs: `{prompts: [...]}` → `{results: [...]}`.
    async fn verify(self: &Rc<Self>, params: &Value) -> Result<Value, SharedError> {
        let invalid = |problem: String| Rc::new(EngineError::InvalidRequest { field: "prompts".to_owned(), problem });
        let prompts: Vec<Reference> = serde_json::from_value(params["prompts"].clone()).map_err(|e| invalid(e.to_string()))?;
        let client = self.client(None).await?;
        let mut results = Vec::new();
        for prompt in &prompts {
            let comparison = compare(&client, prompt).await?;
            results.push(serde_json::to_value(comparison).map_err(|e| invalid(e.to_string()))?);
        }
        Ok(json!({ "results": results }))
    }

    /// The model, loaded if it is not.
    async fn client(self: &Rc<Self>, model: Option<&str>) -> Result<Client, SharedError> {
        models::Models::check(model).map_err(Rc::new)?;
        let loading = self.loading.borrow().clone();
        let loading = loading.unwrap_or_else(|| {
            let this = Rc::clone(self);
            // A task of its own: a request that is cancelled in mid-load must not take the load with it.
            let (load, client) = async move { this.load().await }.remote_handle();
            spawn_local(load);
            let loading = client.boxed_local().shared();
            *self.loading.borrow_mut() = Some(loading.clone());
            loading
        });
        loading.await
    }

    async fn load(self: Rc<Self>) -> Result<Client, SharedError> {
        self.set_status(json!({ "state": "loading", "progress": 0.0 }));
        match self.open().await {
            Ok((mut engine, client, adapter)) => {
                self.set_status(json!({ "state": "ready", "adapter": adapter, "model": client.info() }));
                let this = Rc::clone(&self);
                spawn_local(async move {
                    if let Err(error) = engine.run().await {
                        this.forget(&error);
                    }
                });
                Ok(client)
            }
            Err(error) => {
                let error = Rc::new(error);
                self.forget(&error);
                Err(error)
            }
        }
    }

    /// The next request starts over.
    fn forget(&self, error: &EngineError) {
        *self.loading.borrow_mut() = None;
        self.set_status(json!({ "state": "failed", "error": frames::error_value(error) }));
    }

    async fn open(self: &Rc<Self>) -> Result<(Engine, Client, AdapterSummary), EngineError> {
        let gpu = open_gpu().await?;
        let adapter = gpu.adapter().clone();
        let (id, source) = self.models.open().await?;
        let mut shown = 0.0;
        let mut progress = |done: f32| {
            // A step of 2 % is as fine as anybody sees.
            if done - shown >= 0.02 {
                shown = done;
                self.set_status(json!({ "state": "loading", "progress": done }));
            }
        };
        let executor = Executor::Gpu(Box::new(gpu));
        match Engine::load(executor, &id, &source, ModelOptions::default(), &mut progress).await {
            Ok((engine, client)) => Ok((engine, client, adapter)),
            Err((_, error)) => Err(error),
        }
    }

    fn set_status(&self, status: Value) {
        self.outbox.event("status", &status);
        *self.status.borrow_mut() = status;
    }
}

/// Opens the GPU. The browser's GPU process may be on its way back from a crash: it gets some seconds.
async fn open_gpu() -> Result<Gpu, EngineError> {
    const ATTEMPTS: u32 = 20;
    const PAUSE_MS: u32 = 250;
    let mut attempt = 1;
    loop {
        match Gpu::open(&GpuOptions::default()).await {
            Err(EngineError::NoAdapter { .. }) if attempt < ATTEMPTS => TimeoutFuture::new(PAUSE_MS).await,
            other => return other,
        }
        attempt += 1;
    }
}
