//! The one model that is loaded, and how another takes its place.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use doppler_engine::bench::wasm_bytes;
use doppler_engine::engine::{Client, Engine, ModelInfo};
use doppler_engine::error::EngineError;
use doppler_engine::exec::{
    Executor, Gpu,
    gpu::{AdapterSummary, GpuOptions},
};
use doppler_engine::kernels::{Capabilities, Tuning};
use doppler_engine::model::{LoadTimes, ModelOptions};
use doppler_protocol::engine::{self, EngineState, EngineStatus, LoadReport, StatusChanged};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, AbortRegistration, Abortable, LocalBoxFuture, Shared};
use gloo_timers::future::TimeoutFuture;
use wasm_bindgen_futures::spawn_local;
use web_time::Instant;

use crate::SharedError;
use crate::frames::{Outbox, adapter, failure, model};
use crate::models::{Models, Opened};
use crate::tuning::{Tuned, Tunings};

/// The engine's status.
type Status = EngineStatus<Tuning>;

/// A load that several requests can wait for.
type Loading = Shared<LocalBoxFuture<'static, Result<Rc<Client>, SharedError>>>;

/// The reason to load a model.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// A request: as it is, or else with the context that was chosen for it.
    Request,
    /// The user, with a context of so many tokens, or the usual one.
    Choice(Option<u32>),
}

/// A model that is to answer: loaded, being loaded, or waiting for its turn.
struct Current {
    id: String,
    number: u32,
    /// Tokens of the context, where they were chosen.
    context: Rc<Cell<Option<u32>>>,
    loading: Loading,
    /// Ends the loading.
    abort: AbortHandle,
    /// The number of the one whose place it takes.
    before: Option<u32>,
}

/// A model on the device: for as long as a client of it exists.
struct Loaded {
    id: String,
    number: u32,
    context: Rc<Cell<Option<u32>>>,
    client: Weak<Client>,
    /// Resolves when it is unloaded.
    ended: Shared<oneshot::Receiver<()>>,
}

/// Loads models, one at a time.
pub(crate) struct Serving {
    models: Models,
    tunings: Tunings,
    outbox: Rc<Outbox>,
    status: RefCell<Status>,
    current: RefCell<Option<Current>>,
    loaded: RefCell<Option<Loaded>>,
    loads: Cell<u32>,
    /// The device while no model is on it.
    idle: RefCell<Option<Executor>>,
    /// The device that was opened or set up last.
    known: RefCell<Option<Known>>,
}

/// A device, as it was set up.
struct Known {
    adapter: AdapterSummary,
    capabilities: Capabilities,
    /// The settings that were found for it; `None`: it has the defaults.
    tuned: Option<Tuned>,
}

impl Serving {
    pub(crate) fn new(models: Models, tunings: Tunings, outbox: Rc<Outbox>) -> Self {
        Self {
            models,
            tunings,
            outbox,
            status: RefCell::default(),
            current: RefCell::default(),
            loaded: RefCell::default(),
            loads: Cell::default(),
            idle: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// The engine's status, and its device.
    pub(crate) fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        if let Some(known) = &*self.known.borrow() {
            status.adapter = Some(adapter(&known.adapter));
            status.tuning = Some(known.capabilities.tuning);
            status.tuned = Some(known.tuned.clone());
        }
        status
    }

    /// The settings that were found for this computer's devices.
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
    pub(crate) async fn client(self: &Rc<Self>, id: &str) -> Result<Rc<Client>, SharedError> {
        self.loading(id, Wish::Request).await
    }

    /// The same because the user chose the model, with a context of so many tokens or the usual one: what is being loaded in its
    /// place is given up, once this one is open, or at once if this one is still loaded.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) async fn choose(self: &Rc<Self>, id: &str, context: Option<u32>) -> Result<Rc<Client>, SharedError> {
        self.loading(id, Wish::Choice(context)).await
    }

