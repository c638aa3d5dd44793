//! Models by id, and their bytes: the one that ships with the extension, and those that the offscreen document opens.

use std::rc::Rc;

use doppler_engine::error::EngineError;
use doppler_engine::source::{Files, Source};
use doppler_protocol::engine::{Catalog, CatalogModel, Transport};
use doppler_protocol::native::ModelId;
use doppler_protocol::worker::{Launch, ModelContext, OpenModel, OpenParams};
use js_sys::global;
use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Response, WorkerGlobalScope};

use crate::blob::BlobSource;
use crate::calls::{self, Calls};
use crate::host_files::HostModel;
use crate::readers::Readers;

/// Id and file of the embedded model, which is the default.
pub(crate) const EMBEDDED: &str = "spark-28m";
const FILE: &str = "spark-28m-q8_0.gguf";

/// All models.
#[derive(Debug)]
pub(crate) struct Models {
    folder: String,
    reader: String,
    calls: Rc<Calls>,
}

/// A model's bytes.
#[derive(Debug)]
pub(crate) struct Opened {
    /// All its files.
    pub(crate) source: Box<dyn Source>,
    host: Option<Rc<HostModel>>,
}

impl Opened {
    /// The transport of the bytes, for models of the native host.
    pub(crate) fn transport(&self) -> Option<Transport> {
        self.host.as_ref().map(|host| host.transport())
    }
}

/// Answer to [`OpenModel`], to be read as a [`Launch`] if it has a `base`; otherwise each file is a `blob`.
#[derive(Deserialize)]
struct Answer {
    name: String,
    base: Option<String>,
    files: Vec<AnsweredFile>,
}

#[derive(Deserialize)]
struct AnsweredFile {
    name: String,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    blob: JsValue,
}

impl Models {
    /// `folder` is the URL of the embedded models, `reader` that of the program of [`Readers`].
    pub(crate) fn new(folder: String, reader: String, calls: Rc<Calls>) -> Self {
        Self { folder, reader, calls }
    }

    /// `OpenAI`'s list of the embedded models.
    pub(crate) fn list() -> Catalog {
        let spark = CatalogModel { id: EMBEDDED, object: "model", created: 1_795_305_600, owned_by: "doppler", name: "Spark 28M" };
        Catalog { object: "list", data: vec![spark] }
    }

    /// Opens a model.
    ///
    /// # Errors
    /// When there is none of this id, or its files cannot be reached; the message says what to do.
    pub(crate) async fn open(&self, id: &str) -> Result<Opened, EngineError> {
        if id == EMBEDDED {
            return self.open_embedded().await;
        }
        let answer = self.calls.call_unread::<OpenModel>(&OpenParams { id: id.to_owned(), again: false }).await?;
        let Answer { name, base, files } = calls::read(answer.clone())?;
        if base.is_some() {
            let launch: Launch = calls::read(answer)?;
            let host = HostModel::new(id, Rc::clone(&self.calls), Readers::new(&self.reader), launch);
            return Ok(Opened { source: one(name, host.files()), host: Some(host) });
        }
        let file = |AnsweredFile { name, blob }| -> Result<Box<dyn Source>, EngineError> {
            let blob = blob.dyn_into::<Blob>().map_err(|_| EngineError::ModelNotFound { name: name.clone() })?;
            Ok(Box::new(BlobSource::new(name, blob)))
        };
        Ok(Opened { source: one(name, files.into_iter().map(file).collect::<Result<_, _>>()?), host: None })
    }

    /// The tokens of the context that were chosen for a model; `None`: as usual.
    pub(crate) async fn context(&self, id: &str) -> Option<u32> {
        let answer = self.calls.call::<ModelContext>(&ModelId { id: id.to_owned() }).await;
        answer.unwrap_or_else(|error| {
            log::warn!("the chosen context is not known: {error}");
            None
        })
    }

    async fn open_embedded(&self) -> Result<Opened, EngineError> {
        let url = format!("{}/{FILE}", self.folder.trim_end_matches('/'));
        let blob =
            fetch(&url).await.map_err(|e| EngineError::Source { name: FILE.to_owned(), offset: 0, bytes: 0, reason: format!("{e:?}") })?;
        Ok(Opened { source: Box::new(BlobSource::new(FILE, blob)), host: None })
    }
}

/// Files as one source.
fn one(name: String, mut files: Vec<Box<dyn Source>>) -> Box<dyn Source> {
    if files.len() == 1 { files.remove(0) } else { Box::new(Files::new(name, files)) }
}

async fn fetch(url: &str) -> Result<Blob, JsValue> {
    let scope: WorkerGlobalScope = global().dyn_into()?;
    let response: Response = JsFuture::from(scope.fetch_with_str(url)).await?.dyn_into()?;
    if !response.ok() {
        return Err(JsValue::from_str(&format!("{} for {url}", response.status())));
    }
    JsFuture::from(response.blob()?).await?.dyn_into()
}
