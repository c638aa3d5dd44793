//! Messages of the engine's worker to a worker that fetches for it (`extension/offscreen/reader.js`), whose answers carry buffers and are
//! described there.

use serde::Serialize;

/// Fetches a range of a file.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct FetchRange {
    /// All answers have the same.
    pub id: u32,
    /// Of the file.
    pub url: String,
    /// Of the request.
    pub headers: RangeHeaders,
    /// Bytes of the pieces in which it comes.
    pub lengths: Vec<usize>,
}

/// Headers that ask for a range.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RangeHeaders {
    /// With the host's token.
    #[serde(rename = "Authorization")]
    pub authorization: String,
    /// The range.
    #[serde(rename = "Range")]
    pub range: String,
    /// [`OpenedFile::etag`](crate::native::OpenedFile::etag).
    #[serde(rename = "If-Match")]
    pub if_match: String,
}

/// Ends a [`FetchRange`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct AbortRange {
    /// [`FetchRange::id`].
    pub id: u32,
}
