//! What the popup and the offscreen document say to each other, as Rust types.
//!
//! The conversation types mirror `extension/offscreen/conversations.js`, where they are documented; the engine's status is
//! that of `engine.status`.

use serde::{Deserialize, Serialize};

/// A failure as the wire carries it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// A `DOMException` name.
    pub name: String,
    /// What happened, and what to do about it.
    pub message: String,
    /// A word for programs, such as [`CONTEXT_EXCEEDED`].
    pub code: String,
    /// Numbers that belong to the code.
    pub data: FailureData,
}

/// The data of a [`Failure`] that the popup makes something of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FailureData {
    /// The most tokens of context with which the model would fit the device.
    pub largest_context: Option<u32>,
}

/// The [`Failure::code`] of a conversation that is longer than the model's context.
pub const CONTEXT_EXCEEDED: &str = "context_length_exceeded";
/// The [`Failure::code`] of a browser without a GPU for pages.
pub const NO_GPU: &str = "no_gpu";
/// What is said of [`NO_GPU`], whatever the graphics library said.
pub const NO_GPU_SENTENCE: &str = "This browser gives pages no GPU.";
/// The codes of failures that are the file's: it is no model, or none that can be loaded.
const FILE_FAULTS: [&str; 5] = ["not_a_model", "model_file_invalid", "unsupported_model", "tensor_invalid", "text_processing_failed"];

impl Failure {
    /// The message as a sentence of its own.
    pub fn sentence(&self) -> String {
        if self.is_no_gpu() {
            return NO_GPU_SENTENCE.to_owned();
        }
        let words = [&self.message, &self.name].into_iter().find(|words| !words.is_empty());
        sentence(words.map_or("something failed", String::as_str))
    }

    /// Whether there is no GPU.
    pub fn is_no_gpu(&self) -> bool {
        self.code == NO_GPU
    }

    /// Whether the file is at fault, and will be tomorrow.
    pub fn is_of_the_file(&self) -> bool {
        FILE_FAULTS.contains(&self.code.as_str())
    }
}

/// A sentence of the engine's words, which begin without a capital and end without a full stop. The name of a file or a field stays as it is.
pub fn sentence(words: &str) -> String {
    let mut characters = words.trim_end_matches('.').chars();
    let word = words.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ',', ':', ';', '!', '?', '…']);
    let is_word = word.chars().all(|letter| letter.is_alphabetic() || "'’-".contains(letter));
    let first = characters.next().map(|first| if is_word { first.to_ascii_uppercase() } else { first });
    let ended = words.ends_with(['!', '?', '…']);
    first.into_iter().chain(characters).chain((!ended).then_some('.')).collect()
}

/// How fast an answer came.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Milliseconds from the request to the first token.
    pub first_token_ms: Option<f64>,
    /// Speed after the first token.
    pub decode_tokens_per_second: Option<f64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u32>,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How far a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Complete.
    Done,
    /// Still being written.
    Streaming,
    /// Stopped by the user.
    Stopped,
    /// Cut off by the end of the engine's document.
    Interrupted,
    /// Ended by an error.
    Failed,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// Unique among all messages.
    pub id: String,
    /// Who wrote it.
    pub role: Role,
    /// Plain text from the user, Markdown from the model.
    pub content: String,
    /// What the model thought before it answered, as Markdown.
    #[serde(default)]
    pub thinking: String,
    /// Milliseconds for which it thought, once it has ended.
    #[serde(default)]
    pub thinking_ms: Option<f64>,
    /// How far it got.
    pub state: Progress,
    /// `stop` or `length`.
    #[serde(default)]
    pub finish: Option<String>,
    /// How fast it came.
    #[serde(default)]
    pub stats: Option<Stats>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Failure>,
}

/// A line of the list of conversations.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Summary {
    /// Unique among conversations.
    pub id: String,
    /// The beginning of its first question.
    pub title: String,
    /// Milliseconds since 1970.
    pub updated: f64,
    /// Whether an answer is being written.
    pub busy: bool,
}

/// A whole conversation, as it was after event number `seq`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Snapshot {
    /// Which conversation.
    pub id: String,
    /// Number of the last event it includes.
    pub seq: u32,
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// Message number `index` is now `message`, and none follows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MessageChanged {
    /// Which conversation.
    pub id: String,
    /// Number of this event.
    pub seq: u32,
    /// Position of the message.
    pub index: usize,
    /// The message.
    pub message: Message,
    /// The conversation's line in the list.
    pub summary: Summary,
}

