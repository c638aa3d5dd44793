//! Where a model's bytes come from. Readers ask for ranges; nobody holds the whole file.

#[cfg(not(target_arch = "wasm32"))]
mod file;
mod memory;

#[cfg(not(target_arch = "wasm32"))]
pub use file::FileSource;
pub use memory::MemorySource;

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::error::Result;

/// A file, wherever it is.
pub trait Source: fmt::Debug {
    /// A name for messages.
    fn name(&self) -> &str;

    /// Length in bytes.
    fn bytes(&self) -> u64;

    /// Reads `bytes` bytes at `offset`, all of them or an error.
    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>>;
}
