//! Chat templates: Jinja as `transformers` renders it, on `minijinja`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value as Json};

use super::{TextError, python};
use crate::formats::Metadata;

/// Fuel of one rendering (minijinja's unit: an instruction or 64 bytes of data). A hostile template ends here; a real one on a chat of
/// a million characters takes less than a tenth.
const FUEL: u64 = 4_000_000;
/// Name of the template for chats without tools, and of the one for chats with tools where the file has one.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat template of a model.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and the other token texts templates refer to.
    tokens: Map<String, Json>,
}

/// Fields that hold a message's reasoning; the first is the one that most templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl ChatTemplate {
    /// The template in `tokenizer.chat_template` (and `tokenizer.chat_template.tool_use`, used when there are tools).
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`], [`TextError::Template`] when it does not parse.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let source = metadata.str_opt("tokenizer.chat_template")?.ok_or(TextError::NoChatTemplate)?;
        let vocabulary = metadata.string_array_opt("tokenizer.ggml.tokens")?.unwrap_or_default();
        let mut tokens = Map::new();
        for (name, key) in [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")] {
            let id = metadata.u32_opt(&format!("tokenizer.ggml.{key}_token_id"))?;
            if let Some(text) = id.and_then(|id| vocabulary.get(id as usize)) {
                tokens.insert(name.to_owned(), text.as_str().into());
            }
        }
        let mut template = Self::new(source, tokens)?;
        if let Some(source) = metadata.str_opt("tokenizer.chat_template.tool_use")? {
            template.add(TOOL_USE, source)?;
        }
        Ok(template)
    }

    /// A template from its source and the token texts it may name (`bos_token`, `eos_token`, ...).
    ///
    /// # Errors
    /// [`TextError::Template`] when it does not parse.
    pub fn new(source: &str, tokens: Map<String, Json>) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| TextError::Template { message: describe(&e) })?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(100);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(|out, _, value| {
            let text = match value.kind() {
                ValueKind::Undefined => return Ok(()),
                ValueKind::Bool | ValueKind::None | ValueKind::Number | ValueKind::Seq | ValueKind::Map => python::repr(&to_json(value)?),
                _ => value.to_string(),
            };
            out.write_str(&text).map_err(Error::from)
        });
        environment.add_filter("tojson", to_json_filter);
        // As in Python: a string can be iterated, `None` cannot.
        environment.add_test("iterable", |value: &Value| match value.kind() {
            ValueKind::None | ValueKind::Bool | ValueKind::Number => false,
            ValueKind::String | ValueKind::Undefined => true,
            _ => value.try_iter().is_ok(),
        });
        environment.add_function("raise_exception", |message: String| Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message)));
        let mut template = Self { environment, tokens };
        template.set_clock(utc);
        template.add(DEFAULT, source)?;
        Ok(template)
    }

    /// Sets the clock of `strftime_now`: seconds since 1970-01-01 00:00 in the user's time zone. The default is UTC.
    pub fn set_clock(&mut self, clock: fn() -> u64) {
        self.environment.add_function("strftime_now", move |format: &str| python::strftime(format, clock()));
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<(), TextError> {
        let source = without_generation_tags(source);
        self.environment.add_template_owned(name, source).map_err(|e| TextError::Template { message: describe(&e) })
    }

    /// The prompt text of `messages` (a JSON array of `{role, content, …}`) and `tools`. `extra` are further variables, such as
    /// `enable_thinking`. Control tokens in messages are not neutralised here: see [`encode_chat`](super::encode_chat).
    ///
    /// # Errors
    /// [`TextError::Render`], with the template's own message where it raised the error.
    pub fn render(
        &self,
        messages: &Json,
        tools: Option<&Json>,
        add_generation_prompt: bool,
        extra: &Map<String, Json>,
    ) -> Result<String, TextError> {
        let tools = tools.filter(|t| t.as_array().is_none_or(|t| !t.is_empty()));
        let mut context = self.tokens.clone();
        context.insert("documents".to_owned(), Json::Null);
        context.extend(extra.clone());
        context.insert("messages".to_owned(), with_reasoning(messages));
        context.insert("tools".to_owned(), tools.cloned().unwrap_or_default());
        context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        let template = match tools {
            Some(_) => self.environment.get_template(TOOL_USE).or_else(|_| self.environment.get_template(DEFAULT)),
            None => self.environment.get_template(DEFAULT),
        };
        template.and_then(|t| t.render(Serde(&context))).map_err(|e| TextError::Render { message: describe(&e) })
    }
}

/// Seconds since 1970.
fn utc() -> u64 {
    web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The error's own words and its line.
fn describe(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return "it does not come to an end".to_owned();
    }
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// `messages` with reasoning under all the names by which `transformers` passes it on.
fn with_reasoning(messages: &Json) -> Json {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
        let reasoning = REASONING.iter().find_map(|name| message.get(*name).filter(|value| !value.is_null()).cloned());
        if let Some(reasoning) = reasoning {
            if !message.contains_key("thinking") {
                message.shift_insert(0, "thinking".to_owned(), reasoning.clone());
            }
            message.insert("reasoning_content".to_owned(), reasoning);
        }
    }
    messages
}

/// `transformers` marks assistant text with `{% generation %}` for training; for rendering the tags mean nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start + 2..].find("%}").map(|n| start + 2 + n) else {
            break;
        };
        let tag = &rest[start + 2..end];
        let replaced = match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => tag.replacen("generation", " if true ", 1),
            "endgeneration" => tag.replacen("endgeneration", " endif ", 1),
            _ => tag.to_owned(),
        };
        out.push_str(&rest[..start + 2]);
        out.push_str(&replaced);
        rest = &rest[end..];
    }
    out + rest
}

fn to_json(value: &Value) -> Result<Json, Error> {
    serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// `tojson` as in `transformers`: Python's `json.dumps(value, ensure_ascii=False)`, nothing escaped for HTML, key order kept.
#[allow(clippy::needless_pass_by_value, reason = "the signature minijinja calls filters by")]
fn to_json_filter(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value"));
    }
    let indent: Option<usize> = kwargs.get("indent")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
    let mut style = python::JsonStyle::new(indent);
    style.sort_keys = sort_keys.unwrap_or(false);
    style.ensure_ascii = ensure_ascii.unwrap_or(false);
    if let Some([item, key]) = separators.as_deref() {
        style.item_separator.clone_from(item);
        style.key_separator.clone_from(key);
    }
    Ok(python::dumps(&to_json(value)?, &style))
}
