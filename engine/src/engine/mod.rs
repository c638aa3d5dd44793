//! A model being served: the loop that runs it and the handles that ask it.

mod client;
mod completion;
mod info;

pub use client::{Client, Trace};
pub use completion::{Completion, Piece};
pub use info::{ModelInfo, main_dtype};

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};

use crate::api::Defaults;
use crate::error::{EngineError, Result};
use crate::exec::{Executor, Scope};
use crate::model::{LoadTimes, MemoryUse, Model, ModelOptions, families, read_checkpoint};
use crate::plan::{self, LoadPlan};
use crate::serve::{Job, Scheduler};
use crate::source::{ReadAhead, Source};
use crate::text::{ChatTemplate, Tokenizer};
use crate::turns::{Turns, yield_now};
use client::Shared;

/// The running side: owns device and model.
#[derive(Debug)]
pub struct Engine {
    executor: Executor,
    model: Model,
    scheduler: Scheduler,
    /// All buffers of model and scheduler.
    scope: Scope,
    jobs: UnboundedReceiver<Job>,
}

impl Engine {
    /// Loads a GGUF model onto a device. `id` is the name that requests use; `progress` goes from 0 to 1.
    ///
    /// # Errors
    /// When the file is damaged, not supported, or does not fit. The device is left as it was.
    pub async fn load(
        executor: Executor,
        id: &str,
        source: &dyn Source,
        options: ModelOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(Self, Client), (Executor, EngineError)> {
        let mut scope = Scope::default();
        match Self::load_parts(&executor, &mut scope, id, source, options, progress).await {
            Ok((model, scheduler, shared)) => {
                let (sender, jobs) = unbounded();
                Ok((Self { executor, model, scheduler, scope, jobs }, Client::new(sender, shared)))
            }
            Err(error) => {
                scope.free(&executor);
                Err((executor, error))
            }
        }
    }

    async fn load_parts(
        executor: &Executor,
        scope: &mut Scope,
        id: &str,
        source: &dyn Source,
        options: ModelOptions,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(Model, Scheduler, Shared)> {
        let checkpoint = read_checkpoint(source).await?;
        checkpoint.notes.iter().for_each(|note| log::warn!("{id}: {note}"));
        let tokenizer = Tokenizer::from_gguf(&checkpoint.metadata)?;
        let template = ChatTemplate::from_gguf(&checkpoint.metadata);
        let rows = families::spec(&checkpoint)?.vocab;
        if tokenizer.vocabulary_size() > rows as usize {
            return Err(EngineError::Unsupported {
                what: "a vocabulary of",
                value: format!("{} tokens", tokenizer.vocabulary_size()),
                supported: format!("up to {rows}, which have embeddings"),
            });
        }
        let before = executor.allocated_bytes();
        let LoadPlan { memory, reads, recordings } = plan::load_plan(&checkpoint, executor.capabilities(), options)?;
        // Refused before anything is read, where the memory is known.
        if let Some(limit) = executor.memory_limit()
            && before + memory.peak > limit
        {
            return Err(plan::out_of_memory(&checkpoint, executor, options, Some(limit.saturating_sub(before))).await);
        }
        let loaded = async {
            let [every, some] = &recordings;
            // The processor that compiles for a software adapter has to compute as well.
            let preparation = executor.prepare(&mut every.iter().chain(some.iter().filter(|_| !executor.is_software())));
            let order = if source.ahead() > 0 { reads } else { Vec::new() };
            let model = Model::load(executor, scope, &checkpoint, &ReadAhead::new(source, order), options, progress).await?;
            let scheduler = Scheduler::new(executor, scope, &model)?;
            if let Some(preparation) = preparation {
                executor.prepared(preparation).await;
            }
            executor.check()?;
            Ok((model, scheduler))
        };
        let (model, scheduler) = match loaded.await {
            Err(EngineError::NoMemory { available }) => {
                std::mem::take(scope).free(executor);
                return Err(plan::out_of_memory(&checkpoint, executor, options, available).await);
            }
            loaded => loaded?,
        };
        let scratch = executor.allocated_bytes() - before - model.memory.weights - model.memory.cache;
        let memory = MemoryUse { scratch, ..model.memory };
        let info = ModelInfo::new(id, source, &checkpoint, &model.spec, &model.options, memory)?;
        let shared = Shared {
            info,
            stop_tokens: tokenizer.stop_tokens().collect(),
            tokenizer,
            template,
            defaults: Defaults::from_gguf(&checkpoint.metadata)?,
            turns: Turns::default(),
        };
        Ok((model, scheduler, shared))
    }

    /// The device.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Where the time of loading went.
    pub fn load_times(&self) -> LoadTimes {
        self.model.load_times
    }

    /// The model, to record passes outside of the scheduler (tests, benches).
    pub fn parts(&mut self) -> (&Executor, &mut Model) {
        (&self.executor, &mut self.model)
    }

    /// Serves until every [`Client`] is gone.
    ///
    /// # Errors
    /// When the device fails; all running requests have been told so. Load the model again to go on.
    pub async fn run(&mut self) -> Result<(), Rc<EngineError>> {
        let served = self.serve().await;
        served.map_err(|error| self.fail(error))
    }

    /// Serves until every [`Client`] is gone, or the device fails.
    ///
    /// # Errors
    /// When the device fails. The requests stay: [`Self::take_over`] continues them on another device, [`Self::fail`] ends them.
    pub async fn serve(&mut self) -> Result<()> {
        loop {
            while self.scheduler.busy() {
                self.take_jobs();
                self.scheduler.step(&self.executor, &self.model).await?;
                // Natively waiting for the device blocks: those who asked get what came, as it comes.
                yield_now().await;
            }
            if !self.wait().await {
                return Ok(());
            }
        }
    }

    /// Waits for a request, or for the reader of one that waits for it. Returns whether there may be any.
    async fn wait(&mut self) -> bool {
        poll_fn(|context| {
            let readers = self.scheduler.poll_readers(context);
            match self.jobs.poll_next_unpin(context) {
                Poll::Ready(Some(job)) => {
                    self.scheduler.push(job);
                    Poll::Ready(true)
                }
                // No request comes any more.
                Poll::Ready(None) if self.scheduler.is_empty() => Poll::Ready(false),
                Poll::Ready(None) | Poll::Pending => readers.map(|()| true),
            }
        })
        .await
    }

    /// Takes the place of an engine of the same model whose device failed with `error`: its clients ask this one from now on, and its
    /// requests go on from the tokens that they have. A request that lost its device before, more often than chance would have it, ends with
    /// the error.
    ///
    /// # Errors
    /// When the models differ; all requests have been told so.
    pub fn take_over(&mut self, mut lost: Self, error: EngineError) -> Result<(), Rc<EngineError>> {
        let shape = |model: &Model| (model.spec.vocab, model.options.context);
        if shape(&lost.model) != shape(&self.model) {
            return Err(lost.fail(EngineError::ModelSwitched));
        }
        lost.scheduler.hand_over(&mut self.scheduler, error);
        self.jobs = lost.jobs;
        Ok(())
    }

    /// Ends all requests with this error, which is returned. No more are taken.
    pub fn fail(&mut self, error: EngineError) -> Rc<EngineError> {
        // Those that asked meanwhile are told as well.
        self.jobs.close();
        self.take_jobs();
        self.scheduler.fail(error)
    }

    /// Queues what was asked meanwhile.
    fn take_jobs(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.scheduler.push(job);
        }
    }

    /// Frees the model and returns the device.
    pub fn unload(self) -> Executor {
        self.scope.free(&self.executor);
        self.executor
    }
}
