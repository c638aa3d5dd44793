//! What the extension can ask for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use doppler_protocol::native::{self, HostModel, HostModels, MAX_READ, ModelId, OpenedFile, OpenedModel, ReadDone, ReadParams};
use doppler_protocol::{Method, Nothing};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::catalog::{Catalog, Model, check_start};
use crate::config::Config;
use crate::error::{HostError, Result};
use crate::file::ModelFile;
use crate::places::program_from_home;

/// Models open at a time.
const MAX_OPEN: usize = 16;

/// A model whose files are open.
#[derive(Debug, Clone)]
struct OpenModel {
    model: Model,
    files: Vec<Arc<ModelFile>>,
}

/// The state behind the messages and the HTTP server.
#[derive(Debug)]
pub struct Host {
    config: PathBuf,
    open: Mutex<HashMap<String, OpenModel>>,
}

impl Host {
    /// A host for the folders that the file `config` lists.
    pub fn new(config: PathBuf) -> Self {
        Self { config, open: Mutex::default() }
    }

    /// Answers one request with parameters in JSON; reads the disk.
    ///
    /// # Errors
    /// As the method has them.
    pub fn call(&self, method: &str, params: &str) -> Result<Value> {
        match method {
            native::Ping::NAME => Ok(json!(Nothing {})),
            native::ListModels::NAME => Ok(json!(self.list()?)),
            native::StatModel::NAME => Ok(json!(self.stat(&id(params)?)?.opened())),
            native::OpenModel::NAME => Ok(json!(self.open(&id(params)?)?)),
            native::CloseModel::NAME => {
                self.models().remove(&id(params)?);
                Ok(json!(Nothing {}))
            }
            native::Read::NAME => Ok(json!(self.read(&arguments(params)?)?)),
            _ => Err(HostError::UnknownMethod { method: method.to_owned() }),
        }
    }

    /// File number `index` of the open model `id`.
    ///
    /// # Errors
    /// [`HostError::NotFound`] when the model is not open or has no such file.
    pub fn file(&self, id: &str, index: usize) -> Result<Arc<ModelFile>> {
        self.models().get(id).and_then(|open| open.files.get(index)).cloned().ok_or(HostError::NotFound)
    }

    fn models(&self) -> std::sync::MutexGuard<'_, HashMap<String, OpenModel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Result<HostModels> {
        let config = Config::ensure(&self.config)?;
        let catalog = Catalog::scan(&config);
        let models = catalog.models.into_iter().map(|model| HostModel {
            bytes: model.bytes(),
            format: model.format,
            files: model.parts.len(),
            modified: model.modified(),
            id: model.id,
            name: model.name,
            notes: model.notes,
        });
        let no_folder = config
            .roots
            .is_empty()
            .then(|| format!("The native host may read no folder yet: choose one with `{} models add FOLDER`.", program_from_home()));
        Ok(HostModels { models: models.collect(), problems: no_folder.into_iter().chain(catalog.problems).collect() })
    }

    /// The model `id` as it is on the disk now, its files open for a moment.
    fn stat(&self, id: &str) -> Result<OpenModel> {
        let config = Config::ensure(&self.config)?;
        let model = Catalog::scan(&config).take(id)?;
        let open = |part: &crate::catalog::Part| {
            let file = ModelFile::open(&part.path, &part.name, &config)?;
            check_start(&file)?;
            Ok(Arc::new(file))
        };
        let files = model.parts.iter().map(open).collect::<Result<_>>()?;
        Ok(OpenModel { model, files })
    }

    fn open(&self, id: &str) -> Result<OpenedModel> {
        let fresh = self.stat(id)?;
        let mut models = self.models();
        if !models.contains_key(id) && models.len() == MAX_OPEN {
            return Err(HostError::TooMany { limit: MAX_OPEN });
        }
        let known = models.entry(id.to_owned()).or_insert_with(|| fresh.clone());
        // As long as nothing has changed the files that are open stay, and their transfers with them.
        if !known.files.iter().map(|file| &file.etag).eq(fresh.files.iter().map(|file| &file.etag)) {
            *known = fresh;
        }
        Ok(known.opened())
    }

    fn read(&self, read: &ReadParams) -> Result<ReadDone> {
        let file = self.file(&read.id, read.file)?;
        if file.etag != read.etag {
            return Err(HostError::Changed { name: file.name.clone() });
        }
        if read.bytes > MAX_READ || read.offset.checked_add(read.bytes).is_none_or(|end| end > file.bytes()) {
            return Err(HostError::OutOfRange { offset: read.offset, wanted: read.bytes, bytes: file.bytes(), limit: MAX_READ });
        }
        let bytes = file.read(read.offset, read.bytes as usize)?;
        Ok(ReadDone { data: STANDARD.encode(bytes) })
    }
}

impl OpenModel {
    fn opened(&self) -> OpenedModel {
        let Model { id, name, format, notes, .. } = self.model.clone();
        let opened = |(index, file): (usize, &Arc<ModelFile>)| OpenedFile {
            name: file.name.clone(),
            bytes: file.bytes(),
            path: format!("/v1/models/{id}/{index}"),
            etag: file.etag.clone(),
        };
        let files = self.files.iter().enumerate().map(opened).collect();
        OpenedModel { bytes: self.model.bytes(), format, notes, files, id, name }
    }
}

/// The model that the parameters name.
fn id(params: &str) -> Result<String> {
    Ok(arguments::<ModelId>(params)?.id)
}

/// The parameters of a method.
pub(crate) fn arguments<T: DeserializeOwned>(params: &str) -> Result<T> {
    serde_json::from_str(params).map_err(|error| HostError::Malformed { problem: error.to_string() })
}
