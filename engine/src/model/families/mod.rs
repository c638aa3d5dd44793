//! The families of models, a file each: GGUF's keys and defaults to a [`ModelSpec`], and `config.json`'s names, defaults and tensor
//! names to GGUF's. Nothing else knows a family by its name.
//!
//! To add a family whose layers exist: a file here, its line in [`FAMILIES`], and a tiny model in `tests/fixtures/architectures`.

#![allow(clippy::unnecessary_wraps, reason = "functions have the signatures of the tables that name them")]

mod bert;
mod dense;
mod falcon;
mod gemma;
mod gpt2;
mod header;
mod llama;
mod olmo;
mod phi;
mod qwen;
mod rope;
mod stablelm;

use super::spec::ModelSpec;
use crate::error::{EngineError, Result};
use crate::formats::huggingface::FolderSpec;
use crate::formats::{Checkpoint, FormatError, Metadata};
use header::Header;

pub(super) use header::MAX_CONTEXT;

/// [`Family::adapt`].
type Adapt = fn(&mut Metadata) -> Result<Option<String>, FormatError>;

/// Models with one `general.architecture`.
#[derive(Debug)]
struct Family {
    /// `general.architecture`.
    name: &'static str,
    /// The spec of a checkpoint.
    spec: fn(&Header<'_>) -> Result<ModelSpec>,
    /// Its model folders, where they are known.
    folder: Option<&'static FolderSpec>,
    /// Adds to the metadata of a checkpoint what its file leaves unsaid, and gives a sentence for the person at the screen.
    adapt: Option<Adapt>,
}

/// Every family that the engine runs.
const FAMILIES: &[Family] = &[
    llama::LLAMA,
    llama::MISTRAL_3,
    llama::SMOLLM_3,
    llama::GRANITE,
    qwen::QWEN_2,
    qwen::QWEN_3,
    phi::PHI_3,
    olmo::OLMO_2,
    gemma::GEMMA,
    gemma::GEMMA_2,
    gemma::GEMMA_3,
    gemma::GEMMA_EMBEDDING,
    stablelm::STABLELM,
    falcon::FALCON,
    gpt2::GPT_2,
    bert::BERT,
    bert::NOMIC_BERT,
];

fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// The `general.architecture` of every family.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// The families with folders, each under its name.
pub(super) fn folders() -> Vec<(&'static str, &'static FolderSpec)> {
    FAMILIES.iter().filter_map(|family| Some((family.name, family.folder?))).collect()
}

/// The spec of a checkpoint.
///
/// # Errors
/// When its family is not known, a key is missing, a value makes no sense, or the model needs something that the engine does not do.
pub fn spec(checkpoint: &Checkpoint) -> Result<ModelSpec> {
    let name = checkpoint.metadata.str("general.architecture")?;
    let family = find(name).ok_or_else(|| EngineError::Unsupported {
        what: "architecture",
        value: name.to_owned(),
        supported: names().collect::<Vec<_>>().join(", "),
    })?;
    let spec = (family.spec)(&Header::new(checkpoint, family.name))?;
    spec.check()?;
    Ok(spec)
}

/// Adds to the metadata of a checkpoint of the family `name` what its file leaves unsaid, and gives a sentence about it.
pub(super) fn adapt(name: &str, metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    find(name).and_then(|family| family.adapt).map_or(Ok(None), |adapt| adapt(metadata))
}