/// `text` was appended to the content of the last message, and `thinking` to its thought.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TextAdded {
    /// Which conversation.
    pub id: String,
    /// Number of this event.
    pub seq: u32,
    /// What to append.
    pub text: String,
    /// What to append to the thought.
    #[serde(default)]
    pub thinking: String,
}

/// The conversation is gone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Deleted {
    /// Which conversation.
    pub id: String,
}

/// Something happened to a conversation. On the wire the kind is the field `type`; it is read by hand, because serde's tagged
/// enums would be a tenth of the popup's code.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversationEvent {
    /// `message`
    Message(Box<MessageChanged>),
    /// `delta`
    Delta(TextAdded),
    /// `deleted`
    Deleted(Deleted),
}

impl ConversationEvent {
    /// The conversation it is about.
    pub fn id(&self) -> &str {
        match self {
            Self::Message(event) => &event.id,
            Self::Delta(event) => &event.id,
            Self::Deleted(event) => &event.id,
        }
    }
}

/// What the engine is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Nothing yet: it starts with the first question.
    #[default]
    Idle,
    /// Loading the model.
    Loading,
    /// Answering at once.
    Ready,
    /// Unable to answer.
    Failed,
}

/// The graphics adapter the engine runs on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Adapter {
    /// `nvidia`, `apple`, …
    pub vendor: String,
    /// Family of the chip.
    pub architecture: String,
    /// The device, where the browser tells.
    pub device: String,
    /// The driver's words, where the browser tells.
    pub description: String,
}

/// The loaded model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Weight format, such as `Q8_0`.
    pub quantization: String,
    /// Tokens that prompt and answer may have together.
    pub context: Option<f64>,
}

/// Answer to `engine.status`, and the `status` event.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    /// What it is doing.
    pub state: EngineState,
    /// The model that is being loaded or failed.
    pub id: Option<String>,
    /// The transport of its bytes, where there are several: [`MESSAGES`] is the slow one.
    pub transport: Option<String>,
    /// Loaded part, 0 to 1.
    pub progress: Option<f64>,
    /// Whether a model of the user's is the chosen one; told on asking only.
    pub local: Option<bool>,
    /// The sites that are being answered; told on asking only.
    pub sites: Option<Vec<String>>,
    /// The chosen model; told on asking only.
    pub chosen: Option<Chosen>,
    /// What it runs on, once known.
    pub adapter: Option<Adapter>,
    /// What it runs, once known.
    pub model: Option<Model>,
    /// Why it failed.
    pub error: Option<Failure>,
}

/// The model that answers, or would.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Chosen {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// The [`EngineStatus::transport`] of bytes that come in messages, because the browser blocks the loopback interface.
pub const MESSAGES: &str = "messages";

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the extension.
    Embedded,
    /// In a folder of the native host.
    Host,
    /// In a file that was picked or dropped.
    Picked,
}

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Where it is.
    pub source: Source,
    /// Bytes of its files.
    #[serde(default)]
    pub bytes: Option<f64>,
    /// `gguf` or `safetensors`.
    #[serde(default)]
    pub format: Option<String>,
}

/// Answer to `models.list`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelList {
    /// All that can be chosen.
    pub data: Vec<Listed>,
    /// The id of the one that answers.
    pub chosen: String,
    /// What the native host could not read.
    pub problems: Vec<String>,
    /// The native host.
    pub host: HostState,
}

/// How the native host is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostState {
    /// Why it does not answer.
    pub error: Option<Failure>,
}

/// Answer to `models.describe`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Described {
    /// Such as `llama`.
    pub architecture: String,
    /// Weight format, such as `Q8_0`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: f64,
    /// Bytes on the device.
    pub memory: Memory,
    /// Parts of the file that are not used, or used otherwise than it says: a sentence each.
    pub notes: Vec<String>,
}

/// Bytes on the device, and for what.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Weights.
    pub weights: f64,
    /// Keys and values of the context.
    pub cache: f64,
    /// Activations and state.
    pub scratch: f64,
}

/// Detail of an `activity` event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Activity {
    /// Origins of the sites that are being answered.
    pub sites: Vec<String>,
}

