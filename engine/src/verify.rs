//! Checks a loaded model on its device against reference outputs (Hugging Face transformers): the engine's health check.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Client;
use crate::error::EngineError;
use crate::text::template::Options;

/// Reference output of one prompt.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    /// Name for reports.
    pub name: String,
    /// The conversation; empty where only token ids are compared.
    pub messages: Value,
    /// Tools, or null.
    pub tools: Option<Value>,
    /// What the template makes of it.
    pub text: String,
    /// Its token ids.
    pub prompt_ids: Vec<u32>,
    /// Greedy continuation, stop token included where there is one.
    pub continuation_ids: Vec<u32>,
    /// `eos` or `length`.
    pub stop: String,
    /// Smallest distance between the two best logits along the continuation.
    pub min_margin: f32,
    /// Best logits of the first steps, as (token, logit).
    #[serde(default)]
    pub top20_logits: Vec<Vec<(u32, f32)>>,
}

/// A file of reference outputs.
#[derive(Clone, Debug, Deserialize)]
pub struct References {
    /// The prompts.
    pub prompts: Vec<Reference>,
}

/// How the engine compares with a reference.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Name of the prompt.
    pub name: String,
    /// The templated text is the same.
    pub text_equal: bool,
    /// The prompt's token ids are the same.
    pub prompt_equal: bool,
    /// The greedy continuation is the same, stop included.
    pub greedy_equal: bool,
    /// Tokens of the continuation that agree before the first difference.
    pub matching: usize,
    /// Tokens of the reference continuation.
    pub expected: usize,
    /// Smallest margin of the reference: a difference where it is below 1e-3 is a near-tie.
    pub min_margin: f32,
    /// Largest error of the reference's best logits, relative to the largest of the step; `None` without reference logits.
    pub logit_error: Option<f32>,
}

/// Runs one reference prompt.
///
/// # Errors
/// When the template fails or the engine stops.
pub async fn compare(client: &Client, reference: &Reference) -> Result<Comparison, Rc<EngineError>> {
    let (text_equal, prompt_equal) = if reference.messages.as_array().is_some_and(Vec::is_empty) {
        (true, true)
    } else {
        let tools = reference.tools.as_ref().filter(|t| !t.is_null());
        let text = client.template()?.render(&reference.messages, Options::for_answer(tools)).map_err(|e| Rc::new(e.into()))?;
        let prompt = client.encode_chat(&reference.messages, tools).map_err(Rc::new)?;
        (text == reference.text, prompt == reference.prompt_ids)
    };

    let stops = reference.stop == "eos";
    let answer_len = reference.continuation_ids.len() - usize::from(stops);
    let steps = reference.top20_logits.len() as u32;
    let trace = client.trace(reference.prompt_ids.clone(), reference.continuation_ids.len() as u32, steps).await?;
    let expected = &reference.continuation_ids[..answer_len];
    let matching = trace.tokens.iter().zip(expected).take_while(|(a, b)| a == b).count();

    // Logits are comparable as long as what was read before them is the same.
    let comparable = reference.top20_logits.iter().zip(&trace.logits).take(matching + 1);
    let errors = comparable.map(|(want, got)| {
        let scale = want.iter().map(|(_, logit)| logit.abs()).fold(0.0, f32::max);
        // `f32::max` would drop a NaN.
        want.iter().map(|(token, logit)| (got[*token as usize] - logit).abs() / scale).fold(0.0, |a, b| if b <= a { a } else { b })
    });
    Ok(Comparison {
        name: reference.name.clone(),
        text_equal,
        prompt_equal,
        greedy_equal: trace.tokens == expected && trace.stopped == stops,
        matching,
        expected: answer_len,
        min_margin: reference.min_margin,
        logit_error: (steps > 0).then(|| errors.fold(0.0, |a, b| if b <= a { a } else { b })),
    })
}
