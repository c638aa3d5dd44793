//! Fields of a request of which some values ask for what the engine does anyway: those are taken, and every other value is
//! refused by the field's own rule.

use serde_json::{Map, Value, json};

use crate::error::{EngineError, Result};

/// The whole numbers that a JavaScript number holds exactly.
const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// Checks a field that changes nothing.
///
/// # Errors
/// `InvalidRequest` for a value that makes no sense, `UnsupportedField` for one that asks for something, and for unknown fields.
pub(super) fn check(name: &str, value: &Value) -> Result<()> {
    const LEAVE: &str = "leave the field out";
    match name {
        // Bookkeeping of a service: nothing here depends on it.
        "user" | "safety_identifier" | "prompt_cache_key" | "prompt_cache_retention" => string(name, value).map(drop),
        // A prediction is a guess at the answer, which may only make it faster.
        "metadata" | "prompt_cache_options" | "prediction" => object(name, value).map(drop),
        "store" => boolean(name, value).map(drop),
        "service_tier" => choice(name, value, &["auto", "default"], &["flex", "priority", "scale"], "this computer has one tier"),
        "verbosity" => choice(name, value, &["medium"], &["low", "high"], "ask for it in the system message"),
        "function_call" if value.is_object() => Err(unsupported(name, "use tools")),
        "function_call" => choice(name, value, &["auto", "none"], &[], "use tools"),
        "functions" => only(name, array(name, value)?.is_empty(), "use tools"),
        "modalities" => modalities(value),
        "response_format" => {
            let kind = value.get("type").ok_or_else(|| invalid(name, "must be an object with a type"))?;
            choice(name, kind, &["text"], &["json_object", "json_schema"], "ask for JSON in a message")
        }
        "top_logprobs" => only(name, integer(name, value, 0, 20)? == 0, LEAVE),
        "n" | "best_of" => only(name, integer(name, value, 1, 128)? == 1, "ask once for each answer"),
        "logit_bias" => logit_bias(value),
        // From here on also what other local servers take.
        "min_tokens" => only(name, integer(name, value, 0, MAX_SAFE_INTEGER)? == 0, LEAVE),
        "chat_template_kwargs" => only(name, object(name, value)?.is_empty(), LEAVE),
        "logprobs" | "continue_final_message" | "echo" | "ignore_eos" | "return_progress" => only(name, !boolean(name, value)?, LEAVE),
        "add_generation_prompt" | "skip_special_tokens" => only(name, boolean(name, value)?, LEAVE),
        _ => Err(unsupported(name, LEAVE)),
    }
}

/// Whether tools are shown to the model.
///
/// # Errors
/// As [`check`].
pub(super) fn shows_tools(value: &Value) -> Result<bool> {
    let name = "tool_choice";
    if value.is_object() {
        return Err(unsupported(name, "the model chooses its tools itself"));
    }
    choice(name, value, &["auto", "none"], &["required"], "the model chooses its tools itself")?;
    Ok(*value == json!("auto"))
}

/// Options of a stream: whether its last chunk has the token counts.
///
/// # Errors
/// As [`check`].
pub(super) fn stream_options(value: &Value) -> Result<bool> {
    let mut include_usage = false;
    for (name, value) in object("stream_options", value)?.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("stream_options.{name}");
        match name.as_str() {
            "include_usage" => include_usage = boolean(&field, value)?,
            // It hides lengths on a network, and there is none.
            "include_obfuscation" => only(&field, !boolean(&field, value)?, "nothing leaves this computer")?,
            _ => return Err(unsupported(&field, "leave the field out")),
        }
    }
    Ok(include_usage)
}

/// The most new tokens; -1 is no limit, as in local servers: what the context holds, whatever the model's own limit is.
///
/// # Errors
/// `InvalidRequest` for anything else than a whole number from 1, or -1.
pub(super) fn token_limit(name: &str, value: &Value) -> Result<u32> {
    match whole(value) {
        Some(-1) => Ok(u32::MAX),
        Some(limit) if limit >= 1 => Ok(u32::try_from(limit).unwrap_or(u32::MAX)),
        _ => Err(invalid(name, "must be a whole number from 1, or -1 for no limit")),
    }
}

