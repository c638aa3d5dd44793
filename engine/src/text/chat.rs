//! Chat messages to token ids, safe against control tokens in the messages.
//!
//! A chat template writes control tokens (`<|im_end|>`) and message texts into one string. Were that string tokenized as it is, a
//! page or user could end a turn or begin another by typing the control token. Here such text stays text, while ordinary messages
//! get exactly the ids that `apply_chat_template` of `transformers` gives:
//!
//! 1. Every whole control token in a message is marked: a noncharacter that occurs in no message (U+FDD0 to U+FDEF, never valid in
//!    interchanged text) goes behind its first character. The template is rendered, control tokens are recognised (not the marked
//!    ones), the marks are taken out, and the texts between are tokenized as plain text. A message without control tokens is rendered
//!    unchanged.
//! 2. Fragments could still join to a control token in the template's output (`<|im_` in one field, `end|>` in the next, or cut out of
//!    the middle by a `replace`). So where any message has a character that begins a control token, the template is rendered once
//!    more with all of these marked, which leaves only the template's own control tokens. If both renderings have the same
//!    control tokens, the first is used, otherwise the second.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::template::Options;
use super::{ChatTemplate, TextError, Tokenizer};

/// Token ids of a conversation: `messages` (a JSON array of `{role, content, …}`) and `tools` rendered by the model's chat template, BOS
/// once if the model wants it. `extra` are further template variables, such as `enable_thinking`. See the module on what control tokens
/// in messages, tools and `extra` become: plain text.
///
/// # Errors
/// [`TextError::Render`] when the template rejects the messages, [`TextError::Encode`], [`TextError::Noncharacters`].
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &Value,
    tools: Option<&Value>,
    add_generation_prompt: bool,
    extra: &Map<String, Value>,
) -> Result<Vec<u32>, TextError> {
    let messages = &template.shape(messages, Options { tools, add_generation_prompt, extra })?.whole()?;
    let parts = [messages, tools.unwrap_or(&Value::Null), &Value::Object(extra.clone())];
    let guard = ('\u{fdd0}'..='\u{fdef}')
        .find(|c| !parts.iter().any(|part| any_string(part, &|s| s.contains(*c))))
        .ok_or(TextError::Noncharacters)?;
    let texts = tokenizer.control_texts();
    let first_characters: BTreeSet<char> = texts.iter().filter_map(|t| t.chars().next()).collect();
    let begins = |rest: &str| rest.starts_with(|c| first_characters.contains(&c));
    let render = |is_marked: &dyn Fn(&str) -> bool| {
        let [messages, tools_, extra] = parts.map(|part| map_strings(part, &|s| mark(s, guard, is_marked)));
        let Value::Object(extra) = extra else { unreachable!("an object is mapped to an object") };
        template.render_as_is(&messages, Options { tools: tools.map(|_| &tools_), add_generation_prompt, extra: &extra })
    };
    let mut text = render(&|rest| begins(rest) && texts.iter().any(|t| rest.starts_with(t.as_str())))?;
    if parts.iter().any(|part| any_string(part, &|s| s.char_indices().any(|(i, _)| begins(&s[i..])))) {
        let strict = render(&begins)?;
        if tokenizer.control_sequence(&text) != tokenizer.control_sequence(&strict) {
            text = strict;
        }
    }
    tokenizer.encode_guarded(&text, guard)
}

/// `text` with `guard` behind every character at which `is_marked` holds for the rest of the text.
fn mark(text: &str, guard: char, is_marked: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.char_indices() {
        out.push(c);
        if is_marked(&text[i..]) {
            out.push(guard);
        }
    }
    out
}

/// `value` with `f` applied to every string and every object key.
fn map_strings(value: &Value, f: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(s) => f(s).into(),
        Value::Array(items) => items.iter().map(|item| map_strings(item, f)).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (f(key), map_strings(item, f))).collect(),
        other => other.clone(),
    }
}

/// Whether `f` holds for any string or object key in `value`.
fn any_string(value: &Value, f: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(s) => f(s),
        Value::Array(items) => items.iter().any(|item| any_string(item, f)),
        Value::Object(map) => map.iter().any(|(key, item)| f(key) || any_string(item, f)),
        _ => false,
    }
}
