//! The shapes in which templates take a conversation, and whether a prompt has all of it.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// What ends an assistant's reasoning within its content. Templates take out what stands before it.
const REASONING_ENDS: [&str; 2] = ["</think>", "[/THINK]"];

/// What users write to switch reasoning on and off, and `SmolLM3`'s own system message off. Templates take it out, too.
const SWITCHES: [&str; 4] = ["/no_think", "/nothink", "/think", "/system_override"];

/// Bytes that are looked through for the texts of a conversation: this only tells of texts that are left out, and must not take long.
/// Texts behind that count as there.
const MAX_SEARCH: usize = 256 << 20;

/// How the content of messages is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    AsSent,
    /// One string: the texts of parts joined, `null` empty.
    Joined,
    /// `null` beside tool calls, where it is empty.
    Null,
    /// A list of text parts.
    Parts,
}

/// A shape of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    content: Content,
    /// Arguments of tool calls are objects where they can be.
    parsed: bool,
    /// System messages are part of the message behind them.
    without_system: bool,
    /// Messages of one role in a row are one.
    alternating: bool,
}

impl Shape {
    /// All shapes: the one that `transformers` would render first, and what changes most last.
    pub(super) const ALL: [Self; 32] = {
        let mut all = [Self { content: Content::AsSent, parsed: true, without_system: false, alternating: false }; 32];
        let mut i = 0;
        while i < all.len() {
            all[i] = Self {
                content: match i % 4 {
                    0 => Content::AsSent,
                    1 => Content::Joined,
                    2 => Content::Null,
                    _ => Content::Parts,
                },
                parsed: i / 4 % 2 == 0,
                without_system: i / 8 % 2 == 1,
                alternating: i / 16 == 1,
            };
            i += 1;
        }
        all
    };

    /// `messages` in this shape. What is no message stays as it is.
    pub(super) fn of(self, messages: &Value) -> Value {
        let Some(list) = messages.as_array() else { return messages.clone() };
        let mut shaped: Vec<Value> = Vec::with_capacity(list.len());
        for message in list {
            let Some(mut message) = message.as_object().cloned() else { return messages.clone() };
            self.shape_content(&mut message);
            for arguments in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten().filter_map(arguments) {
                self.shape_arguments(arguments);
            }
            if self.without_system && message.get("role").is_some_and(|role| role == "developer") {
                message.insert("role".to_owned(), "system".into());
            }
            shaped.push(message.into());
        }
        if self.without_system {
            shaped = merge(shaped, |first, next| role(first) == "system" && matches!(role(next), "user" | "system"));
            for message in &mut shaped {
                if role(message) == "system" {
                    message["role"] = "user".into();
                }
            }
        }
        if self.alternating {
            shaped = merge(shaped, |first, next| {
                role(first) == role(next) && matches!(role(first), "user" | "assistant") && first.get("tool_calls").is_none()
            });
        }
        shaped.into()
    }

    /// An object for its JSON, or JSON for an object.
    fn shape_arguments(self, arguments: &mut Value) {
        match arguments {
            Value::String(text) if self.parsed => {
                if let Ok(object @ Value::Object(_)) = serde_json::from_str(text) {
                    *arguments = object;
                }
            }
            Value::Object(_) if !self.parsed => *arguments = arguments.to_string().into(),
            _ => {}
        }
    }

