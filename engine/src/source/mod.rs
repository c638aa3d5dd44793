//! Where a model's bytes come from. Readers ask for ranges; nobody holds the whole file.

#[cfg(not(target_arch = "wasm32"))]
mod file;
mod files;
mod memory;

#[cfg(not(target_arch = "wasm32"))]
pub use file::{FileSource, open};
pub use files::Files;
pub use memory::MemorySource;

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::error::Result;

/// A file, or several as one, wherever they are.
pub trait Source: fmt::Debug {
    /// A name for messages.
    fn name(&self) -> &str;

    /// Length in bytes.
    fn bytes(&self) -> u64;

    /// The files that lie one behind the other in this source: itself alone, unless it is [`Files`].
    fn files(&self) -> Vec<FileSpan> {
        vec![FileSpan { name: self.name().to_owned(), start: 0, bytes: self.bytes() }]
    }

    /// Reads `bytes` bytes at `offset`, all of them or an error.
    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>>;
}

/// Where one file lies in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpan {
    /// The file's name, with or without its folder.
    pub name: String,
    /// Its first byte, from the start of the source.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

impl FileSpan {
    /// The name without its folder.
    pub fn base_name(&self) -> &str {
        self.name.rsplit(['/', '\\']).next().unwrap_or_default()
    }
}
