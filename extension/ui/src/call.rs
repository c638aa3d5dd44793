//! The popup's requests.

use doppler_protocol::conversations::{ConversationId, OptionalId, Question};
use doppler_protocol::native::ModelId;
use doppler_protocol::ui::{Choice, ListParams, Listing, Site};
use serde::Serialize;

/// A request of the offscreen document.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Asks for the engine's status.
    Status,
    /// Loads the model: counting tokens needs it loaded.
    Warm,
    /// Asks for the models. The number rises with every such call: answers may overtake each other.
    Models(u32, ListParams),
    /// Asks for the properties of a model.
    Describe(Listing),
    /// Loads a model, which answers from then on.
    Choose(Choice),
    /// Takes a picked model off the list.
    Forget(ModelId),
    /// Ends the answers to a site.
    StopSite(Site),
    /// Asks for the conversations.
    List,
    /// Opens a conversation.
    Get(OptionalId),
    /// Leaves the current conversation.
    New,
    /// Asks a question.
    Send(Question),
    /// Stops the answer.
    Stop(ConversationId),
    /// Replaces the last answer.
    Regenerate(ConversationId),
    /// Deletes a conversation.
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
