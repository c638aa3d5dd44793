//! The popup's requests.

use doppler_protocol::conversations::{ConversationId, OptionalId, Question};
use doppler_protocol::native::ModelId;
use doppler_protocol::ui::{Choice, ListParams, Listing, Site};
use serde::Serialize;

/// A request of the offscreen document.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// What is the engine doing?
    Status,
    /// Load the model: counting tokens needs it loaded.
    Warm,
    /// Which models are there? The number rises with every such call: answers may overtake each other.
    Models(u32, ListParams),
    /// What is this model?
    Describe(Listing),
    /// Load a model and answer with it from now on.
    Choose(Choice),
    /// Take a picked model off the list.
    Forget(ModelId),
    /// End what a site is being answered.
    StopSite(Site),
    /// Which conversations are there?
    List,
    /// A conversation.
    Get(OptionalId),
    /// No conversation is the current one.
    New,
    /// Ask.
    Send(Question),
    /// Stop the answer.
    Stop(ConversationId),
    /// Answer the last question again.
    Regenerate(ConversationId),
    /// Delete a conversation.
    Delete(ConversationId),
}

impl Call {
    /// Chooses a model, with this many tokens of context or as many as usual.
    pub fn choose(id: impl Into<String>, context: Option<u32>) -> Self {
        Self::Choose(Choice { id: id.into(), context })
    }

    /// Opens a conversation; without an id the current one.
    pub fn get(id: Option<String>) -> Self {
        Self::Get(OptionalId { id })
    }

    /// Asks a question; without an id in a new conversation.
    pub fn send(id: Option<String>, text: impl Into<String>) -> Self {
        Self::Send(Question { id, text: text.into() })
    }
}

/// A request whose answer is not read: the model is loaded to count its tokens.
#[derive(Debug, Serialize)]
pub(crate) struct Draft {
    messages: [DraftMessage; 1],
}

#[derive(Debug, Serialize)]
struct DraftMessage {
    role: &'static str,
    content: &'static str,
}

/// The only one.
pub(crate) const DRAFT: Draft = Draft { messages: [DraftMessage { role: "user", content: "Hi" }] };