    fn loading(self: &Rc<Self>, id: &str, wish: Wish) -> Loading {
        let serves = |current: &&Current| current.id == id && wish.allows(&current.context);
        let loading = self.current.borrow().as_ref().filter(serves).map(|current| current.loading.clone());
        loading.or_else(|| self.keep(id, wish)).unwrap_or_else(|| self.start(id, wish))
    }

    /// Lets a model that is still loaded, and chosen again, go on, and gives up the one that waits to take its place.
    fn keep(&self, id: &str, wish: Wish) -> Option<Loading> {
        let loaded = self.loaded.borrow();
        let chosen = matches!(wish, Wish::Choice(_));
        let loaded = loaded.as_ref().filter(|loaded| chosen && loaded.id == id && wish.allows(&loaded.context))?;
        let mut current = self.current.borrow_mut();
        let successor = current.as_mut().filter(|current| current.before == Some(loaded.number))?;
        let client = loaded.client.upgrade()?;
        successor.abort.abort();
        let given_up = successor.loading.clone();
        // The request that chose the other is told before.
        let loading = given_up.map(|_| Ok(client)).boxed_local().shared();
        let abort = successor.abort.clone();
        let (number, context) = (loaded.number, Rc::clone(&loaded.context));
        *successor = Current { id: id.to_owned(), number, context, loading: loading.clone(), abort, before: None };
        Some(loading)
    }

