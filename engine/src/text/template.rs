//! Chat templates: Jinja as `transformers` renders it.

use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value as Json, json};

use super::conversation::{Shape, size, texts, tool_names};
use super::kinds::Kind;
use super::special::special_tokens;
use super::{TextError, jinja};
use crate::formats::Metadata;

/// Fuel of one rendering (minijinja's unit: an instruction or 64 bytes of data): so much, and so much for every unit of [`size`]. Real
/// templates take a twentieth; a hostile one is stopped within a few milliseconds.
const FUEL: u64 = 100_000;
const FUEL_PER_SIZE: u64 = 4;
/// How deep the data of a conversation may nest.
const MAX_DEPTH: usize = 100;
/// Name of the template for chats without tools, and of the one for chats with tools where the file has one.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// The chat template of a model.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and the other token texts templates refer to.
    tokens: Map<String, Json>,
    /// Whether it shows contents of messages at all; one that does not is no template of chats, and can leave nothing out.
    shows_content: bool,
    /// Whether there is a template for chats with tools, or why it cannot be used.
    tool_use: Result<bool, TextError>,
}

/// A conversation as its template takes it.
#[derive(Clone, Debug)]
pub struct Shaped {
    /// The messages.
    pub messages: Json,
    /// Where a text stands that the template leaves out of the prompt, if it does: a content, the name or arguments of a tool call, or
    /// a tool.
    pub missing: Option<String>,
}

impl Shaped {
    /// The messages, if the prompt has all of their texts.
    ///
    /// # Errors
    /// [`TextError::Render`], which names a text that it has not.
    pub fn whole(self) -> Result<Json, TextError> {
        match self.missing {
            None => Ok(self.messages),
            Some(missing) => Err(TextError::Render { message: format!("it leaves out {missing}") }),
        }
    }
}

/// The variables of a template besides the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Tools, an array.
    pub tools: Option<&'a Json>,
    /// Whether the beginning of an answer follows the messages.
    pub add_generation_prompt: bool,
    /// Further template variables, such as `enable_thinking`.
    pub extra: Option<&'a Map<String, Json>>,
}

impl<'a> Options<'a> {
    /// For the prompt of an answer, with these tools.
    pub fn for_answer(tools: Option<&'a Json>) -> Self {
        Self { tools, add_generation_prompt: true, extra: None }
    }
}

