//! The popup's requests.

use serde::Serialize;

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
