//! A file that the browser holds: a fetched response or one that the user picked. Slices of it pass through the wasm heap.

use doppler_engine::error::{EngineError, Result};
use doppler_engine::source::Source;
use futures::future::LocalBoxFuture;
use js_sys::Uint8Array;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

/// Bytes that are on their way while others are used.
const AHEAD: u64 = 16 << 20;

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

    /// Begins to read.
    fn slice(&self, offset: u64, bytes: usize) -> std::result::Result<JsFuture, JsValue> {
        let end = offset as f64 + bytes as f64;
        Ok(JsFuture::from(self.blob.slice_with_f64_and_f64(offset as f64, end)?.array_buffer()))
    }
}

impl Source for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.blob.size() as u64
    }

    fn ahead(&self) -> u64 {
        AHEAD
    }

    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let reading = self.slice(offset, bytes);
        Box::pin(async move {
            let failed = |reason: String| EngineError::Source { name: self.name.clone(), offset, bytes: bytes as u64, reason };
            let buffer = async { reading?.await }.await.map_err(|error| match error.dyn_into::<js_sys::Error>() {
                // The browser's error for a file that changed after it was picked.
                Ok(error) if error.name() == "NotReadableError" => EngineError::ModelChanged { name: self.name.clone() },
                Ok(error) => failed(error.message().into()),
                Err(error) => failed(format!("{error:?}")),
            })?;
            let data = Uint8Array::new(&buffer).to_vec();
            if data.len() == bytes { Ok(data) } else { Err(failed(format!("the file has {} bytes", self.bytes()))) }
        })
    }
}
