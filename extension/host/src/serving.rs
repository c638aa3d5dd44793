//! The one model that is loaded, and how another takes its place.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use doppler_engine::bench::wasm_bytes;
use doppler_engine::engine::{Client, Engine, ModelInfo};
use doppler_engine::error::EngineError;
use doppler_engine::executor::Executor;
use doppler_engine::gpu::{AdapterSummary, Gpu, GpuOptions};
use doppler_engine::kernels::{Capabilities, Tuning};
use doppler_engine::model::ModelOptions;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, AbortRegistration, Abortable, LocalBoxFuture, Shared};
use gloo_timers::future::TimeoutFuture;
use serde_json::{Value, json};
use wasm_bindgen_futures::spawn_local;
use web_time::Instant;

use crate::SharedError;
use crate::frames::{Outbox, error_value};
use crate::models::{Models, Opened};
use crate::tuning::{Tuned, Tunings};

/// A load that several requests can wait for.
type Loading = Shared<LocalBoxFuture<'static, Result<Client, SharedError>>>;

/// A model that is loaded or being loaded.
struct Current {
    id: String,
    number: u32,
    loading: Loading,
    /// Ends the loading.
    abort: AbortHandle,
    /// Resolves when it is unloaded: once nobody has a [`Client`] of it any more.
    ended: oneshot::Receiver<()>,
}

/// Loads models, one at a time.
pub(crate) struct Serving {
    models: Models,
    tunings: Tunings,
    outbox: Rc<Outbox>,
    status: RefCell<Value>,
    current: RefCell<Option<Current>>,
    loads: Cell<u32>,
    /// The device while no model is on it.
    idle: RefCell<Option<Executor>>,
    /// What is known of the device that was opened or set up last.
    known: RefCell<Option<Known>>,
}

/// A device, as it was set up.
struct Known {
    adapter: AdapterSummary,
    capabilities: Capabilities,
    /// What was found for it; `None`: it is set up by default.
    tuned: Option<Tuned>,
}

