//! A file on this machine.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures::future::LocalBoxFuture;

use super::Source;
use crate::error::{EngineError, Result};

/// A local file, read by seeking.
#[derive(Debug)]
pub struct FileSource {
    name: String,
    file: Mutex<File>,
    bytes: u64,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let open = || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|e| source_error(&name, 0, 0, &e))?;
        Ok(Self { name, file: Mutex::new(file), bytes })
    }

    fn read_now(&self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = vec![0; bytes];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut data))
            .map_err(|e| source_error(&self.name, offset, bytes as u64, &e))?;
        Ok(data)
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let result = self.read_now(offset, bytes);
        Box::pin(async move { result })
    }
}

fn source_error(name: &str, offset: u64, bytes: u64, error: &std::io::Error) -> EngineError {
    EngineError::Source { name: name.to_owned(), offset, bytes, reason: error.to_string() }
}
