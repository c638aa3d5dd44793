//! How many questions a loaded model answers exactly as expected, and how likely the expected answers are to it: what a weight
//! format or a cache format costs.

use std::rc::Rc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::Client;
use crate::error::EngineError;
use crate::text::encode_chat;
use crate::text::template::Options;

/// Questions that wait for the engine at a time, so that it never waits for them.
const AT_ONCE: usize = 64;

/// A prompt with its only right answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Question {
    /// What kind of question it is.
    pub family: String,
    /// The conversation up to the answer.
    pub messages: Value,
    /// Tools, or null.
    pub tools: Option<Value>,
    /// The answer.
    pub answer: String,
}

/// A file of questions.
#[derive(Clone, Debug, Deserialize)]
pub struct Questions {
    /// The questions.
    pub prompts: Vec<Question>,
}

/// What a model makes of a question.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its own answer: always the most likely token, cut off where it becomes longer than the expected one.
    pub answer: String,
    /// Whether that is the expected answer, but for spaces around it, and ends there.
    pub exact: bool,
    /// Natural logarithms of the probabilities of the expected answer's tokens, the stop token included.
    pub log_probabilities: Vec<f32>,
}

/// What the outcomes of some questions come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Number of questions.
    pub prompts: usize,
    /// How many were answered exactly.
    pub exact: usize,
    /// Exact answers over questions.
    pub accuracy: f64,
    /// Tokens of the expected answers.
    pub tokens: usize,
    /// `exp` of the mean negative logarithm of these tokens' probabilities.
    pub perplexity: f64,
}

impl Score {
    /// The score of these outcomes; its ratios are NaN if there are none.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let (mut prompts, mut exact, mut tokens, mut sum) = (0, 0, 0, 0.0);
        for outcome in outcomes {
            prompts += 1;
            exact += usize::from(outcome.exact);
            tokens += outcome.log_probabilities.len();
            sum += outcome.log_probabilities.iter().map(|p| f64::from(*p)).sum::<f64>();
        }
        Self { prompts, exact, accuracy: exact as f64 / prompts as f64, tokens, perplexity: (-sum / tokens as f64).exp() }
    }
}

/// Asks all questions, many at a time; outcomes in their order. `progress` goes from 0 to 1.
///
/// # Errors
/// As [`ask`].
pub async fn ask_all(client: &Client, questions: &[Question], progress: &mut dyn FnMut(f32)) -> Result<Vec<Outcome>, Rc<EngineError>> {
    let mut done = 0;
    stream::iter(questions.iter().map(|question| ask(client, question)))
        .buffered(AT_ONCE)
        .inspect_ok(|_| {
            done += 1;
            progress(done as f32 / questions.len() as f32);
        })
        .try_collect()
        .await
}

/// Asks one question.
///
/// # Errors
/// When the model has no chat template or it does not take the question, question and answer exceed the context, or the engine stops.
pub async fn ask(client: &Client, question: &Question) -> Result<Outcome, Rc<EngineError>> {
    let (prompt, expected) = encode(client, question)?;
    let scores = client.score([prompt.as_slice(), &expected].concat()).await?;
    let log_probabilities = scores[prompt.len() - 1..].to_vec();
    let trace = client.trace(prompt, expected.len() as u32, 0).await?;
    let answer = client.tokenizer().decode(&trace.tokens);
    Ok(Outcome { exact: trace.stopped && answer.trim() == question.answer.trim(), answer, log_probabilities })
}

/// Tokens of the prompt, and of the answer up to the stop token with which the chat template ends the turn.
fn encode(client: &Client, question: &Question) -> Result<(Vec<u32>, Vec<u32>), EngineError> {
    let tools = question.tools.as_ref().filter(|t| !t.is_null());
    let prompt = client.encode_chat(&question.messages, tools)?;
    let mut messages = question.messages.as_array().cloned().unwrap_or_default();
    messages.push(json!({ "role": "assistant", "content": question.answer }));
    let mut all = encode_chat(client.tokenizer(), client.template()?, &messages.into(), Options { tools, ..Options::default() })?;
    if prompt.is_empty() || !all.starts_with(&prompt) {
        let problem = "does not follow the prompt in the model's chat template, which begins answers with something else";
        return Err(EngineError::InvalidRequest { field: "answer".to_owned(), problem: problem.to_owned() });
    }
    let mut answer = all.split_off(prompt.len());
    if let Some(end) = answer.iter().position(|token| client.tokenizer().is_stop(*token)) {
        answer.truncate(end + 1);
    }
    Ok((prompt, answer))
}
