//! A model being served: the loop that runs it and the handles that ask it.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use web_time::Instant;

use crate::api::{ChatRequest, Defaults};
use crate::error::{EngineError, Result};
use crate::exec::{Executor, Scope};
use crate::formats::convert::{Recipe, loaded_dtypes};
use crate::formats::{Checkpoint, DType, TensorInfo};
use crate::kernels::{Capabilities, Sampler};
use crate::model::{LoadTimes, MemoryUse, Model, ModelOptions, ModelSpec, families, read_checkpoint};
use crate::plan::{self, LoadPlan};
use crate::serve::{Event, FinishReason, Job, Scheduler, Task, Timings};
use crate::source::{ReadAhead, Source};
use crate::text::template::Options;
use crate::text::{ChatTemplate, Detokenizer, Pace, StopStrings, TextError, Tokenizer, encode_chat, encode_chat_paced};
use crate::turns::{Turns, pause, yield_now};

/// What a person wants to know about a model.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModelInfo {
    /// Name that requests use.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Type that most of the weights have.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Positions of a sequence.
    pub context: u32,
    /// Bytes on the device.
    pub memory: MemoryUse,
    /// Elements of the embeddings of texts that the model makes; `None`: it makes none.
    pub embedding: Option<u32>,
    /// Whether the model continues text.
    pub generates: bool,
    /// What of the file is not used, or used otherwise than it says: a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ModelInfo {
    fn new(
        id: &str,
        source: &dyn Source,
        checkpoint: &Checkpoint,
        spec: &ModelSpec,
        granted: &ModelOptions,
        memory: MemoryUse,
    ) -> Result<Self> {
        Ok(Self {
            id: id.to_owned(),
            name: spec.name.clone(),
            architecture: spec.family.to_owned(),
            quantization: main_dtype(checkpoint, granted.quantize)?.to_string(),
            parameters: checkpoint.tensors.iter().map(TensorInfo::elements).sum(),
            file_bytes: source.bytes(),
            context: granted.context,
            memory,
            embedding: spec.head.pooling.map(|_| spec.dim),
            generates: spec.is_causal(),
            notes: checkpoint.notes.clone(),
        })
    }

    /// What a model is and what it would take on a device with these capabilities: only its header is read.
    ///
    /// # Errors
    /// When the file is damaged, not supported, or has what such a device cannot hold.
    pub async fn read(id: &str, source: &dyn Source, capabilities: &Capabilities, options: ModelOptions) -> Result<Self> {
        let checkpoint = read_checkpoint(source).await?;
        let spec = families::spec(&checkpoint)?;
        let plan::MemoryPlan { memory, context, .. } = plan::plan(&checkpoint, capabilities, options)?;
        Self::new(id, source, &checkpoint, &spec, &ModelOptions { context, ..options }, memory)
    }
}

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

/// The asking side; clone it freely.
#[derive(Clone, Debug)]
pub struct Client {
    jobs: UnboundedSender<Job>,
    shared: Rc<Shared>,
    namespace: Option<Rc<str>>,
}

#[derive(Debug)]
struct Shared {
    info: ModelInfo,
    tokenizer: Tokenizer,
    /// Why there is none, for a base model: it can be loaded, but not chatted with.
    template: Result<ChatTemplate, TextError>,
    stop_tokens: Rc<[u32]>,
    defaults: Defaults,
    turns: Turns,
}

