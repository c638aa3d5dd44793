//! Chat completions: <https://platform.openai.com/docs/api-reference/chat>.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::fields::{self, array, boolean, invalid, number, string, unsupported};
use super::messages;
use crate::error::Result;
use crate::formats::{Metadata, ollama};
use crate::kernels::Sampler;
use crate::serve::{FinishReason, Timings};

/// A checked request. Fields that the request leaves open are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// Model id; `None`: whichever is loaded.
    pub model: Option<String>,
    /// The conversation: an array of `{role, content}`, content a string, null or parts of text.
    pub messages: Value,
    /// Tools, for the template, unless none is to be called.
    pub tools: Option<Value>,
    /// Whether the answer comes in chunks.
    pub stream: bool,
    /// Whether a stream's last chunk has the token counts.
    pub include_usage: bool,
    /// Limit on new tokens.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u32>,
}

/// `OpenAI` allows four; more cost nothing.
const MAX_STOP_STRINGS: usize = 16;

impl ChatRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// `InvalidRequest` for a field that makes no sense; `UnsupportedField` for one that means something the engine does not
    /// do. Only what asks for nothing is ignored (see [`fields::check`]).
    pub fn parse(request: &Value) -> Result<Self> {
        let Value::Object(fields) = request else {
            return Err(invalid("request", "must be an object"));
        };
        let mut parsed = Self::default();
        let (mut shows_tools, mut one_call) = (true, false);
        for (name, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
            match name.as_str() {
                "tool_choice" => shows_tools = fields::shows_tools(value)?,
                "parallel_tool_calls" => one_call = !boolean(name, value)?,
                _ => parsed.set(name, value)?,
            }
        }
        if !parsed.messages.is_array() {
            return Err(invalid("messages", "is required"));
        }
        parsed.tools = parsed.tools.filter(|_| shows_tools);
        if one_call && parsed.tools.is_some() {
            return Err(unsupported("parallel_tool_calls", "the model calls as many tools as it likes"));
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        match name {
            "model" => self.model = Some(string(name, value)?),
            "messages" => self.messages = messages::messages(value)?,
            "tools" if value.as_array().is_some_and(Vec::is_empty) => {}
            "tools" => self.tools = Some(messages::tools(value)?),
            "stream" => self.stream = boolean(name, value)?,
            "stream_options" => self.include_usage = fields::stream_options(value)?,
            "max_tokens" | "max_completion_tokens" => {
                let limits = [self.max_tokens, Some(fields::token_limit(name, value)?)];
                self.max_tokens = limits.into_iter().flatten().min();
            }
            "stop" => self.stop = stop(value)?,
            "temperature" => self.temperature = Some(number(name, value, 0.0, 100.0)?),
            "top_k" => self.top_k = Some(fields::top_k(name, value)?),
            "top_p" => self.top_p = Some(number(name, value, 0.0, 1.0)?),
            "min_p" => self.min_p = Some(number(name, value, 0.0, 1.0)?),
            "repetition_penalty" => self.repetition_penalty = Some(number(name, value, 0.01, 10.0)?),
            "presence_penalty" => self.presence_penalty = Some(number(name, value, -2.0, 2.0)?),
            "frequency_penalty" => self.frequency_penalty = Some(number(name, value, -2.0, 2.0)?),
            "seed" => self.seed = Some(fields::seed(name, value)?),
            _ => fields::check(name, value)?,
        }
        Ok(())
    }

    /// The request with the values of `defaults` for what it leaves open; their stop strings and its own both end the answer. A seed
    /// that both leave open is drawn.
    pub fn resolve(&self, defaults: &Defaults) -> Resolved<'_> {
        Resolved {
            messages: self.messages_with(defaults.system.as_deref()),
            tools: self.tools.as_ref(),
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            stop: self.stop.iter().chain(&defaults.stop).cloned().collect(),
            sampling: self.sampling(&defaults.sampling, defaults.seed),
        }
    }

    /// The messages, behind `system` where they have no system message.
    fn messages_with(&self, system: Option<&str>) -> Cow<'_, Value> {
        match (system, self.messages.as_array()) {
            (Some(system), Some(messages)) if !messages.iter().any(|m| m["role"] == "system" || m["role"] == "developer") => {
                let system = json!({ "role": "system", "content": system });
                Cow::Owned(std::iter::once(system).chain(messages.iter().cloned()).collect())
            }
            _ => Cow::Borrowed(&self.messages),
        }
    }

    fn sampling(&self, defaults: &Sampler, seed: Option<u32>) -> Sampler {
        Sampler {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            seed: self.seed.or(seed).unwrap_or_else(fresh_seed),
            ..*defaults
        }
    }
}

/// A request and its model's defaults: what the engine needs to answer.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// The conversation, with a system message where there is one.
    pub messages: Cow<'a, Value>,
    /// Tools, for the template.
    pub tools: Option<&'a Value>,
    /// Limit on new tokens; `None`: the context.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// How tokens are chosen.
    pub sampling: Sampler,
}

/// The values that a model's files recommend for what a request leaves open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// Without a word from the files, the most likely token always.
    pub sampling: Sampler,
    /// `None`: another one for each request.
    pub seed: Option<u32>,
    /// Limit on new tokens.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// System message of conversations that have none.
    pub system: Option<String>,
}

impl Defaults {
    /// Reads `general.sampling.*` and what Ollama keeps beside a file.
    ///
    /// # Errors
    /// When a key has another type than it should.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        Ok(Self {
            sampling: sampling(metadata)?,
            seed: metadata.u32_opt(ollama::SEED)?,
            max_tokens: metadata.u32_opt(ollama::MAX_TOKENS)?,
            stop: metadata.string_array_opt(ollama::STOP)?.unwrap_or_default().to_vec(),
            system: metadata.str_opt(ollama::SYSTEM)?.map(str::to_owned),
        })
    }
}

