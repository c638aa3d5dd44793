//! The asking side of an engine.

use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use web_time::Instant;

use super::completion::Completion;
use super::info::ModelInfo;
use crate::api::{ChatRequest, Defaults, Resolved};
use crate::error::{EngineError, Result};
use crate::kernels::Sampler;
use crate::serve::{Event, EventReceiver, FinishReason, Job, Priority, Task, Timings, events};
use crate::text::template::Options;
use crate::text::{ChatTemplate, Pace, StopStrings, TextError, Tokenizer, encode_chat, encode_chat_paced};
use crate::turns::{Turns, pause};

/// The asking side; clone it freely.
#[derive(Clone, Debug)]
pub struct Client {
    jobs: UnboundedSender<Job>,
    shared: Rc<Shared>,
    namespace: Option<Rc<str>>,
    priority: Priority,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) info: ModelInfo,
    pub(super) tokenizer: Tokenizer,
    /// Why there is none, for a base model: it can be loaded, but not chatted with.
    pub(super) template: Result<ChatTemplate, TextError>,
    pub(super) stop_tokens: Rc<[u32]>,
    pub(super) defaults: Defaults,
    pub(super) turns: Turns,
}

impl Client {
    pub(super) fn new(jobs: UnboundedSender<Job>, shared: Shared) -> Self {
        Self { jobs, shared: Rc::new(shared), namespace: None, priority: Priority::default() }
    }

    /// The model that is served.
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

    /// The same model for requests of this priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Number of tokens of a conversation, whether it fits or not.
    ///
    /// # Errors
    /// When there is no template or it refuses the messages.
    pub async fn count(&self, request: &ChatRequest) -> Result<usize> {
        Ok(self.encode(&request.resolve(self.defaults()), usize::MAX).await?.len())
    }

    /// Asks for the next turn of a conversation. A long one is encoded in slices, between which others are served; each origin encodes
    /// one conversation at a time. Dropping the future cancels it.
    ///
    /// # Errors
    /// When there is no template, it refuses the messages, or the prompt does not fit.
    pub async fn chat(&self, request: &ChatRequest) -> Result<Completion> {
        Ok(self.resume_chat(request, &[]).await?.0)
    }

    /// The same for a turn of which another engine of this model gave the first tokens, as [`Completion::take_tokens`] tells them: the rest,
    /// and the text of these tokens.
    ///
    /// # Errors
    /// As [`Self::chat`], and when the model has no such tokens.
    pub async fn resume_chat(&self, request: &ChatRequest, answered: &[u32]) -> Result<(Completion, String)> {
        let request = request.resolve(self.defaults());
        let quota = self.shared.info.context;
        // One position is for the answer.
        let prompt = self.encode(&request, quota.saturating_sub(1) as usize).await.map_err(|error| match error {
            EngineError::Text(TextError::TooLong { tokens }) => {
                EngineError::ContextExceeded { requested: tokens.try_into().unwrap_or(u32::MAX), at_least: true, quota }
            }
            error => error,
        })?;
        self.resume(prompt, answered, request.max_tokens, request.sampling, &request.stop)
    }

    async fn encode(&self, request: &Resolved<'_>, limit: usize) -> Result<Vec<u32>> {
        let template = self.template()?;
        let turn = self.shared.turns.take(self.namespace.as_ref()).await;
        let rest = || pause().boxed_local();
        let mut pace = Pace::slices(Pace::SLICE, limit, &rest);
        let options = Options::for_answer(request.tools);
        let prompt = encode_chat_paced(self.tokenizer(), template, &request.messages, options, &mut pace).await?;
        drop(turn);
        Ok(prompt)
    }

    /// Asks for a continuation of token ids.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit.
    pub fn complete(&self, prompt: Vec<u32>, max_tokens: Option<u32>, sampling: Sampler, stop: &[String]) -> Result<Completion> {
        Ok(self.resume(prompt, &[], max_tokens, sampling, stop)?.0)
    }

    fn resume(
        &self,
        prompt: Vec<u32>,
        answered: &[u32],
        max_tokens: Option<u32>,
        sampling: Sampler,
        stop: &[String],
    ) -> Result<(Completion, String)> {
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
        let max_tokens = max_tokens.unwrap_or(u32::MAX).min(context - requested);
        if answered.iter().any(|&token| token as usize >= self.shared.tokenizer.vocabulary_size()) {
            return Err(EngineError::InvalidRequest { field: "resume".to_owned(), problem: "has tokens that the model lacks".to_owned() });
        }
        let events = if answered.len() < max_tokens as usize {
            self.submit(Task::Continue, prompt, answered, max_tokens, sampling, 0)?
        } else {
            ended(Timings { prompt_tokens: requested, completion_tokens: answered.len() as u32, ..Timings::default() })
        };
        let stop = StopStrings::new(stop.iter().cloned());
        let mut completion = Completion::new(events, self.shared.tokenizer.detokenizer(), stop, requested);
        let text = completion.skip(answered);
        Ok((completion, text))
    }

    /// Natural logarithms of the probabilities that the model gives to each of these tokens but the first, after those before it.
    ///
    /// # Errors
    /// When there are fewer than two or more than the context holds, when the model is an encoder, or the engine stops.
    pub async fn score(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Rc<EngineError>> {
        self.check_length(&tokens, 2, self.shared.info.generates)?;
        let mut receiver = self.submit(Task::Score, tokens, &[], 0, Sampler::default(), 0)?;
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
        let mut receiver = self.submit(Task::Embed, tokens, &[], 0, Sampler::default(), 0)?;
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

    fn submit(
        &self,
        task: Task,
        prompt: Vec<u32>,
        answered: &[u32],
        max_tokens: u32,
        sampling: Sampler,
        logits: u32,
    ) -> Result<EventReceiver> {
        let (events, receiver) = events();
        let stop_tokens = Rc::clone(&self.shared.stop_tokens);
        let namespace = self.namespace.clone().filter(|_| task == Task::Continue);
        let origin = self.namespace.clone().unwrap_or_default();
        let priority = self.priority;
        let answered = answered.to_vec();
        let job = Job { task, prompt, answered, namespace, origin, priority, max_tokens, stop_tokens, sampling, logits, events };
        self.jobs.unbounded_send(job).map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// Greedy continuation with the logits of its first `logits` tokens, without detokenizing: for checks.
    ///
    /// # Errors
    /// When the engine stops.
    pub async fn trace(&self, prompt: Vec<u32>, max_tokens: u32, logits: u32) -> Result<Trace, Rc<EngineError>> {
        self.trace_each(prompt, max_tokens, logits, &mut |_| {}).await
    }

    /// The same, and `each` is told the time of each token as it comes.
    ///
    /// # Errors
    /// As [`Self::trace`].
    pub async fn trace_each(
        &self,
        prompt: Vec<u32>,
        max_tokens: u32,
        logits: u32,
        each: &mut dyn FnMut(Instant),
    ) -> Result<Trace, Rc<EngineError>> {
        let begin = Instant::now();
        let mut receiver = self.submit(Task::Continue, prompt, &[], max_tokens, Sampler::default(), logits)?;
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
                    each(begin + now);
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

/// The events of an answer that was as long as it may be before.
fn ended(timings: Timings) -> EventReceiver {
    let (sender, receiver) = events();
    for event in [Event::Admitted(0), Event::End(FinishReason::Length, timings)] {
        sender.send(Ok(event));
    }
    receiver
}

fn stopped() -> EngineError {
    EngineError::DeviceLost { reason: "the engine has stopped".to_owned() }
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
