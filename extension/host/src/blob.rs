//! A file that the browser holds: a fetched response or one that the user picked. Slices of it pass through the wasm heap.

use doppler_engine::error::{EngineError, Result};
use doppler_engine::source::Source;
use futures::future::LocalBoxFuture;
use js_sys::Uint8Array;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

/// A `Blob` or `File`.
#[derive(Debug)]
pub(crate) struct BlobSource {
    name: String,
    blob: Blob,
}

impl BlobSource {
    /// A source over a blob.
    pub(crate) fn new(name: impl Into<String>, blob: Blob) -> Self {
        Self { name: name.into(), blob }
    }

    async fn slice(&self, offset: u64, bytes: usize) -> std::result::Result<Vec<u8>, JsValue> {
        let end = offset as f64 + bytes as f64;
        let slice = self.blob.slice_with_f64_and_f64(offset as f64, end)?;
        let buffer = JsFuture::from(slice.array_buffer()).await?;
        Ok(Uint8Array::new(&buffer).to_vec())
    }
}

impl Source for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.blob.size() as u64
    }

    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let failed = |reason: String| EngineError::Source { name: self.name.clone(), offset, bytes: bytes as u64, reason };
            let data = self.slice(offset, bytes).await.map_err(|e| failed(format!("{e:?}")))?;
            if data.len() == bytes { Ok(data) } else { Err(failed(format!("the file has {} bytes", self.bytes()))) }
        })
    }
}
