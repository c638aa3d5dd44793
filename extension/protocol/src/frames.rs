//! The frames that carry requests, answers and events: between a web page and the offscreen document, between the extension's own pages
//! and the offscreen document, and between that and the engine's worker.

use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// A request. Its id rises with each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Request<P> {
    /// Frames of its answer have the same.
    pub id: u32,
    /// The method; [`CANCEL`] and [`READ`] are about the request of this id.
    pub method: String,
    /// Of the method; a cancel has none.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<P>"))]
    pub params: P,
    /// The origin that asks, as the browser attests it. The offscreen document adds it for the worker, and refuses frames that have it.
    #[serde(default)]
    #[cfg_attr(test, ts(optional))]
    pub origin: Option<String>,
    /// As the bridge of a page attests it, for pages and for the worker.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<Priority>"))]
    pub priority: Priority,
    /// The part of the answer that came before its connection, or its worker, ended. Of the extension's own parts, never of a page's script.
    #[serde(default)]
    #[cfg_attr(test, ts(optional))]
    pub resume: Option<Resume>,
    /// Parts of a streamed answer that may be on their way unread: the worker waits for [`READ`] before it sends more. From the offscreen
    /// document to the worker.
    #[serde(default)]
    #[cfg_attr(test, ts(optional))]
    pub max_unread: Option<u32>,
}

/// Whether somebody looks at an answer as it comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A visible tab, and the extension's own pages.
    #[default]
    Foreground,
    /// A tab that is not visible.
    Background,
}

/// A page with open requests was shown or hidden: their priority is another now. From the bridge to the offscreen document.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PriorityChange {
    /// The new one.
    pub priority: Priority,
}

/// The beginning of a streamed answer, which goes on behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Resume {
    /// The chunks' `id`.
    pub id: String,
    /// The chunks' `created`.
    pub created: u32,
    /// [`Part::model`].
    pub model: u32,
    /// The answer's tokens: those of all its chunks.
    pub tokens: Vec<u32>,
    /// Whether the chunks' text is not there any more: it comes once more, as one chunk.
    pub retell: bool,
}

/// The method that ends a request.
pub const CANCEL: &str = "cancel";

/// The method that says how many more parts of the answer of this id were read. From a page's bridge to the worker.
pub const READ: &str = "read";

/// Parameters of [`READ`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PartsRead {
    /// Since it was said last.
    pub parts: u32,
}

/// The tokens behind a chunk's text, to go on behind them with a [`Resume`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Part {
    /// A number that another model has not, and that does not tell which model it is.
    pub model: u32,
    /// Those that came since the chunk before.
    pub tokens: Vec<u32>,
}

/// A frame of an answer: any number of chunks, then one of the others.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
pub enum Answer<T> {
    /// A part of it.
    Chunk {
        /// Of the request.
        id: u32,
        /// The part.
        chunk: T,
        /// Of a streamed answer. Not for a page's script.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        part: Option<Part>,
    },
    /// It was done.
    Done {
        /// Of the request.
        id: u32,
        /// The answer, or the rest of it.
        done: T,
    },
    /// It was refused, or failed.
    Error {
        /// Of the request.
        id: u32,
        /// Why.
        error: Failure,
    },
}

/// An event.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Told<D> {
    /// [`Event::NAME`](crate::Event::NAME).
    pub event: &'static str,
    /// [`Event::Detail`](crate::Event::Detail).
    pub detail: D,
}

/// A request of the engine's worker to the offscreen document. Its fields have other names, because requests go the other way on the same
/// port.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Ask<P> {
    /// The reply has the same.
    pub ask: u32,
    /// [`Method::NAME`](crate::Method::NAME).
    pub method: &'static str,
    /// Of the method.
    pub params: P,
}

/// The reply to an [`Ask`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
pub enum Reply<T> {
    /// It was done.
    Done {
        /// [`Ask::ask`].
        answer: u32,
        /// The answer.
        done: T,
    },
    /// It was refused, or failed.
    Error {
        /// [`Ask::ask`].
        answer: u32,
        /// Why.
        error: Failure,
    },
}
