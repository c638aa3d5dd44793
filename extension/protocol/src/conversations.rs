//! The popup's conversations, which `extension/offscreen/conversations.js` keeps.
//!
//! An answer arrives as events. Every event of a conversation has a number, one more than the event before it, and a [`Snapshot`] has
//! the number of the last event that it includes: a popup drops events up to its snapshot's, applies the next one, and asks for a
//! snapshot when one is missing. So nothing is lost or doubled whenever a popup opens. The numbers start at zero with each offscreen
//! document.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::{Nothing, events, methods};

methods! {
    /// All conversations.
    ListConversations = "conversations.list": Nothing => ConversationList;
    /// A conversation; without an id the current one.
    GetConversation = "conversations.get": OptionalId => Opened;
    /// From now on no conversation is the current one.
    NewConversation = "conversations.new": Nothing => Nothing;
    /// Asks a question; without an id in a new conversation. The answer to this comes at once, the model's as events.
    Send = "conversations.send": Question => Accepted;
    /// Stops the answer that is being written; what is there is kept.
    Stop = "conversations.stop": ConversationId => Nothing;
    /// Replaces the last answer by another.
    Regenerate = "conversations.regenerate": ConversationId => Accepted;
    /// Deletes a conversation.
    Delete = "conversations.delete": ConversationId => Nothing;
}

events! {
    /// A conversation changed.
    ConversationChanged = "conversation": ConversationEvent;
    /// Conversations cannot be stored, or can again.
    StorageChanged = "storage": Storage;
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ConversationId {
    /// Unique among conversations.
    pub id: String,
}

/// A conversation, or the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct OptionalId {
    /// Which conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Parameters of [`Send`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Question {
    /// Which conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The question.
    pub text: String,
}

/// How fast an answer came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default)]
pub struct Stats {
    /// Milliseconds from the request to the first token.
    pub first_token_ms: Option<f64>,
    /// Speed after the first token.
    pub decode_tokens_per_second: Option<f64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u32>,
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How far a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Message {
    /// Unique among all messages.
    pub id: String,
    /// Its author.
    pub role: Role,
    /// Plain text from the user, Markdown from the model.
    pub content: String,
    /// The model's thought before the answer, as Markdown.
    #[serde(default)]
    #[cfg_attr(test, ts(as = "Option<String>", optional))]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Snapshot {
    /// Which conversation.
    pub id: String,
    /// Number of the last event it includes.
    pub seq: u32,
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// Message number `index` is now `message`, and none follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TextAdded {
    /// Which conversation.
    pub id: String,
    /// Number of this event.
    pub seq: u32,
    /// Appended to the content.
    pub text: String,
    /// Appended to the thought.
    #[serde(default)]
    pub thinking: String,
}

/// The conversation is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Deleted {
    /// Which conversation.
    pub id: String,
    /// Number of this event.
    pub seq: u32,
}

/// Something happened to a conversation. On the wire the kind is the field `type`; it is read by hand, because serde's tagged
/// enums would be a tenth of the popup's code.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(ts_rs::TS), ts(tag = "type", rename_all = "lowercase"))]
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

/// Detail of a `storage` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Storage {
    /// Why conversations cannot be stored; `None`: they are.
    pub problem: Option<String>,
}

/// Answer to `conversations.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ConversationList {
    /// Why conversations cannot be stored; `None`: they are.
    #[serde(default)]
    pub problem: Option<String>,
    /// Newest first.
    pub data: Vec<Summary>,
}

/// Answer to `conversations.get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Opened {
    /// The conversation; `None` when there is no current one.
    pub conversation: Option<Snapshot>,
}

/// Answer to `conversations.send` and `conversations.regenerate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Accepted {
    /// Which conversation.
    pub id: String,
}