    /// The properties of a model and the memory that it needs, from its header.
    ///
    /// # Errors
    /// When it cannot be opened, or is damaged, not supported or too large for the device.
    pub(crate) async fn describe(&self, id: &str) -> Result<ModelInfo, EngineError> {
        let opened = self.models.open(id).await?;
        let known = self.known.borrow().as_ref().map(|known| known.capabilities.clone());
        let capabilities = if let Some(capabilities) = known {
            capabilities
        } else {
            let device = self.device(&|_| {}).await?;
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
        // The next load sets the device up again.
        *self.known.borrow_mut() = None;
        let id = self.current.borrow().as_ref().map(|current| current.id.clone());
        if let Some(id) = id {
            drop(self.start(&id, Wish::Request));
        }
    }

    /// Begins to load. A task of its own: a request that is cancelled in mid-load must not take the load with it.
    fn start(self: &Rc<Self>, id: &str, wish: Wish) -> Loading {
        let number = self.loads.get() + 1;
        self.loads.set(number);
        let before = Before { model: self.current.borrow_mut().take(), given_up: matches!(wish, Wish::Choice(_)) };
        let replaced = before.model.as_ref().map(|model| model.number);
        let (result, loaded) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let context = Rc::new(Cell::new(if let Wish::Choice(context) = wish { context } else { None }));
        let (this, model, granted) = (Rc::clone(self), id.to_owned(), Rc::clone(&context));
        spawn_local(async move {
            if let Wish::Request = wish {
                granted.set(this.models.context(&model).await);
            }
            // All requests may have been cancelled.
            let _ = result.send(this.replace(before, &model, number, granted, registration).await);
        });
        let loading = loaded.map(|loaded| loaded.unwrap_or_else(|_| Err(Rc::new(EngineError::Aborted)))).boxed_local().shared();
        *self.current.borrow_mut() =
            Some(Current { id: id.to_owned(), number, context, loading: loading.clone(), abort, before: replaced });
        loading
    }

    async fn replace(
        self: Rc<Self>,
        before: Before,
        id: &str,
        number: u32,
        context: Rc<Cell<Option<u32>>>,
        abort: AbortRegistration,
    ) -> Result<Rc<Client>, SharedError> {
        let opened = match self.models.open(id).await {
            Ok(opened) => opened,
            Err(error) => {
                let error = Rc::new(error);
                if self.is_current(number) && before.model.as_ref().is_some_and(|model| self.lives(model)) {
                    *self.current.borrow_mut() = before.model;
                } else {
                    before.end().await;
                    self.forget(number, id, &error);
                }
                return Err(error);
            }
        };
        before.end().await;
        let load = async {
            self.emptied().await;
            self.load(id, opened, context.get()).await
        };
        let load = Abortable::new(load, abort);
        match load.await.unwrap_or(Err(EngineError::ModelSwitched)) {
            Ok((engine, client)) => {
                let id = id.to_owned();
                let client = Rc::new(client);
                let (ending, ended) = oneshot::channel();
                let granted = Rc::clone(&context);
                *self.loaded.borrow_mut() =
                    Some(Loaded { id: id.clone(), number, context, client: Rc::downgrade(&client), ended: ended.shared() });
                spawn_local(async move {
                    match self.serve(engine, &id, &granted).await {
                        Ok(device) => *self.idle.borrow_mut() = Some(device),
                        Err(error) => self.forget(number, &id, &error),
                    }
                    *self.loaded.borrow_mut() = None;
                    // The load that waits for this may have been cancelled.
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

    /// Serves until no client is left; the device, which is left. When the device is lost the model is loaded again on another, where the
    /// answers go on.
    async fn serve(&self, mut engine: Engine, id: &str, context: &Cell<Option<u32>>) -> Result<Executor, SharedError> {
        loop {
            let Err(error) = engine.serve().await else { return Ok(engine.unload()) };
            if !lost(&engine, &error).await {
                return Err(engine.fail(error));
            }
            log::warn!("{error}: the model is loaded again");
            let next = async { self.load(id, self.models.open(id).await?, context.get()).await };
            match next.await {
                Ok((mut next, _)) => {
                    next.take_over(engine, error)?;
                    engine = next;
                }
                Err(reason) => {
                    engine.fail(error);
                    return Err(Rc::new(reason));
                }
            }
        }
    }

    /// Loads a model, again where its device is lost meanwhile.
    async fn load(&self, id: &str, opened: Opened, context: Option<u32>) -> Result<(Engine, Client), EngineError> {
        const ATTEMPTS: u32 = 3;
        let mut attempt = 1;
        loop {
            match self.load_once(id, &opened, context).await {
                Err(EngineError::DeviceLost { .. }) if attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    async fn load_once(&self, id: &str, opened: &Opened, context: Option<u32>) -> Result<(Engine, Client), EngineError> {
        let transport = || opened.transport();
        let loading = |progress: f32| {
            let (id, progress) = (Some(id.to_owned()), Some(progress.into()));
            self.set_status(Status { id, progress, transport: transport(), ..Status::new(EngineState::Loading) });
        };
        loading(0.0);
        let missing = |error: &EngineError| self.set_status(failed(id, error));
        let device = self.device(&missing).await?;
        let late = self.status.borrow().state == EngineState::Failed;
        if late {
            loading(0.0);
        }
        let begin = Instant::now();
        let mut shown = 0.0;
        let mut progress = |done: f32| {
            // A step of 2 % is as fine as anybody sees. The end is told: what follows is the compiling of kernels.
            if done - shown >= 0.02 || (done >= 1.0 && shown < 1.0) {
                shown = done;
                loading(done);
            }
        };
        let usual = ModelOptions::default();
        // A context is chosen where memory lacks: the cache holds no more than one of it.
        let options = context.map_or(usual, |context| ModelOptions { context, kv_bytes: 0, ..usual });
        match Engine::load(device, id, &*opened.source, options, &mut progress).await {
            Ok((engine, client)) => {
                let (model, load) = (Some(model(client.info())), Some(load_report(begin.elapsed(), engine.load_times())));
                self.set_status(Status { model, load, transport: transport(), ..Status::new(EngineState::Ready) });
                Ok((engine, client))
            }
            Err((device, error)) => {
                *self.idle.borrow_mut() = Some(device);
                Err(error)
            }
        }
    }

    /// A working device without a model, set up as was found for it. `missing` as for [`open_gpu`].
    async fn device(&self, missing: &dyn Fn(&EngineError)) -> Result<Executor, EngineError> {
        let idle = self.idle.borrow_mut().take();
        let mut gpu = match idle.filter(|device| device.check().is_ok()) {
            Some(Executor::Gpu(gpu)) => gpu,
            _ => Box::new(open_gpu(missing).await?),
        };
        let tuned = self.tunings.apply(&mut gpu).await;
        *self.known.borrow_mut() = Some(Known { adapter: gpu.adapter().clone(), capabilities: gpu.capabilities().clone(), tuned });
        Ok(Executor::Gpu(gpu))
    }

    /// Waits until no model is on the device.
    async fn emptied(&self) {
        let ended = self.loaded.borrow().as_ref().map(|loaded| loaded.ended.clone());
        if let Some(ended) = ended {
            // An error says the same: it is gone.
            let _ = ended.await;
        }
    }

    /// Whether neither a model's loading nor its serving has come to an end.
    fn lives(&self, model: &Current) -> bool {
        match model.loading.clone().now_or_never() {
            None => true,
            Some(loading) => loading.is_ok() && self.loaded.borrow().as_ref().is_some_and(|loaded| loaded.number == model.number),
        }
    }

    fn is_current(&self, number: u32) -> bool {
        self.current.borrow().as_ref().is_some_and(|current| current.number == number)
    }

    /// The next request starts over.
    fn forget(&self, number: u32, id: &str, error: &EngineError) {
        if self.is_current(number) {
            *self.current.borrow_mut() = None;
            self.set_status(failed(id, error));
        }
    }

    fn set_status(&self, status: Status) {
        *self.status.borrow_mut() = status;
        self.outbox.event::<StatusChanged>(&self.status());
    }
}

impl Wish {
    /// Whether a model with this context is what is wanted.
    fn allows(self, context: &Cell<Option<u32>>) -> bool {
        match self {
            Self::Request => true,
            Self::Choice(wanted) => wanted == context.get(),
        }
    }
}

/// The model that another replaces.
struct Before {
    model: Option<Current>,
    /// Whether it is given up if it is still being loaded.
    given_up: bool,
}

impl Before {
    /// Lets go of the model, once its loading has ended.
    async fn end(self) {
        if let Some(Current { loading, abort, .. }) = self.model {
            if self.given_up {
                abort.abort();
            }
            let _ = loading.await;
        }
    }
}

/// Whether the device is gone. The error of what was under way may come first.
async fn lost(engine: &Engine, error: &EngineError) -> bool {
    const PAUSE_MS: u32 = 100;
    if !matches!(error, EngineError::DeviceLost { .. }) {
        TimeoutFuture::new(PAUSE_MS).await;
    }
    matches!(engine.executor().check(), Err(EngineError::DeviceLost { .. }))
}

/// The status of a model that cannot answer.
fn failed(id: &str, error: &EngineError) -> Status {
    Status { id: Some(id.to_owned()), error: Some(failure(error)), ..Status::new(EngineState::Failed) }
}

fn load_report(time: Duration, LoadTimes { read, write, device }: LoadTimes) -> LoadReport {
    let times = engine::LoadTimes { read, write, device };
    LoadReport { seconds: time.as_secs_f64(), times, wasm_bytes: wasm_bytes() as f64 }
}

/// Opens the GPU. The browser's GPU process may be on its way back from a crash: it gets some seconds. `missing` is called when it is
/// not there after the first.
pub(crate) async fn open_gpu(missing: &dyn Fn(&EngineError)) -> Result<Gpu, EngineError> {
    const ATTEMPTS: u32 = 20;
    const FIRST: u32 = 4;
    const PAUSE_MS: u32 = 250;
    let mut attempt = 1;
    loop {
        match Gpu::open(&GpuOptions::default()).await {
            Err(error) if attempt < ATTEMPTS && Gpu::may_come() => {
                if attempt == FIRST {
                    missing(&error);
                }
                TimeoutFuture::new(PAUSE_MS).await;
            }
            other => return other,
        }
        attempt += 1;
    }
}
