//! What the fuzz targets share: inputs of several files, what must hold of any checkpoint, and a native host.

use std::sync::Arc;

use doppler_engine::formats::{Checkpoint, Metadata, read_rows};
use doppler_engine::source::{Files, MemorySource, Source};
use doppler_engine::text::Tokenizer;
use doppler_host::config::Config;
use doppler_host::host::Host;
use doppler_host::server::{Limits, Server};
use doppler_host::{EXTENSION_ID, origin};
use futures::executor::block_on;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// Between the files of an input, so that the fuzzer can move the borders.
pub const SEPARATOR: &[u8] = b"\n--8<--\n";

/// The pieces of `data` between separators, `N` at the most.
pub fn pieces<const N: usize>(data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while pieces.len() + 1 < N
        && let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR)
    {
        pieces.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    pieces.push(rest);
    pieces
}

/// Files of these names and bytes as one source.
pub fn files<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Files {
    let sources = files.into_iter().map(|(name, bytes)| Box::new(MemorySource::new(name, bytes.to_vec())) as Box<dyn Source>);
    Files::new("fuzz", sources.collect())
}

/// Reads the first and last row of every tensor: a checkpoint that was accepted describes bytes that are there.
pub fn read_tensors(checkpoint: &Checkpoint, source: &dyn Source) {
    for tensor in &checkpoint.tensors {
        let rows = tensor.rows();
        for row in [0, rows - 1] {
            let bytes = block_on(read_rows(source, tensor, row, 1)).expect("a described row");
            assert_eq!(bytes.len() as u64, tensor.bytes / rows, "{}", tensor.name);
        }
        assert!(block_on(read_rows(source, tensor, rows, 1)).is_err());
    }
}

/// Encodes and decodes `text` with the tokenizer that `metadata` describe, if there is one. Ids are the vocabulary's, and plain text
/// becomes no control token but the one for unknown words.
pub fn encode(metadata: &Metadata, text: &str) {
    let Ok(tokenizer) = Tokenizer::from_gguf(metadata) else { return };
    let unknown = metadata.u32("tokenizer.ggml.unknown_token_id").unwrap_or(100);
    for parse_special in [false, true] {
        if let Ok(ids) = tokenizer.encode(text, parse_special) {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()));
            assert!(parse_special || !ids.iter().any(|&id| id != unknown && tokenizer.is_control(id)), "plain text became a control token");
            tokenizer.decode(&ids);
        }
        let _ = tokenizer.encode_prompt(text, parse_special);
    }
}

/// A native host with one open model.
pub struct NativeHost {
    pub runtime: Runtime,
    pub host: Arc<Host>,
    pub server: Server,
    /// The model's path over HTTP.
    pub path: String,
}

impl NativeHost {
    /// Makes the model and opens it.
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("doppler-fuzz-{}", std::process::id()));
        let models = folder.join("models");
        std::fs::create_dir_all(&models).expect("a folder");
        std::fs::write(models.join("model.gguf"), [b"GGUF".as_slice(), &[7; 100_000]].concat()).expect("a file");
        let file = folder.join("host.json");
        Config::load(&file).expect("a new list").with_roots(vec![models]).save(&file).expect("a file");
        let host = Arc::new(Host::new(file));
        let list = host.call("models.list", "{}").expect("a list");
        let model = host.call("models.open", &json!({ "id": list["models"][0]["id"] }).to_string()).expect("a model");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(Server::bind(Arc::clone(&host), origin(EXTENSION_ID), Limits::default())).expect("a server");
        Self { runtime, host, server, path: model["files"][0]["path"].as_str().expect("a path").to_owned() }
    }
}

/// `bytes` with each `mark` replaced by `value`.
pub fn replace(bytes: &[u8], mark: &[u8], value: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(value);
        rest = &rest[at + mark.len()..];
    }
    result.extend_from_slice(rest);
    result
}