/// How many of the likeliest tokens are sampled; 0: all, as is -1 in some local servers.
///
/// # Errors
/// `InvalidRequest` for anything else than a whole number from -1.
pub(super) fn top_k(name: &str, value: &Value) -> Result<u32> {
    let count = whole(value).filter(|count| *count >= -1);
    let count = count.ok_or_else(|| invalid(name, "must be a whole number from 1, or 0 or -1 for all tokens"))?;
    Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

/// A seed. The sampler's has 32 bits: those above are mixed in.
///
/// # Errors
/// `InvalidRequest` for what is no whole number, or one that JavaScript does not hold exactly.
pub(super) fn seed(name: &str, value: &Value) -> Result<u32> {
    let seed = integer(name, value, -MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)?;
    Ok(seed as u32 ^ (seed.unsigned_abs() >> 32) as u32)
}

fn modalities(value: &Value) -> Result<()> {
    let name = "modalities";
    let kinds = array(name, value)?;
    if kinds.is_empty() {
        return Err(invalid(name, "must name text"));
    }
    kinds.iter().try_for_each(|kind| choice(name, kind, &["text"], &["audio", "image"], "answers are text"))
}

fn logit_bias(value: &Value) -> Result<()> {
    let name = "logit_bias";
    let biases = object(name, value)?.iter().map(|(token, bias)| number(&format!("{name}.{token}"), bias, -100.0, 100.0));
    let biases = biases.collect::<Result<Vec<_>>>()?;
    only(name, biases.iter().all(|bias| *bias == 0.0), "leave the field out")
}

/// Refuses a value that asks for something.
fn only(name: &str, idle: bool, hint: &str) -> Result<()> {
    if idle { Ok(()) } else { Err(unsupported(name, hint)) }
}

/// One word of several: `idle` ones change nothing, `others` make sense and are not supported.
fn choice(name: &str, value: &Value, idle: &[&str], others: &[&str], hint: &str) -> Result<()> {
    let word = value.as_str();
    let is_one = |words: &[&str]| word.is_some_and(|word| words.contains(&word));
    match (is_one(idle), is_one(others)) {
        (true, _) => Ok(()),
        (_, true) => Err(unsupported(name, hint)),
        _ => Err(invalid(name, &format!("must be one of {}", [idle, others].concat().join(", ")))),
    }
}

pub(super) fn string(field: &str, value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| invalid(field, "must be a string"))
}

pub(super) fn boolean(field: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| invalid(field, "must be true or false"))
}

pub(super) fn array<'a>(field: &str, value: &'a Value) -> Result<&'a Vec<Value>> {
    value.as_array().ok_or_else(|| invalid(field, "must be an array"))
}

fn object<'a>(field: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| invalid(field, "must be an object"))
}

/// A number between two, both included.
pub(super) fn number(field: &str, value: &Value, minimum: f64, maximum: f64) -> Result<f32> {
    let inside = value.as_f64().filter(|v| (minimum..=maximum).contains(v));
    inside.map(|v| v as f32).ok_or_else(|| invalid(field, &format!("must be a number from {minimum} to {maximum}")))
}

/// A whole number between two, both included.
fn integer(field: &str, value: &Value, minimum: i64, maximum: i64) -> Result<i64> {
    let inside = whole(value).filter(|v| (minimum..=maximum).contains(v));
    inside.ok_or_else(|| invalid(field, &format!("must be a whole number from {minimum} to {maximum}")))
}

/// A whole number; one beyond what 64 bits hold is the next that they do. JavaScript has no integers: 3.0 is 3.
fn whole(value: &Value) -> Option<i64> {
    value.as_f64().filter(|v| v.fract() == 0.0).map(|v| v as i64)
}

pub(super) fn invalid(field: &str, problem: &str) -> EngineError {
    EngineError::InvalidRequest { field: field.to_owned(), problem: problem.to_owned() }
}

