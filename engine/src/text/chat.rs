//! Chat messages to token ids, safe against control tokens in the messages.
//!
//! A chat template writes control tokens (`<|im_end|>`) and message texts into one string. Were that string tokenized as it is, a
//! page or user could end a turn or begin another by typing the control token. Here such text stays text, while ordinary messages
//! get exactly the ids that `apply_chat_template` of `transformers` gives:
//!
//! Control tokens are those by their type, and what stands in the template or in the list of end tokens, whatever its type. Only what an
//! assistant said may have markup of the model that is no control token by its type (`<think>`, `<tool_call>`): it is the model's own.
//!
//! 1. Every whole control token in a message is marked: a noncharacter that occurs in no message (U+FDD0 to U+FDEF, never valid in
//!    interchanged text) goes behind its first character. The template is rendered, control tokens are recognised (not the marked
//!    ones), the marks are taken out, and the texts between are tokenized as plain text. A message without control tokens is rendered
//!    unchanged.
//! 2. Fragments could still join to a control token in the template's output (`<|im_` in one field, `end|>` in the next, or cut out of
//!    the middle by a `replace`). So where any message has a character that begins a control token, the template is rendered once
//!    more with all of these marked, which leaves only the template's own control tokens. If both renderings have the same
//!    control tokens, the first is used, otherwise the second.

use serde_json::Value;

use super::pace::at_once;
use super::template::Options;
use super::{ChatTemplate, Pace, TextError, Tokenizer};

/// Token ids of a conversation: `messages` (a JSON array of `{role, content, …}`) rendered by the model's chat template, BOS once if the
/// model wants it. Control tokens in messages and options become plain text: see the module.
///
/// # Errors
/// [`TextError::Render`] when the template rejects the messages, [`TextError::Encode`], [`TextError::Noncharacters`].
pub fn encode_chat(tokenizer: &Tokenizer, template: &ChatTemplate, messages: &Value, options: Options<'_>) -> Result<Vec<u32>, TextError> {
    at_once(async |pace| encode_chat_paced(tokenizer, template, messages, options, pace).await)
}

/// As [`encode_chat`], in slices; only the template is rendered in one go.
///
/// # Errors
/// As [`encode_chat`], and [`TextError::TooLong`].
pub async fn encode_chat_paced(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &Value,
    options: Options<'_>,
    pace: &mut Pace<'_>,
) -> Result<Vec<u32>, TextError> {
    let messages = &template.shape(messages, options)?.whole()?;
    let parts = [messages, options.tools.unwrap_or(&Value::Null), &Value::Object(options.extra.cloned().unwrap_or_default())];
    let guard = ('\u{fdd0}'..='\u{fdef}')
        .find(|c| !parts.iter().any(|part| any_string(part, &|s| s.contains(*c))))
        .ok_or(TextError::Noncharacters)?;
    let control = tokenizer.chat_control();
    let render = |strictly: bool| {
        let marked = |text: &str, own: bool| mark(text, guard, &places(tokenizer, text, strictly, own));
        let [messages, tools, extra] = parts.map(|part| map_strings(part, false, &marked));
        let Value::Object(extra) = extra else { unreachable!("an object is mapped to an object") };
        template.render_as_is(&messages, Options { tools: options.tools.map(|_| &tools), extra: Some(&extra), ..options })
    };
    let mut text = render(false)?;
    if parts.iter().any(|part| any_string(part, &|s| s.contains(|c| control.begins_with(c)))) {
        let strict = render(true)?;
        let tokens = |text: &str| control.find(text).map(|(.., id)| id).collect::<Vec<_>>();
        if tokens(&text) != tokens(&strict) {
            text = strict;
        }
    }
    // Some passes over the text, quick but not nothing.
    pace.work(text.len() / 8).await;
    tokenizer.encode_guarded(&text, guard, pace).await
}

/// Where `text` is marked: at every control token, or strictly at every character that begins one. What is an assistant's `own` may
/// have markup.
fn places(tokenizer: &Tokenizer, text: &str, strictly: bool, own: bool) -> Vec<usize> {
    let control = tokenizer.chat_control();
    let (markup, whole): (Vec<_>, Vec<_>) = control.starts(text).partition(|(_, id)| own && tokenizer.is_markup(*id));
    if !strictly {
        return whole.into_iter().map(|(at, _)| at).collect();
    }
    let begins = text.char_indices().filter(|(_, c)| control.begins_with(*c)).map(|(at, _)| at);
    let mut markup = markup.into_iter().map(|(at, _)| at).peekable();
    begins.filter(|at| markup.next_if_eq(at).is_none()).collect()
}

/// `text` with `guard` behind the characters at `places`, which ascend.
fn mark(text: &str, guard: char, places: &[usize]) -> String {
    let mut out = String::with_capacity(text.len() + places.len() * guard.len_utf8());
    let mut done = 0;
    for &at in places {
        let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
        out.push_str(&text[done..end]);
        out.push(guard);
        done = end;
    }
    out + &text[done..]
}

/// `value` with `f` applied to every string and every object key. `own`: whether it is within what an assistant said.
fn map_strings(value: &Value, own: bool, f: &dyn Fn(&str, bool) -> String) -> Value {
    match value {
        Value::String(s) => f(s, own).into(),
        Value::Array(items) => items.iter().map(|item| map_strings(item, own, f)).collect(),
        Value::Object(map) => {
            let own = own || map.get("role").is_some_and(|role| role == "assistant");
            map.iter().map(|(key, item)| (f(key, own), map_strings(item, own, f))).collect()
        }
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