/// Detail of a `storage` event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Storage {
    /// Why conversations cannot be stored; `None`: they are.
    pub problem: Option<String>,
}

/// Answer to `conversations.list`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct List {
    /// Why conversations cannot be stored; `None`: they are.
    #[serde(default)]
    pub problem: Option<String>,
    /// Newest first.
    pub data: Vec<Summary>,
}

/// Answer to `conversations.get`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Opened {
    /// The conversation; `None` when there is no current one.
    pub conversation: Option<Snapshot>,
}

/// Answer to `conversations.send` and `conversations.regenerate`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Accepted {
    /// Which conversation.
    pub id: String,
}

/// A message that nobody answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Draft {
    role: &'static str,
    content: &'static str,
}

impl Default for Draft {
    fn default() -> Self {
        Self { role: "user", content: "Hi" }
    }
}

/// A request. Serialized, it is the request's parameters.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Call {
    /// What is the engine doing?
    Status {},
    /// Load the model: the text to count matters not, counting tokens needs a loaded model.
    Warm {
        /// One message.
        messages: [Draft; 1],
    },
    /// Which models are there?
    Models {
        /// Rises with every such call: answers may overtake each other.
        #[serde(skip)]
        number: u32,
        /// Whether also what the native host has, which takes it a while to find.
        host: bool,
    },
    /// What is this model?
    Describe {
        /// Which model.
        id: String,
        /// Bytes of its files, as listed: an answer for others is out of date.
        bytes: Option<f64>,
    },
    /// Load a model and answer with it from now on.
    Choose {
        /// Which model.
        id: String,
        /// Tokens of its context, if not as many as it has.
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<u32>,
    },
    /// Take a picked model off the list.
    Forget {
        /// Which model.
        id: String,
    },
    /// End what a site is being answered.
    StopSite {
        /// Its origin.
        origin: String,
    },
    /// Which conversations are there?
    List {},
    /// A conversation; without `id` the current one.
    Get {
        /// Which conversation.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// No conversation is the current one.
    New {},
    /// Ask; without `id` in a new conversation.
    Send {
        /// Which conversation.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The question.
        text: String,
    },
    /// Stop the answer.
    Stop {
        /// Which conversation.
        id: String,
    },
    /// Answer the last question again.
    Regenerate {
        /// Which conversation.
        id: String,
    },
    /// Delete a conversation.
    Delete {
        /// Which conversation.
        id: String,
    },
}

impl Call {
    /// The method's name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Status {} => "engine.status",
            Self::Warm { .. } => "tokens.count",
            Self::Models { .. } => "models.list",
            Self::Describe { .. } => "models.describe",
            Self::Choose { .. } => "models.choose",
            Self::Forget { .. } => "models.forget",
            Self::StopSite { .. } => "activity.stop",
            Self::List {} => "conversations.list",
            Self::Get { .. } => "conversations.get",
            Self::New {} => "conversations.new",
            Self::Send { .. } => "conversations.send",
            Self::Stop { .. } => "conversations.stop",
            Self::Regenerate { .. } => "conversations.regenerate",
            Self::Delete { .. } => "conversations.delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, NO_GPU};

    #[test]
    fn sentences() {
        let sentence = |name: &str, message: &str| {
            let (name, message) = (name.to_owned(), message.to_owned());
            Failure { name, message, ..Failure::default() }.sentence()
        };
        assert_eq!(sentence("E", "the prompt is too long; shorten it"), "The prompt is too long; shorten it.");
        assert_eq!(sentence("E", "It broke."), "It broke.");
        assert_eq!(sentence("E", "really?"), "Really?");
        for name in ["notes.txt is no model.", "max_tokens is too large.", "a1 is no name.", "q4/x.gguf is gone."] {
            assert_eq!(sentence("E", name), name, "a name stays as it is");
        }
        assert_eq!(sentence("E", "tensor blk.0.x is missing"), "Tensor blk.0.x is missing.");
        let no_gpu = Failure { message: "noop support not compiled in".into(), code: NO_GPU.into(), ..Failure::default() };
        assert_eq!(no_gpu.sentence(), "This browser gives pages no GPU.");
        assert_eq!(sentence("AbortError", ""), "AbortError.");
        assert_eq!(sentence("", ""), "Something failed.");
    }
}
