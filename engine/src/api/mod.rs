//! Requests and responses in the shapes that web developers know: `OpenAI`'s chat completions.

mod chat;
mod fields;
mod messages;

pub use chat::{ChatRequest, CompletionShape, Defaults, Resolved};
