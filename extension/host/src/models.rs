//! The models that ship with the extension.

use doppler_engine::error::EngineError;
use js_sys::global;
use serde_json::{Value, json};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Response, WorkerGlobalScope};

use crate::blob::BlobSource;

/// Id and file of the default model.
const ID: &str = "spark-28m";
const FILE: &str = "spark-28m-q8_0.gguf";

/// The embedded models.
#[derive(Debug)]
pub(crate) struct Models {
    folder: String,
}

impl Models {
    pub(crate) fn new(folder: String) -> Self {
        Self { folder }
    }

    /// `OpenAI`'s list of models.
    pub(crate) fn list() -> Value {
        json!({ "object": "list", "data": [{ "id": ID, "object": "model", "created": 1_795_305_600, "owned_by": "doppler", "name": "Spark 28M" }] })
    }

    /// Whether a request's model is here; a request without one takes the default.
    pub(crate) fn check(model: Option<&str>) -> Result<(), EngineError> {
        match model {
            None | Some(ID) => Ok(()),
            Some(other) => Err(EngineError::ModelNotFound { name: other.to_owned() }),
        }
    }

    /// Opens the default model: its id and its bytes.
    pub(crate) async fn open(&self) -> Result<(String, BlobSource), EngineError> {
        let url = format!("{}/{FILE}", self.folder.trim_end_matches('/'));
        let blob =
            fetch(&url).await.map_err(|e| EngineError::Source { name: FILE.to_owned(), offset: 0, bytes: 0, reason: format!("{e:?}") })?;
        Ok((ID.to_owned(), BlobSource::new(FILE, blob)))
    }
}

async fn fetch(url: &str) -> Result<Blob, JsValue> {
    let scope: WorkerGlobalScope = global().dyn_into()?;
    let response: Response = JsFuture::from(scope.fetch_with_str(url)).await?.dyn_into()?;
    if !response.ok() {
        return Err(JsValue::from_str(&format!("{} for {url}", response.status())));
    }
    JsFuture::from(response.blob()?).await?.dyn_into()
}