impl Serving {
    pub(crate) fn new(models: Models, tunings: Tunings, outbox: Rc<Outbox>) -> Self {
        Self {
            models,
            tunings,
            outbox,
            status: RefCell::new(json!({ "state": "idle" })),
            current: RefCell::default(),
            loads: Cell::default(),
            idle: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// What the engine is doing, and on which device.
    pub(crate) fn status(&self) -> Value {
        let mut status = self.status.borrow().clone();
        if let Some(Known { adapter, capabilities, tuned }) = &*self.known.borrow() {
            for (name, value) in [("adapter", json!(adapter)), ("tuning", json!(capabilities.tuning)), ("tuned", json!(tuned))] {
                status[name] = value;
            }
        }
        status
    }

    /// What was found for this computer's devices.
    pub(crate) fn tunings(&self) -> &Tunings {
        &self.tunings
    }

    /// The bytes of a model.
    ///
    /// # Errors
    /// As [`Models::open`].
    pub(crate) async fn open(&self, id: &str) -> Result<Opened, EngineError> {
        self.models.open(id).await
    }

    /// The model of this id, loaded if it is not: another waits until its answers have ended, and is unloaded first. If the new one
    /// cannot even be opened, the old one stays.
    ///
    /// # Errors
    /// When the model cannot be opened or loaded; the next request tries again.
    pub(crate) async fn client(self: &Rc<Self>, id: &str) -> Result<Client, SharedError> {
        self.loading(id, false).await
    }

    /// The same because the user chose the model: once it is open, what is being loaded in its place is given up.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) async fn choose(self: &Rc<Self>, id: &str) -> Result<Client, SharedError> {
        self.loading(id, true).await
    }

    fn loading(self: &Rc<Self>, id: &str, chosen: bool) -> Loading {
        let loading = self.current.borrow().as_ref().filter(|current| current.id == id).map(|current| current.loading.clone());
        loading.unwrap_or_else(|| self.start(id, chosen))
    }

    /// What a model is and needs, from its header.
    ///
    /// # Errors
    /// When it cannot be opened, or is damaged, not supported or too large for the device.
    pub(crate) async fn describe(&self, id: &str) -> Result<ModelInfo, EngineError> {
        let opened = self.models.open(id).await?;
        let known = self.known.borrow().as_ref().map(|known| known.capabilities.clone());
        let capabilities = if let Some(capabilities) = known {
            capabilities
        } else {
            let device = self.device().await?;
            let capabilities = device.capabilities().clone();
            *self.idle.borrow_mut() = Some(device);
            capabilities
        };
        ModelInfo::read(id, &*opened.source, &capabilities, ModelOptions::default()).await
    }

    /// Loads the model again, once its running answers have ended, if its device is set up otherwise than `tuning` tells for it now.
    pub(crate) fn retune(self: &Rc<Self>, tuning: impl FnOnce(&Capabilities) -> Tuning) {
        let stays = |known: &Known| known.capabilities.tuning == tuning(&known.capabilities);
        if self.known.borrow().as_ref().is_none_or(stays) {
            return;
        }
        // Whoever asks next sets the device up anew.
        *self.known.borrow_mut() = None;
        let id = self.current.borrow().as_ref().map(|current| current.id.clone());
        if let Some(id) = id {
            drop(self.start(&id, false));
        }
    }

    /// Begins to load. A task of its own: a request that is cancelled in mid-load must not take the load with it.
    /// `chosen` as in [`Self::choose`].
    fn start(self: &Rc<Self>, id: &str, chosen: bool) -> Loading {
        let number = self.loads.get() + 1;
        self.loads.set(number);
        let before = Before { model: self.current.borrow_mut().take(), given_up: chosen };
        let (result, loaded) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let (this, model) = (Rc::clone(self), id.to_owned());
        spawn_local(async move {
            // Nobody may be waiting any more.
            let _ = result.send(this.replace(before, &model, number, registration, ending).await);
        });
        let loading = loaded.map(|loaded| loaded.unwrap_or_else(|_| Err(Rc::new(EngineError::Aborted)))).boxed_local().shared();
        *self.current.borrow_mut() = Some(Current { id: id.to_owned(), number, loading: loading.clone(), abort, ended });
        loading
    }

    async fn replace(
        self: Rc<Self>,
        mut before: Before,
        id: &str,
        number: u32,
        abort: AbortRegistration,
        ending: oneshot::Sender<()>,
    ) -> Result<Client, SharedError> {
        let opened = match self.models.open(id).await {
            Ok(opened) => opened,
            Err(error) => {
                let error = Rc::new(error);
                if self.is_current(number) && before.lives() {
                    *self.current.borrow_mut() = before.model;
                } else {
                    before.end().await;
                    self.forget(number, id, &error);
                }
                return Err(error);
            }
        };
        before.end().await;
        let load = Abortable::new(self.load(id, opened), abort);
        let switched = || EngineError::ModelStore {
            code: "model_switched".to_owned(),
            message: "another model was chosen while this one was loaded; ask again".to_owned(),
        };
        match load.await.unwrap_or_else(|_| Err(switched())) {
            Ok((mut engine, client)) => {
                let id = id.to_owned();
                spawn_local(async move {
                    match engine.run().await {
                        Ok(()) => *self.idle.borrow_mut() = Some(engine.unload()),
                        Err(error) => self.forget(number, &id, &error),
                    }
                    // Whoever waits to take its place may have given up.
                    let _ = ending.send(());
                });
                Ok(client)
            }
            Err(error) => {
                let error = Rc::new(error);
                self.forget(number, id, &error);
                Err(error)
            }
        }
    }

    async fn load(&self, id: &str, opened: Opened) -> Result<(Engine, Client), EngineError> {
        let loading = |progress: f32| self.set_status(json!({ "state": "loading", "id": id, "progress": progress, "way": opened.way() }));
        loading(0.0);
        let device = self.device().await?;
        let begin = Instant::now();
        let mut shown = 0.0;
        let mut progress = |done: f32| {
            // A step of 2 % is as fine as anybody sees.
            if done - shown >= 0.02 {
                shown = done;
                loading(done);
            }
        };
        match Engine::load(device, id, &*opened.source, ModelOptions::default(), &mut progress).await {
            Ok((engine, client)) => {
                let load = json!({ "seconds": begin.elapsed().as_secs_f64(), "times": engine.load_times(), "wasm_bytes": wasm_bytes() });
                self.set_status(json!({ "state": "ready", "model": client.info(), "way": opened.way(), "load": load }));
                Ok((engine, client))
            }
            Err((device, error)) => {
                *self.idle.borrow_mut() = Some(device);
                Err(error)
            }
        }
    }

    /// A working device without a model, set up as was found for it.
    async fn device(&self) -> Result<Executor, EngineError> {
        let idle = self.idle.borrow_mut().take();
        let mut gpu = match idle.filter(|device| device.check().is_ok()) {
            Some(Executor::Gpu(gpu)) => gpu,
            _ => Box::new(open_gpu().await?),
        };
        let tuned = self.tunings.apply(&mut gpu).await;
        *self.known.borrow_mut() = Some(Known { adapter: gpu.adapter().clone(), capabilities: gpu.capabilities().clone(), tuned });
        Ok(Executor::Gpu(gpu))
    }

    fn is_current(&self, number: u32) -> bool {
        self.current.borrow().as_ref().is_some_and(|current| current.number == number)
    }

    /// The next request starts over.
    fn forget(&self, number: u32, id: &str, error: &EngineError) {
        if self.is_current(number) {
            *self.current.borrow_mut() = None;
            self.set_status(json!({ "state": "failed", "id": id, "error": error_value(error) }));
        }
    }

    fn set_status(&self, status: Value) {
        *self.status.borrow_mut() = status;
        self.outbox.event("status", &self.status());
    }
}

/// What another model takes the place of.
struct Before {
    model: Option<Current>,
    /// Whether it is given up if it is still being loaded.
    given_up: bool,
}

impl Before {
    /// Whether there is a model, and neither its loading nor its serving has come to an end.
    fn lives(&mut self) -> bool {
        self.model.as_mut().is_some_and(|model| matches!(model.ended.try_recv(), Ok(None)))
    }

    /// Lets go of the model and waits until it is unloaded.
    async fn end(self) {
        if let Some(Current { loading, abort, ended, .. }) = self.model {
            if self.given_up {
                abort.abort();
            }
            // This clone would keep the model's client.
            drop(loading);
            // An error says the same: it is gone.
            let _ = ended.await;
        }
    }
}

/// Opens the GPU. The browser's GPU process may be on its way back from a crash: it gets some seconds.
pub(crate) async fn open_gpu() -> Result<Gpu, EngineError> {
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