/// The type that holds most of the weights once they are loaded.
///
/// # Errors
/// When the metadata does not say what quantizing needs.
pub fn main_dtype(checkpoint: &Checkpoint, quantize: Option<Recipe>) -> Result<DType> {
    let dtype = loaded_dtypes(checkpoint, quantize)?;
    let mut elements = HashMap::new();
    for tensor in &checkpoint.tensors {
        *elements.entry(dtype(tensor)).or_insert(0) += tensor.elements();
    }
    Ok(elements.into_iter().max_by_key(|(_, count)| *count).map_or(DType::F32, |(dtype, _)| dtype))
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
                Ok((Self { executor, model, scheduler, scope, jobs }, Client { jobs: sender, shared: Rc::new(shared), namespace: None }))
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
    /// When the device fails; all running requests have been told so. Load anew to go on.
    pub async fn run(&mut self) -> Result<(), Rc<EngineError>> {
        while let Some(job) = self.jobs.next().await {
            self.scheduler.push(job);
            while self.scheduler.busy() {
                self.take_jobs();
                if let Err(error) = self.scheduler.step(&self.executor, &self.model).await {
                    // Whoever asked meanwhile is told as well.
                    self.jobs.close();
                    self.take_jobs();
                    return Err(self.scheduler.fail(error));
                }
                // Natively waiting for the device blocks: those who asked get what came, as it comes.
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Queues what was asked meanwhile.
    fn take_jobs(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.scheduler.push(job);
        }
    }

    /// Frees the model and gives the device back.
    pub fn unload(self) -> Executor {
        self.scope.free(&self.executor);
        self.executor
    }
}

impl Client {
    /// What is being served.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// When the model has none, or one that cannot be used; then only plain text works, with [`Client::complete`].
    pub fn template(&self) -> Result<&ChatTemplate> {
        self.shared.template.as_ref().map_err(|e| e.clone().into())
    }

    /// The values of the model's files for what a request leaves open.
    pub fn defaults(&self) -> &Defaults {
        &self.shared.defaults
    }

    /// Token ids of a conversation, ready for the answer, encoded in one go.
    ///
    /// # Errors
    /// When there is no template or it refuses the messages.
    pub fn encode_chat(&self, messages: &Value, tools: Option<&Value>) -> Result<Vec<u32>> {
        Ok(encode_chat(self.tokenizer(), self.template()?, messages, Options::for_answer(tools))?)
    }

    /// The same model for requests that may continue one another's texts from the cache. Other namespaces cannot learn, not even by
    /// the time that an answer takes, what was asked in this one.
    #[must_use]
    pub fn sharing(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// Number of tokens of a conversation, whether it fits or not.
    ///
    /// # Errors
    /// When there is no template or it refuses the messages.
    pub async fn count(&self, request: &ChatRequest) -> Result<usize> {
        Ok(self.encode(&request.with(self.defaults()), usize::MAX).await?.len())
    }

    /// Asks for the next turn of a conversation. A long one is encoded in slices, between which others are served; each origin encodes
    /// one conversation at a time. Dropping the future gives it up.
    ///
    /// # Errors
    /// When there is no template, it refuses the messages, or the prompt does not fit.
    pub async fn chat(&self, request: &ChatRequest) -> Result<Completion> {
        let request = &request.with(self.defaults());
        let quota = self.shared.info.context;
        // One position is for the answer.
        let prompt = self.encode(request, quota.saturating_sub(1) as usize).await.map_err(|error| match error {
            EngineError::Text(TextError::TooLong { tokens }) => {
                EngineError::ContextExceeded { requested: tokens.try_into().unwrap_or(u32::MAX), at_least: true, quota }
            }
            error => error,
        })?;
        self.complete(prompt, request.max_tokens, request.sampling(&self.defaults().sampling), &request.stop)
    }

    async fn encode(&self, request: &ChatRequest, limit: usize) -> Result<Vec<u32>> {
        let template = self.template()?;
        let turn = self.shared.turns.take(self.namespace.as_ref()).await;
        let rest = || pause().boxed_local();
        let mut pace = Pace::slices(Pace::SLICE, limit, &rest);
        let options = Options::for_answer(request.tools.as_ref());
        let prompt = encode_chat_paced(self.tokenizer(), template, &request.messages, options, &mut pace).await?;
        drop(turn);
        Ok(prompt)
    }

    /// Asks for a continuation of token ids.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit.
    pub fn complete(&self, prompt: Vec<u32>, max_tokens: Option<u32>, sampling: Sampler, stop: &[String]) -> Result<Completion> {
        let context = self.shared.info.context;
        let requested = prompt.len() as u32;
        if requested == 0 {
            return Err(EngineError::InvalidRequest { field: "messages".to_owned(), problem: "are empty".to_owned() });
        }
        if !self.shared.info.generates {
            return Err(EngineError::Unsupported {
                what: "continuing text with the encoder",
                value: self.shared.info.name.clone(),
                supported: "embeddings".to_owned(),
            });
        }
        // One position is for the answer.
        if requested >= context {
            return Err(EngineError::ContextExceeded { requested, at_least: false, quota: context });
        }
        let (events, receiver) = unbounded();
        let job = Job {
            task: Task::Continue,
            prompt,
            namespace: self.namespace.clone(),
            max_tokens: max_tokens.unwrap_or(u32::MAX).min(context - requested),
            stop_tokens: Rc::clone(&self.shared.stop_tokens),
            sampling,
            logits: 0,
            events,
        };
        self.jobs.unbounded_send(job).map_err(|_| EngineError::DeviceLost { reason: "the engine has stopped".to_owned() })?;
        Ok(Completion {
            events: receiver,
            detokenizer: self.shared.tokenizer.detokenizer(),
            stop: StopStrings::new(stop.iter().cloned()),
            end: None,
            timings: Timings { prompt_tokens: requested, ..Timings::default() },
        })
    }
}

impl Client {
    /// Natural logarithms of the probabilities that the model gives to each of these tokens but the first, after those before it.
    ///
    /// # Errors
    /// When there are fewer than two or more than the context holds, when the model is an encoder, or the engine stops.
    pub async fn score(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Rc<EngineError>> {
        self.check_length(&tokens, 2, self.shared.info.generates)?;
        let mut receiver = self.ask(Task::Score, tokens, 0, 0)?;
        let mut scores = Vec::new();
        loop {
            match receiver.next().await.ok_or_else(stopped)?? {
                Event::Scores(more) => scores.extend(more),
                Event::End(..) => return Ok(scores),
                _ => {}
            }
        }
    }

    /// The embedding of these tokens, of length 1.
    ///
    /// # Errors
    /// When there are none or more than the context holds, when the model makes no embeddings, or the engine stops.
    pub async fn embed(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Rc<EngineError>> {
        self.check_length(&tokens, 1, self.shared.info.embedding.is_some())?;
        let mut receiver = self.ask(Task::Embed, tokens, 0, 0)?;
        let mut embedding = Vec::new();
        loop {
            match receiver.next().await.ok_or_else(stopped)?? {
                Event::Embedding(values) => embedding = values,
                Event::End(..) => break,
                _ => {}
            }
        }
        let length = embedding.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        Ok(embedding.into_iter().map(|v| (f64::from(v) / length) as f32).collect())
    }

    fn check_length(&self, tokens: &[u32], least: usize, can: bool) -> Result<()> {
        let info = &self.shared.info;
        if !can {
            return Err(EngineError::Unsupported {
                what: "this task with the model",
                value: info.name.clone(),
                supported: if info.generates { "continuing and scoring text" } else { "embeddings" }.to_owned(),
            });
        }
        if tokens.len() < least {
            let problem = format!("has {} tokens and needs at least {least}", tokens.len());
            return Err(EngineError::InvalidRequest { field: "input".to_owned(), problem });
        }
        if tokens.len() > info.context as usize {
            return Err(EngineError::ContextExceeded { requested: tokens.len() as u32, at_least: false, quota: info.context });
        }
        Ok(())
    }

    fn ask(&self, task: Task, prompt: Vec<u32>, max_tokens: u32, logits: u32) -> Result<Events, Rc<EngineError>> {
        let (events, receiver) = unbounded();
        let stop_tokens = Rc::clone(&self.shared.stop_tokens);
        let namespace = self.namespace.clone().filter(|_| task == Task::Continue);
        let job = Job { task, prompt, namespace, max_tokens, stop_tokens, sampling: Sampler::default(), logits, events };
        self.jobs.unbounded_send(job).map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// Greedy continuation with the logits of its first `logits` tokens, without detokenizing: for checks.
    ///
    /// # Errors
    /// When the engine stops.
    pub async fn trace(&self, prompt: Vec<u32>, max_tokens: u32, logits: u32) -> Result<Trace, Rc<EngineError>> {
        let begin = Instant::now();
        let mut receiver = self.ask(Task::Continue, prompt, max_tokens, logits)?;
        let mut trace = Trace::default();
        let mut now = Duration::ZERO;
        loop {
            let event = if let Some(event) = receiver.next().now_or_never() {
                event
            } else {
                let event = receiver.next().await;
                now = begin.elapsed();
                event
            };
            match event.ok_or_else(stopped)?? {
                Event::Logits(row) => trace.logits.push(row),
                Event::Token(token) => {
                    trace.tokens.push(token);
                    trace.arrivals.push(now);
                }
                Event::Admitted(_) | Event::Scores(_) | Event::Embedding(_) => {}
                Event::End(reason, timings) => {
                    trace.stopped = reason == FinishReason::Stop;
                    trace.timings = timings;
                    return Ok(trace);
                }
            }
        }
    }
}

type Events = UnboundedReceiver<Result<Event, Rc<EngineError>>>;

fn stopped() -> Rc<EngineError> {
    Rc::new(EngineError::DeviceLost { reason: "the engine has stopped".to_owned() })
}

/// A greedy continuation.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// When each came, from the request on. Tokens that came together have the same time.
    pub arrivals: Vec<Duration>,
    /// Whether a stop token ended it.
    pub stopped: bool,
    /// Logits (vocab) that the first tokens were chosen from.
    pub logits: Vec<Vec<f32>>,
    /// Where the time went.
    pub timings: Timings,
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub enum Piece {
    /// More text; never empty, never a part of a character.
    Text(String),
    /// The end; nothing follows.
    End(FinishReason, Timings),
}

/// An answer as it comes. Dropping it cancels the request.
#[derive(Debug)]
pub struct Completion {
    events: Events,
    detokenizer: Detokenizer,
    stop: StopStrings,
    end: Option<Result<Piece, Rc<EngineError>>>,
    /// As far as they are known before the end.
    timings: Timings,
}

impl Completion {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.timings.prompt_tokens
    }

    /// The next piece; `None` after the end.
    ///
    /// # Errors
    /// When the engine failed; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Piece, Rc<EngineError>>> {
        if let Some(end) = self.end.take() {
            self.events.close();
            return Some(end);
        }
        loop {
            match self.events.next().await? {
                Err(error) => {
                    self.events.close();
                    return Some(Err(error));
                }
                Ok(Event::Logits(_) | Event::Scores(_) | Event::Embedding(_)) => {}
                Ok(Event::Admitted(cached)) => self.timings.cached_tokens = cached,
                Ok(Event::Token(token)) => {
                    self.timings.completion_tokens += 1;
                    let text = self.detokenizer.push(token);
                    let (text, stopped) = self.stop.push(&text);
                    if stopped {
                        return Some(Ok(self.last(text, Piece::End(FinishReason::Stop, self.timings))));
                    }
                    if !text.is_empty() {
                        return Some(Ok(Piece::Text(text)));
                    }
                }
                Ok(Event::End(reason, timings)) => {
                    let (mut text, stopped) = self.stop.push(&self.detokenizer.finish());
                    if !stopped {
                        text.push_str(&self.stop.flush());
                    }
                    return Some(Ok(self.last(text, Piece::End(reason, timings))));
                }
            }
        }
    }

    /// The same, with all text that is there already as one piece: the tokens of a submission come together, and a message for each
    /// of them would cost more than the token.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_burst(&mut self) -> Option<Result<Piece, Rc<EngineError>>> {
        let mut piece = self.next().await?;
        while let Ok(Piece::Text(text)) = &mut piece {
            match self.next().now_or_never() {
                Some(Some(Ok(Piece::Text(more)))) => text.push_str(&more),
                Some(end) => {
                    self.end = end;
                    break;
                }
                None => break,
            }
        }
        Some(piece)
    }

    /// The text that was held back, if any, then the end.
    fn last(&mut self, text: String, end: Piece) -> Piece {
        if text.is_empty() {
            self.events.close();
            return end;
        }
        self.end = Some(Ok(end));
        Piece::Text(text)
    }
}
