//! Files on this machine.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures::future::LocalBoxFuture;

use super::{Files, PartName, Source};
use crate::error::{EngineError, Result};

/// Opens the model at `path` with all files that belong to it: a GGUF file, any part of a split one, or a folder in Hugging Face's
/// layout (also by one of its files).
///
/// # Errors
/// When something cannot be opened. Missing or inconsistent parts are errors of the load.
pub fn open(path: &Path) -> Result<Box<dyn Source>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default();
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let siblings = |wanted: &dyn Fn(&str) -> bool| open_folder(folder, wanted);
    if path.is_dir() {
        open_folder(path, &is_folder_file)
    } else if let Some(part) = PartName::parse(&name) {
        siblings(&|other| PartName::parse(other).is_some_and(|other| other.prefix == part.prefix && other.count == part.count))
    } else if extension == "safetensors" || extension == "json" {
        siblings(&is_folder_file)
    } else {
        Ok(Box::new(FileSource::open(path)?))
    }
}

/// Whether a file belongs to a model folder.
fn is_folder_file(name: &str) -> bool {
    [".safetensors", ".json", ".jinja"].iter().any(|suffix| name.ends_with(suffix))
}

/// The files of `folder` whose names are `wanted`, by name.
fn open_folder(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Box<dyn Source>> {
    let name = folder.display().to_string();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| source_error(&name, 0, 0, &e))? {
        let path = entry.map_err(|e| source_error(&name, 0, 0, &e))?.path();
        if path.is_file() && wanted(&path.file_name().unwrap_or_default().to_string_lossy()) {
            paths.push(path);
        }
    }
    let pooling = folder.join("1_Pooling/config.json");
    if pooling.is_file() && wanted("config.json") {
        paths.push(pooling);
    }
    paths.sort();
    let files = paths.iter().map(|path| Ok(Box::new(FileSource::open(path)?) as Box<dyn Source>));
    Ok(Box::new(Files::new(name, files.collect::<Result<_>>()?)))
}

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