/// Fields that hold a message's reasoning; the first is the one that most templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl ChatTemplate {
    /// The template in `tokenizer.chat_template` (and `tokenizer.chat_template.tool_use`, used when there are tools). One that is empty
    /// is none.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`], [`TextError::Template`] when it does not parse or does not come to an end.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let source = |key: &str| Ok::<_, TextError>(metadata.str_opt(key)?.filter(|source| !source.trim().is_empty()));
        let mut template = Self::new(source("tokenizer.chat_template")?.ok_or(TextError::NoChatTemplate)?, token_texts(metadata)?)?;
        if let Some(source) = source("tokenizer.chat_template.tool_use")? {
            template.tool_use = template.add(TOOL_USE, source).map(|()| true);
        }
        Ok(template)
    }

    /// A template from its source and the token texts it may name (`bos_token`, `eos_token`, ...).
    ///
    /// # Errors
    /// [`TextError::Template`] when it does not parse or does not come to an end.
    pub fn new(source: &str, tokens: Map<String, Json>) -> Result<Self, TextError> {
        let environment = jinja::environment().map_err(|e| TextError::Template { message: describe(&e) })?;
        let mut template = Self { environment, tokens, shows_content: source.contains("content"), tool_use: Ok(false) };
        template.set_clock(utc);
        template.add(DEFAULT, source)?;
        Ok(template)
    }

    /// Sets the clock of `strftime_now`: seconds since 1970-01-01 00:00 in the user's time zone. The default is UTC.
    pub fn set_clock(&mut self, clock: fn() -> u64) {
        jinja::set_clock(&mut self.environment, clock);
    }

    /// Adds a template that, tried on a question, comes to an end. What else it says to that question does not matter.
    fn add(&mut self, name: &'static str, source: &str) -> Result<(), TextError> {
        let source = jinja::translate(source).map_err(|message| TextError::Template { message })?;
        self.environment.add_template_owned(name, source).map_err(|e| TextError::Template { message: describe(&e) })?;
        let question = json!([{ "role": "user", "content": "Hi" }]);
        let tools = json!([{ "type": "function", "function": { "name": "f", "description": "", "parameters": { "type": "object", "properties": {} } } }]);
        let tools = (name == TOOL_USE).then_some(&tools);
        match self.run(name, &question, Options::for_answer(tools)) {
            Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(TextError::Template { message: describe(&error) }),
            _ => Ok(()),
        }
    }

    /// The prompt text of `messages` (a JSON array of `{role, content, …}`), in the [`shape`](Self::shape) that the template takes.
    /// Control tokens in messages are not neutralised here: see [`encode_chat`](super::encode_chat).
    ///
    /// # Errors
    /// [`TextError::Render`], with the template's own message where it raised the error.
    pub fn render(&self, messages: &Json, options: Options<'_>) -> Result<String, TextError> {
        self.render_as_is(&self.shape(messages, options)?.messages, options)
    }

    /// The prompt text of `messages` as they are: what `transformers` renders.
    ///
    /// # Errors
    /// [`TextError::Render`], with the template's own message where it raised the error.
    pub fn render_as_is(&self, messages: &Json, options: Options<'_>) -> Result<String, TextError> {
        self.try_render(messages, options).map_err(|(error, _)| error)
    }

    /// `messages` in the first shape that the template renders with every text of theirs: as they are, but for tool calls' arguments,
    /// which are objects where they are objects in JSON; with content as one string, as `null` or as parts; with arguments as strings;
    /// with the system message as part of the next one; with messages of one role in a row as one, as llama.cpp merges them. If there
    /// is no such shape, the first that it renders at all.
    ///
    /// # Errors
    /// [`TextError::Render`] in the template's words if it refuses every shape.
    pub fn shape(&self, messages: &Json, options: Options<'_>) -> Result<Shaped, TextError> {
        let extra = Json::Object(options.extra.cloned().unwrap_or_default());
        if [messages, &extra, options.tools.unwrap_or(&Json::Null)].iter().any(|part| nests_deeper(part, MAX_DEPTH)) {
            return Err(TextError::Render { message: format!("they nest more than {MAX_DEPTH} deep") });
        }
        let mut tried: Vec<Json> = Vec::new();
        let mut rendered: Option<Shaped> = None;
        let mut refusal = None;
        for shape in Shape::ALL {
            let messages = shape.of(messages);
            if tried.contains(&messages) {
                continue;
            }
            tried.push(messages.clone());
            match self.try_render(&messages, options) {
                Ok(text) => {
                    match texts(&messages, self.shows_content).missing(&text).or_else(|| self.missing_tools(&messages, options, &text)) {
                        None => return Ok(Shaped { messages, missing: None }),
                        missing => drop(rendered.get_or_insert(Shaped { messages, missing })),
                    }
                }
                Err((error, true)) => return Err(error),
                Err((error, false)) => drop(refusal.get_or_insert(error)),
            }
        }
        rendered.ok_or_else(|| refusal.unwrap_or(TextError::Render { message: "they are none".to_owned() }))
    }

    /// What to say of tools that `prompt` lacks. A template that ignores tools gives the same prompt without them.
    fn missing_tools(&self, messages: &Json, options: Options<'_>, prompt: &str) -> Option<String> {
        let tools = options.tools.filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty()))?;
        let ignored = self.try_render(messages, Options { tools: None, ..options }).is_ok_and(|without| without == prompt);
        let missing = if ignored { Some("tools".to_owned()) } else { tool_names(tools).missing(prompt) };
        missing.map(|missing| format!("{missing}: the model has no place for them; choose another model, or send tool_choice \"none\""))
    }

    /// The prompt, or the error and whether it is one of too much work, which no other shape of the messages mends.
    fn try_render(&self, messages: &Json, options: Options<'_>) -> Result<String, (TextError, bool)> {
        let tools = options.tools.filter(|t| t.as_array().is_none_or(|t| !t.is_empty()));
        let name = match (&self.tool_use, tools) {
            (Ok(true), Some(_)) => TOOL_USE,
            (Err(error), Some(_)) => return Err((error.clone(), true)),
            _ => DEFAULT,
        };
        self.run(name, messages, Options { tools, ..options })
            .map_err(|e| (TextError::Render { message: describe(&e) }, e.kind() == ErrorKind::OutOfFuel))
    }

    fn run(&self, name: &str, messages: &Json, options: Options<'_>) -> Result<String, Error> {
        let mut context = self.tokens.clone();
        context.insert("documents".to_owned(), Json::Null);
        context.extend(options.extra.cloned().unwrap_or_default());
        context.insert("messages".to_owned(), with_reasoning(messages));
        context.insert("tools".to_owned(), options.tools.cloned().unwrap_or_default());
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_SIZE * context.values().map(size).sum::<u64>()));
        environment.get_template(name)?.render(Serde(&context))
    }
}

/// The texts of special tokens by the names that templates use.
fn token_texts(metadata: &Metadata) -> Result<Map<String, Json>, TextError> {
    let vocabulary = metadata.string_array_opt("tokenizer.ggml.tokens")?.unwrap_or_default();
    let kind = match metadata.str_opt("tokenizer.ggml.model")? {
        Some("llama") => Kind::SentencePiece,
        Some("t5") => Kind::Unigram,
        Some("bert") => Kind::WordPiece,
        _ => Kind::ByteLevel,
    };
    let special = special_tokens(metadata, vocabulary.len(), kind)?;
    let unknown = metadata.token_id_opt("tokenizer.ggml.unknown_token_id")?.or((kind == Kind::SentencePiece).then_some(0));
    let padding = metadata.token_id_opt("tokenizer.ggml.padding_token_id")?;
    let ids = [
        ("bos_token", special.get("bos").copied()),
        ("eos_token", special.get("eos").copied()),
        ("unk_token", unknown),
        ("pad_token", padding),
    ];
    let text = |id: u32| vocabulary.get(id as usize).map(|text| Json::from(text.as_str()));
    Ok(ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id.and_then(text)?))).collect())
}

/// Seconds since 1970.
fn utc() -> u64 {
    web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The error's own words and its line.
fn describe(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return "it does not come to an end, or builds too much text".to_owned();
    }
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// Whether `value` nests deeper than `limit`; goes no deeper itself.
fn nests_deeper(value: &Json, limit: usize) -> bool {
    match value {
        Json::Array(items) => limit == 0 || items.iter().any(|item| nests_deeper(item, limit - 1)),
        Json::Object(map) => limit == 0 || map.values().any(|item| nests_deeper(item, limit - 1)),
        _ => false,
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