    fn shape_content(self, message: &mut Map<String, Value>) {
        let content = match (self.content, message.get("content")) {
            (Content::Joined, Some(Value::Array(parts))) => joined(parts).map(Value::from),
            (Content::Joined, None | Some(Value::Null)) => Some("".into()),
            (Content::Null, Some(Value::String(text))) if text.is_empty() && message.contains_key("tool_calls") => Some(Value::Null),
            (Content::Parts, Some(Value::String(text))) => Some(serde_json::json!([{ "type": "text", "text": text }])),
            _ => None,
        };
        if let Some(content) = content {
            message.insert("content".to_owned(), content);
        }
    }
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

fn joined(parts: &[Value]) -> Option<String> {
    parts.iter().map(|part| part.get("text").and_then(Value::as_str)).collect()
}

/// The arguments of a tool call.
fn arguments(call: &mut Value) -> Option<&mut Value> {
    let function = if call.get("function").is_some() { &mut call["function"] } else { call };
    function.get_mut("arguments")
}

/// Joins neighbours of which `joins` says so: the second with the first one's content before its own, on a line of its own.
fn merge(messages: Vec<Value>, joins: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::with_capacity(messages.len());
    for mut message in messages {
        let last = out.last_mut().filter(|last| joins(last, &message));
        if let Some(content) = last.and_then(|last| both(last.get_mut("content")?, message.get_mut("content")?)) {
            message["content"] = content;
            out.pop();
        }
        out.push(message);
    }
    out
}

/// Takes both: what came before is moved, not copied, however much it is.
fn both(first: &mut Value, second: &mut Value) -> Option<Value> {
    match (&mut *first, &mut *second) {
        (Value::String(first), Value::String(second)) => {
            first.push('\n');
            first.push_str(second);
        }
        (Value::Array(first), Value::Array(second)) => first.append(second),
        _ => return None,
    }
    Some(first.take())
}

/// About how many bytes a value has.
pub(super) fn size(value: &Value) -> u64 {
    let own = 8 + value.as_str().map_or(0, str::len) as u64;
    match value {
        Value::Array(items) => own + items.iter().map(size).sum::<u64>(),
        Value::Object(map) => own + map.iter().map(|(key, item)| key.len() as u64 + size(item)).sum::<u64>(),
        _ => own,
    }
}

/// How a template that takes no lists shows a part of text.
const SHOWN_PARTS: [&str; 2] = ["{'type':'text','text':", "{\"type\":\"text\",\"text\":"];

/// Texts of a conversation, each with where it stands.
pub(super) struct Texts<'a> {
    texts: Vec<(String, &'a str)>,
    /// Where the first content in parts stands.
    in_parts: Option<String>,
}

/// The texts that a prompt must have: contents, and names and arguments of tool calls.
///
/// What templates leave out on purpose is none of them: reasoning, ids, types, and names of roles. Contents count `with_content` only.
pub(super) fn texts(messages: &Value, with_content: bool) -> Texts<'_> {
    let mut found = Texts { texts: Vec::new(), in_parts: None };
    for (i, message) in messages.as_array().into_iter().flatten().enumerate() {
        let at = format!("messages[{i}]");
        let from = found.texts.len();
        match &message["content"] {
            _ if !with_content => {}
            Value::Array(parts) => {
                found.in_parts.get_or_insert_with(|| format!("{at}.content"));
                for part in parts {
                    found.all(&part["text"], &format!("{at}.content"));
                }
            }
            content => found.all(content, &format!("{at}.content")),
        }
        if role(message) == "assistant" {
            for (_, text) in &mut found.texts[from..] {
                let behind = REASONING_ENDS.iter().filter_map(|end| text.rsplit_once(end)).map(|(_, behind)| behind);
                *text = behind.min_by_key(|behind| behind.len()).unwrap_or(text);
            }
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = call.get("function").unwrap_or(call);
            found.all(&function["name"], &format!("{at}.tool_calls"));
            found.all(&function["arguments"], &format!("{at}.tool_calls"));
        }
    }
    found
}

/// The names of tools, which a prompt must have, too.
pub(super) fn tool_names(tools: &Value) -> Texts<'_> {
    let mut found = Texts { texts: Vec::new(), in_parts: None };
    for (i, tool) in tools.as_array().into_iter().flatten().enumerate() {
        found.all(&tool.get("function").unwrap_or(tool)["name"], &format!("tools[{i}]"));
    }
    found
}

impl<'a> Texts<'a> {
    /// Every string and key in `value`.
    fn all(&mut self, value: &'a Value, at: &str) {
        match value {
            Value::String(text) => self.texts.push((at.to_owned(), text)),
            Value::Array(items) => items.iter().for_each(|item| self.all(item, at)),
            Value::Object(map) => {
                for (key, item) in map {
                    self.texts.push((at.to_owned(), key));
                    self.all(item, at);
                }
            }
            _ => {}
        }
    }

    /// Where a text stands that `prompt` lacks. White space does not count, and texts may be written as JSON, Python or HTML has them.
    pub(super) fn missing(&self, prompt: &str) -> Option<String> {
        let prompt = dense(prompt);
        if self.in_parts.is_some() && SHOWN_PARTS.iter().any(|shown| prompt.contains(shown)) {
            return self.in_parts.clone();
        }
        let (mut from, mut left) = (0, MAX_SEARCH);
        let mut seen = HashSet::new();
        for (at, text) in &self.texts {
            if left == 0 || !seen.insert(*text) {
                continue;
            }
            let mut found = |text: &str| {
                let text = dense(text);
                // Most texts come in order, so one pass finds them.
                let at = prompt[from..].find(&text).map(|at| at + from).or_else(|| prompt[..from].find(&text));
                let looked = at.map_or(prompt.len(), |at| if at >= from { at - from } else { prompt.len() - from + at });
                left = left.saturating_sub(looked + text.len());
                from = at.map_or(from, |at| (at + text.len()).max(from));
                at.is_some()
            };
            if !found(text) && !written(text).iter().any(|text| found(text)) {
                return Some(at.clone());
            }
        }
        None
    }
}

/// `text` without white space, and without the switches that templates take out of it.
fn dense(text: &str) -> String {
    let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    SWITCHES.iter().fold(dense, |text, switch| if text.contains(switch) { text.replace(switch, "") } else { text })
}

/// `text` as it stands in JSON, in JSON of ASCII, in JSON within JSON, in Python and in HTML, without quotes around it.
fn written(text: &str) -> [String; 5] {
    let json = serde_json::to_string(text).unwrap_or_default();
    let json = &json[1..json.len() - 1];
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            ascii.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    let twice = json.replace('\\', "\\\\").replace('"', "\\\"");
    let python = json.replace("\\\"", "\"");
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;");
    [json.to_owned(), ascii, twice, python, html]
}
