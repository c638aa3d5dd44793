//! The families of models, a file each: GGUF's keys and defaults to a [`ModelSpec`], and `config.json`'s names, defaults and tensor
//! names to GGUF's. Nothing else knows a family by its name.
//!
//! To add a family whose layers exist: a file here, its line in [`FAMILIES`], and a tiny model in `tests/fixtures/architectures`.

#![allow(clippy::unnecessary_wraps, reason = "functions have the signatures of the tables that name them")]

mod apertus;
mod bert;
mod bitnet;
mod cohere;
mod dense;
mod exaone;
mod falcon;
mod gemma;
mod glm;
mod gpt2;
mod header;
mod hunyuan;
mod llama;
mod minicpm;
mod mixture;
mod nemotron;
mod neox;
mod olmo;
mod phi;
mod qwen;
mod rope;
mod stablelm;
mod twins;
mod unsupported;

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

impl Family {
    /// A family that is known from GGUF files only.
    const fn gguf(name: &'static str, spec: fn(&Header<'_>) -> Result<ModelSpec>) -> Self {
        Self { name, spec, folder: None, adapt: None }
    }
}

/// Every family that the engine runs.
const FAMILIES: &[Family] = &[
    llama::LLAMA,
    llama::MISTRAL_3,
    llama::SMOLLM_3,
    llama::GRANITE,
    qwen::QWEN_2,
    qwen::QWEN_3,
    qwen::QWEN_2_VL,
    qwen::QWEN_3_VL,
    twins::QWEN,
    phi::PHI_3,
    neox::PHI_2,
    olmo::OLMO,
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
    twins::ERNIE_4_5,
    twins::PADDLE_OCR,
    hunyuan::HUNYUAN_DENSE,
    hunyuan::HUNYUAN_VL,
    hunyuan::MAINCODER,
    twins::EXAONE,
    exaone::EXAONE_4,
    cohere::COMMAND_R,
    cohere::COHERE_2,
    glm::CHATGLM,
    glm::GLM_4,
    twins::SEED_OSS,
    minicpm::MINICPM,
    twins::INTERNLM_2,
    nemotron::ARCEE,
    nemotron::NEMOTRON,
    nemotron::JAIS_2,
    neox::STARCODER,
    neox::STARCODER_2,
    neox::GPT_NEOX,
    neox::CODESHELL,
    apertus::APERTUS,
    bitnet::BITNET,
    twins::LLAMA_EMBED,
    twins::PANGU,
    twins::BAICHUAN,
    twins::XVERSE,
    twins::ORION,
    neox::PLAMO,
    mixture::QWEN_3_MOE,
    mixture::QWEN_3_VL_MOE,
    mixture::QWEN_2_MOE,
    mixture::OLMOE,
    mixture::GRANITE_MOE,
    mixture::ERNIE_4_5_MOE,
    mixture::HUNYUAN_MOE,
    mixture::GLM_4_MOE,
    mixture::DOTS_1,
    mixture::MINIMAX_M2,
    mixture::GPT_OSS,
];

/// Names that Ollama's own conversions have for families, and the common ones.
const ALIASES: &[(&str, &str)] = &[("qwen25vl", "qwen2vl")];

/// An alias of a family, and its common name.
pub(super) fn common_name(name: &str) -> Option<(&'static str, &'static str)> {
    ALIASES.iter().copied().find(|(alias, _)| *alias == name)
}

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
    let family = find(name).ok_or_else(|| EngineError::UnsupportedFamily { name: name.to_owned(), reason: unsupported::reason(name) })?;
    let spec = (family.spec)(&Header::new(checkpoint, family.name))?;
    spec.check()?;
    Ok(spec)
}

/// Adds to the metadata of a checkpoint of the family `name` what its file leaves unsaid, and gives a sentence about it.
pub(super) fn adapt(name: &str, metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    find(name).and_then(|family| family.adapt).map_or(Ok(None), |adapt| adapt(metadata))
}