pub(super) fn unsupported(field: &str, hint: &str) -> EngineError {
    EngineError::UnsupportedField { field: field.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatRequest, Defaults};
    use super::*;
    use crate::kernels::Sampler;

    fn parse(mut fields: Value) -> Result<ChatRequest> {
        fields["messages"] = json!([{ "role": "user", "content": "hi" }]);
        ChatRequest::parse(&fields)
    }

    fn tools(mut fields: Value) -> Result<ChatRequest> {
        fields["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
        parse(fields)
    }

    #[test]
    fn neutral_fields_are_accepted() {
        let asked = |request: &ChatRequest| {
            let Sampler { seed: _, temperature, top_k, top_p, .. } = request.resolve(&Defaults::default()).sampling;
            (request.tools.clone(), request.stream, request.include_usage, request.max_tokens, temperature, top_k, top_p)
        };
        let nothing = asked(&parse(json!({})).expect("valid"));
        for fields in [
            json!({ "tool_choice": "none" }),
            json!({ "tool_choice": "auto", "parallel_tool_calls": true, "tools": [] }),
            json!({ "function_call": "none", "functions": [] }),
            json!({ "logit_bias": {}, "logprobs": false, "top_logprobs": 0, "n": 1.0 }),
            json!({ "logit_bias": { "17": 0 } }),
            json!({ "service_tier": "auto", "modalities": ["text"], "verbosity": "medium", "response_format": { "type": "text" } }),
            json!({ "service_tier": "default", "prediction": { "type": "content", "content": "hello" } }),
            json!({ "store": true, "metadata": { "a": "b" }, "user": "me", "safety_identifier": "x" }),
            json!({ "prompt_cache_key": "x", "prompt_cache_retention": "24h", "prompt_cache_options": {} }),
            json!({ "stream_options": { "include_obfuscation": false, "include_usage": false } }),
            json!({ "stream_options": {} }),
            json!({ "max_tokens": null, "top_k": null, "reasoning_effort": null, "audio": null, "unknown": null }),
            json!({ "echo": false, "ignore_eos": false, "min_tokens": 0, "continue_final_message": false, "add_generation_prompt": true }),
            json!({ "chat_template_kwargs": {}, "best_of": 1, "return_progress": false, "skip_special_tokens": true }),
        ] {
            let request = parse(fields.clone()).unwrap_or_else(|error| panic!("{fields}: {error}"));
            assert_eq!(asked(&request), nothing, "{fields}");
        }
        assert!(!parse(json!({ "parallel_tool_calls": false })).expect("there are no tools").stream);
    }

    #[test]
    fn unsupported_fields_are_refused_by_name() {
        for (fields, field, rule) in [
            (json!({ "tool_choice": "required" }), "tool_choice", "is not supported"),
            (json!({ "tool_choice": { "type": "function", "function": { "name": "f" } } }), "tool_choice", "is not supported"),
            (json!({ "tool_choice": "any" }), "tool_choice", "must be one of auto, none, required"),
            (json!({ "parallel_tool_calls": "no" }), "parallel_tool_calls", "must be true or false"),
            (json!({ "functions": [{ "name": "f" }] }), "functions", "is not supported: use tools"),
            (json!({ "function_call": { "name": "f" } }), "function_call", "is not supported: use tools"),
            (json!({ "logit_bias": { "17": -100 } }), "logit_bias", "is not supported"),
            (json!({ "logit_bias": { "17": 101 } }), "logit_bias.17", "must be a number from -100 to 100"),
            (json!({ "logit_bias": [] }), "logit_bias", "must be an object"),
            (json!({ "logprobs": true }), "logprobs", "is not supported"),
            (json!({ "top_logprobs": 5 }), "top_logprobs", "is not supported"),
            (json!({ "top_logprobs": 21 }), "top_logprobs", "must be a whole number from 0 to 20"),
            (json!({ "n": 2 }), "n", "is not supported"),
            (json!({ "n": 0 }), "n", "must be a whole number from 1 to 128"),
            (json!({ "service_tier": "priority" }), "service_tier", "is not supported"),
            (json!({ "service_tier": "best" }), "service_tier", "must be one of auto, default, flex, priority, scale"),
            (json!({ "modalities": ["text", "audio"] }), "modalities", "is not supported"),
            (json!({ "modalities": [] }), "modalities", "must name text"),
            (json!({ "modalities": "text" }), "modalities", "must be an array"),
            (json!({ "response_format": { "type": "json_schema" } }), "response_format", "is not supported"),
            (json!({ "response_format": "text" }), "response_format", "must be an object with a type"),
            (json!({ "verbosity": "low" }), "verbosity", "is not supported"),
            (json!({ "reasoning_effort": "low" }), "reasoning_effort", "is not supported"),
            (json!({ "audio": { "voice": "alloy" } }), "audio", "is not supported"),
            (json!({ "web_search_options": {} }), "web_search_options", "is not supported"),
            (json!({ "stream_options": { "include_obfuscation": true } }), "stream_options.include_obfuscation", "is not supported"),
            (json!({ "stream_options": { "else": 1 } }), "stream_options.else", "is not supported"),
            (json!({ "stream_options": true }), "stream_options", "must be an object"),
            (json!({ "user": 5 }), "user", "must be a string"),
            (json!({ "store": "yes" }), "store", "must be true or false"),
            (json!({ "metadata": "x" }), "metadata", "must be an object"),
            (json!({ "echo": true }), "echo", "is not supported"),
            (json!({ "min_tokens": 3 }), "min_tokens", "is not supported"),
        ] {
            let error = parse(fields.clone()).expect_err("refused");
            let (EngineError::InvalidRequest { field: named, .. } | EngineError::UnsupportedField { field: named, .. }) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(named, field, "{fields}");
            assert!(error.to_string().contains(rule), "{fields}: {error}");
        }
    }

    #[test]
    fn number_fields_follow_stated_ranges() {
        let limit = |value: Value| parse(json!({ "max_tokens": value })).map(|request| request.max_tokens);
        assert_eq!(limit(json!(-1)).expect("no limit"), Some(u32::MAX));
        assert_eq!(limit(json!(3.0)).expect("three"), Some(3));
        assert_eq!(limit(json!(1e20)).expect("more than any context"), Some(u32::MAX));
        let both = parse(json!({ "max_tokens": 7, "max_completion_tokens": 5 })).expect("valid");
        assert_eq!(both.max_tokens, Some(5));
        for value in [json!(0), json!(-2), json!(1.5), json!("5")] {
            let error = limit(value.clone()).expect_err("refused").to_string();
            assert_eq!(error, "max_tokens must be a whole number from 1, or -1 for no limit", "{value}");
        }

        let sampling = |fields: Value| parse(fields).map(|request| request.resolve(&Defaults::default()).sampling);
        let seed = |value: Value| sampling(json!({ "seed": value })).map(|sampling| sampling.seed);
        assert_eq!([seed(json!(7)).expect("7"), seed(json!(7.0)).expect("7")], [7, 7]);
        assert_eq!(seed(json!(-1)).expect("-1"), u32::MAX);
        assert_ne!(seed(json!(1u64 << 40)).expect("2^40"), seed(json!(0)).expect("0"), "upper bits count");
        assert!(seed(json!(9_007_199_254_740_991_i64)).is_ok());
        for value in [json!(9_007_199_254_740_992_i64), json!(1e300), json!(0.5), json!(u64::MAX)] {
            let error = seed(value.clone()).expect_err("refused").to_string();
            assert_eq!(error, "seed must be a whole number from -9007199254740991 to 9007199254740991", "{value}");
        }

        let top_k = |value: Value| sampling(json!({ "top_k": value })).map(|sampling| sampling.top_k);
        assert_eq!([top_k(json!(-1)).expect("all"), top_k(json!(0)).expect("all"), top_k(json!(40)).expect("40")], [0, 0, 40]);
        assert_eq!(top_k(json!(1e12)).expect("more than any vocabulary"), u32::MAX);
        for value in [json!(1.5), json!(-2)] {
            let error = top_k(value.clone()).expect_err("refused").to_string();
            assert_eq!(error, "top_k must be a whole number from 1, or 0 or -1 for all tokens", "{value}");
        }
    }

    #[test]
    fn tool_choice_none_hides_tools() {
        assert!(tools(json!({ "tool_choice": "auto", "parallel_tool_calls": true })).expect("valid").tools.is_some());
        assert!(tools(json!({ "tool_choice": "none", "parallel_tool_calls": false })).expect("valid").tools.is_none());
        let error = tools(json!({ "parallel_tool_calls": false })).expect_err("it cannot be held to");
        assert!(error.to_string().starts_with("parallel_tool_calls is not supported"), "{error}");
    }
}