fn sampling(metadata: &Metadata) -> Result<Sampler> {
    let defaults = Sampler::default();
    Ok(Sampler {
        temperature: metadata.f32_opt("general.sampling.temp")?.unwrap_or(defaults.temperature),
        top_k: metadata.u32_opt("general.sampling.top_k")?.unwrap_or(defaults.top_k),
        top_p: metadata.f32_opt("general.sampling.top_p")?.unwrap_or(defaults.top_p),
        min_p: metadata.f32_opt("general.sampling.min_p")?.unwrap_or(defaults.min_p),
        repetition_penalty: metadata.f32_opt("general.sampling.penalty_repeat")?.unwrap_or(defaults.repetition_penalty),
        presence_penalty: metadata.f32_opt(ollama::PRESENCE_PENALTY)?.unwrap_or(defaults.presence_penalty),
        frequency_penalty: metadata.f32_opt(ollama::FREQUENCY_PENALTY)?.unwrap_or(defaults.frequency_penalty),
        ..defaults
    })
}

/// The constant parts of a response.
#[derive(Clone, Debug)]
pub struct CompletionShape {
    /// Id of the response.
    pub id: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Model id.
    pub model: String,
}

impl CompletionShape {
    /// A piece of the answer. The first one names the role.
    pub fn chunk(&self, text: &str, first: bool) -> Value {
        let mut delta = Map::new();
        if first {
            delta.insert("role".to_owned(), json!("assistant"));
        }
        delta.insert("content".to_owned(), json!(text));
        self.chunk_of(&Value::Object(delta), None)
    }

    /// The last chunk.
    pub fn last_chunk(&self, reason: FinishReason, timings: &Timings, first_token_ms: f64, include_usage: bool) -> Value {
        let mut chunk = self.chunk_of(&json!({}), Some(reason));
        chunk["timings"] = timings_value(timings, first_token_ms);
        if include_usage {
            chunk["usage"] = usage(timings);
        }
        chunk
    }

    fn chunk_of(&self, delta: &Value, reason: Option<FinishReason>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason.map(reason_name) }],
        })
    }

    /// The whole answer.
    pub fn completion(&self, text: &str, reason: FinishReason, timings: &Timings, first_token_ms: f64) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": reason_name(reason) }],
            "usage": usage(timings),
            "timings": timings_value(timings, first_token_ms),
        })
    }
}

fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(timings: &Timings) -> Value {
    json!({
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.completion_tokens,
        "total_tokens": timings.prompt_tokens + timings.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": timings.cached_tokens },
    })
}

fn timings_value(timings: &Timings, first_token_ms: f64) -> Value {
    let decode = timings.decode.as_secs_f64();
    // The first token belongs to the prefill.
    let decoded = f64::from(timings.completion_tokens.saturating_sub(1));
    json!({
        "queue_ms": timings.queued.as_secs_f64() * 1e3,
        "prefill_ms": timings.prefill.as_secs_f64() * 1e3,
        "first_token_ms": first_token_ms,
        "decode_tokens_per_second": if decode > 0.0 { decoded / decode } else { 0.0 },
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.completion_tokens,
    })
}

fn stop(value: &Value) -> Result<Vec<String>> {
    let strings = match value {
        Value::String(one) => vec![one.clone()],
        _ => array("stop", value)?.iter().map(|v| string("stop", v)).collect::<Result<_>>()?,
    };
    if strings.len() > MAX_STOP_STRINGS || strings.iter().any(String::is_empty) {
        return Err(invalid("stop", &format!("takes up to {MAX_STOP_STRINGS} strings, none empty")));
    }
    Ok(strings)
}

/// Different each time; not for secrets.
fn fresh_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).unwrap_or_default().as_nanos()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mut fields: Value) -> Result<ChatRequest> {
        fields["messages"] = json!([{ "role": "user", "content": "hi" }]);
        ChatRequest::parse(&fields)
    }

    #[test]
    fn chat_request_reads_supported_fields() {
        let request =
            parse(json!({ "stream": true, "max_tokens": 3.0, "stop": "x", "temperature": 0.5, "seed": -1, "n": 1, "user": "me" }));
        let request = request.expect("valid");
        assert!(request.stream);
        assert_eq!((request.max_tokens, request.stop.len()), (Some(3), 1));
        let sampling = request.resolve(&Defaults::default()).sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.seed), (0.5, 1.0, u32::MAX));
    }

    #[test]
    fn chat_request_refuses_unsupported_fields() {
        for (fields, name) in [
            (json!({ "n": 2 }), "UnsupportedField"),
            (json!({ "logprobs": true }), "UnsupportedField"),
            (json!({ "response_format": { "type": "json_object" } }), "UnsupportedField"),
            (json!({ "max_tokens": 0 }), "InvalidRequest"),
            (json!({ "max_tokens": 1.5 }), "InvalidRequest"),
            (json!({ "temperature": "hot" }), "InvalidRequest"),
            (json!({ "top_p": 2 }), "InvalidRequest"),
            (json!({ "stop": [""] }), "InvalidRequest"),
        ] {
            let error = parse(fields.clone()).expect_err("refused");
            assert!(format!("{error:?}").starts_with(name), "{fields}: {error:?}");
        }
        assert!(ChatRequest::parse(&json!({})).is_err());
        assert!(ChatRequest::parse(&json!({ "messages": [] })).is_err());
        let image = json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] });
        assert_eq!(ChatRequest::parse(&image).expect_err("refused").dom_name(), "NotSupportedError");
    }
}
