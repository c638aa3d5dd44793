//! A file in memory, for tests and small models.

use futures::future::LocalBoxFuture;

use super::Source;
use crate::error::{EngineError, Result};

/// Bytes in memory.
#[derive(Debug)]
pub struct MemorySource {
    name: String,
    data: Vec<u8>,
}

impl MemorySource {
    /// A source of these bytes.
    pub fn new(name: impl Into<String>, data: Vec<u8>) -> Self {
        Self { name: name.into(), data }
    }
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let range = usize::try_from(offset).ok().and_then(|start| self.data.get(start..start.checked_add(bytes)?));
        let result = range.map(<[u8]>::to_vec).ok_or_else(|| EngineError::Source {
            name: self.name.clone(),
            offset,
            bytes: bytes as u64,
            reason: format!("the file has {} bytes", self.data.len()),
        });
        Box::pin(async move { result })
    }
}
