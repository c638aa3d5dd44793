//! Model folders in Hugging Face's layout: `config.json`, `tokenizer.json` and its companions, weights in safetensors files.
//!
//! The result is what a GGUF file of the same model would hold, in GGUF's keys and tensor names, so that nothing behind it needs to know
//! the difference; where the bytes differ, [`Transform`](super::Transform) says how. One thing is left as it is stored: the rows of
//! queries and keys of llama's family, whose order `doppler.rope.pairing` = `halves` tells.

mod config;
mod json;
mod names;
mod rope;
mod spec;
mod tokenizer;

use std::collections::BTreeSet;

use super::{Checkpoint, FormatError, TensorInfo, safetensors};
use crate::error::Result;
use crate::source::{FileSpan, Source};

pub(crate) use json::Json;
pub use names::pair_neighbours;
pub(crate) use spec::{
    Defaults, FolderSpec, Heads, KvHeads, NameTable, Put, RopeOrder, SlidingWindow, TensorNames, as_stored, no_variant, refused,
    stated_kv_heads,
};

/// The families whose folders are known, each under its `general.architecture`.
pub(crate) type Families<'a> = &'a [(&'static str, &'static FolderSpec)];

/// Metadata key that says which elements of a head form a pair where the architecture's convention in GGUF is another; its only value
/// is `halves`: element i and element i + half.
pub const PAIRING_KEY: &str = "doppler.rope.pairing";

/// How an encoder's outputs are pooled.
const POOLING: &str = "1_Pooling/config.json";

/// Longest JSON file, in bytes; the largest tokenizers have some 35 MB.
const MAX_JSON: u64 = 128 << 20;
/// Longest chat template, in bytes.
const MAX_TEMPLATE: u64 = 4 << 20;

/// The files of a folder that are read whole.
#[derive(Debug, Default)]
pub struct Folder {
    /// A name for the model.
    pub name: String,
    /// `config.json`.
    pub config: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `generation_config.json`.
    pub generation_config: Option<Vec<u8>>,
    /// `chat_template.jinja`.
    pub chat_template: Option<Vec<u8>>,
    /// `1_Pooling/config.json`, where sentence-transformers say how an encoder's outputs become one.
    pub pooling: Option<Vec<u8>>,
}

/// Whether these files are a model folder, or what is there of one.
pub(crate) fn is_folder(files: &[FileSpan]) -> bool {
    files.iter().any(|file| file.base_name() == "config.json" || file.base_name().ends_with(".safetensors"))
}

/// Reads a model folder.
pub(crate) async fn read(source: &dyn Source, files: &[FileSpan], families: Families<'_>) -> Result<Checkpoint> {
    let read = async |name: &str, limit: u64| match find(files, name) {
        None => Ok(None),
        Some(file) if file.bytes > limit => {
            Err(FormatError::TooLarge { what: "the length of a JSON file or template", count: file.bytes, limit }.into())
        }
        Some(file) => source.read(file.start, file.bytes as usize).await.map(Some),
    };
    let folder = Folder {
        name: source.name().trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        config: read("config.json", MAX_JSON).await?.ok_or_else(|| missing("config.json"))?,
        tokenizer: read("tokenizer.json", MAX_JSON).await?,
        tokenizer_config: read("tokenizer_config.json", MAX_JSON).await?,
        generation_config: read("generation_config.json", MAX_JSON).await?,
        chat_template: read("chat_template.jinja", MAX_TEMPLATE).await?,
        pooling: read(POOLING, MAX_JSON).await?,
    };
    let index = read("model.safetensors.index.json", MAX_JSON).await?;
    let mut tensors = Vec::new();
    for file in shards(files, index.as_deref())? {
        let prefix = source.read(file.start, file.bytes.min(8) as usize).await?;
        let header = source.read(file.start, safetensors::header_bytes(file, &prefix)?).await?;
        tensors.extend(safetensors::parse(file, &header)?);
    }
    Ok(checkpoint(&folder, tensors, families)?)
}

/// The file of this name; those of the pooling folder bear its name too.
fn find<'a>(files: &'a [FileSpan], name: &str) -> Option<&'a FileSpan> {
    let is_pooling = |file: &FileSpan| file.name.replace('\\', "/").ends_with(POOLING);
    files.iter().find(|file| if is_pooling(file) { name == POOLING } else { file.base_name() == name })
}

fn missing(file: &str) -> FormatError {
    FormatError::MissingFile { file: file.to_owned() }
}

/// The weight files: those the index names, or `model.safetensors`, or the only one there is.
fn shards<'a>(files: &'a [FileSpan], index: Option<&[u8]>) -> Result<Vec<&'a FileSpan>, FormatError> {
    if let Some(index) = index {
        let index = Json::parse("model.safetensors.index.json", index)?;
        let names: BTreeSet<&str> =
            index.object("weight_map")?.iter().flat_map(|map| map.values()).filter_map(|file| file.as_str()).collect();
        return names.into_iter().map(|name| find(files, name).ok_or_else(|| missing(name))).collect();
    }
    let mut weights = files.iter().filter(|file| file.base_name().ends_with(".safetensors"));
    match (find(files, "model.safetensors"), weights.next(), weights.next()) {
        (Some(file), ..) | (None, Some(file), None) => Ok(vec![file]),
        (None, Some(_), Some(_)) => Err(missing("model.safetensors.index.json")),
        (None, None, _) => Err(missing("model.safetensors")),
    }
}

/// The checkpoint of a folder with these tensors, under their Hugging Face names.
///
/// # Errors
/// When a file is no JSON, a key is missing, or the model is of a kind that has no conversion.
pub(crate) fn checkpoint(folder: &Folder, tensors: Vec<TensorInfo>, families: Families<'_>) -> Result<Checkpoint, FormatError> {
    let mut config = Json::parse("config.json", &folder.config)?;
    if let Some(text) = config.take("text_config") {
        config = text;
    }
    let (family, spec) = config::family(&config, families)?;
    let mut metadata = config::metadata(family, spec, &config, &folder.name)?;
    if let Some(pooling) = &folder.pooling {
        config::pooling(family, &Json::parse(POOLING, pooling)?, &mut metadata)?;
    }
    let mut tensors = names::tensors(family, spec, &config, tensors)?;
    tensors.extend(rope::add(family, spec, &config, &mut metadata)?);
    let vocab = tensors.iter().find(|t| t.name == "token_embd.weight").and_then(|t| t.shape.get(1).copied());
    tokenizer::add(folder, &config, vocab.unwrap_or(0), &mut metadata)?;
    Checkpoint::new(metadata, tensors)
}
