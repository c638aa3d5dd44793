//! `doppler run` and `doppler chat`.

use std::io::{BufRead, Write};

use doppler_engine::api::ChatRequest;
use doppler_engine::engine::{Client, Completion, Piece};
use doppler_engine::error::EngineError;
use doppler_engine::serve::Timings;
use doppler_engine::text::TextError;
use serde_json::{Value, json};

use super::Failure;
use super::args::{ModelArgs, SamplingArgs};
use super::open::{open, with_engine};

pub(super) async fn run(model: &ModelArgs, prompt: &str, sampling: &SamplingArgs) -> Result<(), Failure> {
    let (mut engine, client) = open(model, 1).await?;
    let request = chat_request(&json!([{ "role": "user", "content": prompt }]), sampling)?;
    let completion = if let Err(EngineError::Text(TextError::NoChatTemplate)) = client.template() {
        eprintln!("The model has no chat template: the prompt is continued as plain text.");
        let ids = client.tokenizer().encode_prompt(prompt, false)?;
        let request = request.resolve(client.defaults());
        client.complete(ids, request.max_tokens, request.sampling, &request.stop)?
    } else {
        client.chat(&request).await?
    };
    with_engine(&mut engine, print(completion)).await?;
    Ok(())
}

pub(super) async fn chat(model: &ModelArgs, sampling: &SamplingArgs) -> Result<(), Failure> {
    let (mut engine, client) = open(model, 1).await?;
    with_engine(&mut engine, converse(&client.sharing("chat"), sampling)).await
}

async fn converse(client: &Client, sampling: &SamplingArgs) -> Result<(), Failure> {
    let mut messages = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        eprint!("> ");
        let Some(line) = lines.next().transpose()?.filter(|l| !l.trim().is_empty()) else { return Ok(()) };
        messages.push(json!({ "role": "user", "content": line }));
        let text = print(client.chat(&chat_request(&messages.clone().into(), sampling)?).await?).await?;
        messages.push(json!({ "role": "assistant", "content": text }));
    }
}

fn chat_request(messages: &Value, sampling: &SamplingArgs) -> Result<ChatRequest, Failure> {
    let mut request = json!(sampling);
    request["messages"] = messages.clone();
    Ok(ChatRequest::parse(&request)?)
}

/// Writes a completion as it comes, and gives its text.
async fn print(mut completion: Completion) -> Result<String, Failure> {
    let mut text = String::new();
    let mut out = std::io::stdout().lock();
    while let Some(piece) = completion.next().await {
        match piece.map_err(|e| e.to_string())? {
            Piece::Text(more) => {
                write!(out, "{more}")?;
                out.flush()?;
                text.push_str(&more);
            }
            Piece::End(_, timings) => {
                writeln!(out)?;
                print_timings(&timings);
            }
        }
    }
    Ok(text)
}

fn print_timings(t: &Timings) {
    let prefill = f64::from(t.prompt_tokens - t.cached_tokens) / t.prefill.as_secs_f64();
    let decode = f64::from(t.completion_tokens.saturating_sub(1)) / t.decode.as_secs_f64();
    let (prompt, cached, answer) = (t.prompt_tokens, t.cached_tokens, t.completion_tokens);
    eprintln!("[prompt {prompt} tokens, {cached} of them read before, {prefill:.0}/s; answer {answer} tokens, {decode:.1}/s]");
}
