//! The frames that carry requests, answers and events: between a web page and the offscreen document, between the extension's own pages
//! and the offscreen document, and between that and the engine's worker.

use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// A request. Its id rises with each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Request<P> {
    /// What comes of it has the same.
    pub id: u32,
    /// What is asked for; [`CANCEL`]: that the request of this id ends.
    pub method: String,
    /// Of the method; a cancel has none.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<P>"))]
    pub params: P,
    /// The origin that asks, as the browser attests it. The offscreen document adds it for the worker, and refuses frames that have it.
    #[serde(default)]
    #[cfg_attr(test, ts(optional))]
    pub origin: Option<String>,
}

/// The method that ends a request.
pub const CANCEL: &str = "cancel";

/// What comes of a request: any number of chunks, then one of the others.
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

/// Something that is told unasked.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Told<D> {
    /// [`Event::NAME`](crate::Event::NAME).
    pub event: &'static str,
    /// What is told.
    pub detail: D,
}

/// What the engine's worker asks the offscreen document. It has names of its own, because requests go the other way on the same port.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Ask<P> {
    /// The reply has the same.
    pub ask: u32,
    /// What is asked for.
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
