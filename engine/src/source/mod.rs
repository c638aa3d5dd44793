//! Sources of a model's bytes. Readers ask for ranges; the whole file is never in memory.

mod ahead;
#[cfg(not(target_arch = "wasm32"))]
mod file;
mod files;
mod memory;
mod part_name;

pub use ahead::ReadAhead;
#[cfg(not(target_arch = "wasm32"))]
pub use file::{FileSource, open};
pub use files::Files;
pub use memory::MemorySource;
pub use part_name::PartName;

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::error::Result;

/// A read in progress.
pub type Reading<'a> = LocalBoxFuture<'a, Result<Vec<u8>>>;

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

    /// Bytes worth reading ahead, because of the source's latency; 0: reads complete at once.
    fn ahead(&self) -> u64 {
        0
    }

    /// Reads `bytes` bytes at `offset`, all of them or an error. Where [`Self::ahead`] is not 0, the read begins when this
    /// is called, not only when the future is polled.
    fn read(&self, offset: u64, bytes: usize) -> Reading<'_>;

    /// Reads pieces of these lengths, one behind the other from `offset` on; each completes on its own. For sources that
    /// read a long range faster than its parts.
    fn read_run(&self, mut offset: u64, lengths: &[usize]) -> Vec<Reading<'_>> {
        let piece = |&bytes: &usize| {
            let reading = self.read(offset, bytes);
            offset += bytes as u64;
            reading
        };
        lengths.iter().map(piece).collect()
    }
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
