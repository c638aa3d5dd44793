//! From a source to a checkpoint: what the files hold, as the engine uses it.

use std::collections::HashMap;

use super::conventions::adapted;
use super::families;
use crate::error::{EngineError, Result};
use crate::formats::huggingface::{self, Folder};
use crate::formats::{Checkpoint, DType, FormatError, Gguf, Metadata, TensorInfo, ollama, read_rows, split};
use crate::source::{FileSpan, Source};

/// The first bytes read of a file: a small model's whole header.
const FIRST_READ: u64 = 1 << 20;

/// Reads what a source holds: a GGUF file, all parts of a split one, either with what Ollama keeps beside it, or a model folder
/// in Hugging Face's layout.
///
/// # Errors
/// When the files are damaged, incomplete, of another kind, or cannot be read.
pub async fn read_checkpoint(source: &dyn Source) -> Result<Checkpoint> {
    let (beside, files): (Vec<_>, Vec<_>) = source.files().into_iter().partition(ollama::is_beside);
    if huggingface::is_folder(&files) {
        let mut checkpoint = huggingface::read(source, &files, &families::folders()).await?;
        adapt_folder(&mut checkpoint)?;
        return Ok(checkpoint);
    }
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let checkpoint = read_gguf(source, &file).await?;
        parts.push((file, checkpoint));
    }
    let checkpoint = split::join(parts)?;
    match no_model(&checkpoint.metadata)? {
        Some(what) => Err(FormatError::NoModel { what }.into()),
        None if checkpoint.tensors.is_empty() => {
            Err(FormatError::NoModel { what: "a vocabulary without weights: choose the model itself" }.into())
        }
        None => {
            let mut checkpoint = adapted(checkpoint)?;
            checkpoint.scales = read_scales(source, &checkpoint).await?;
            ollama::add(source, &beside, &mut checkpoint).await?;
            Ok(checkpoint)
        }
    }
}

/// The factors that matrices have in a tensor of one number beside them: `X.scale` of `X.weight`.
async fn read_scales(source: &dyn Source, checkpoint: &Checkpoint) -> Result<HashMap<String, f32>> {
    let mut scales = HashMap::new();
    for tensor in &checkpoint.tensors {
        let scaled = tensor.name.strip_suffix(".scale").map(|stem| format!("{stem}.weight"));
        let Some(scaled) = scaled.filter(|scaled| checkpoint.find(scaled).is_some()) else { continue };
        if (tensor.dtype, tensor.elements()) != (DType::F32, 1) {
            continue;
        }
        let bytes = read_rows(source, tensor, 0, tensor.rows()).await?;
        let scale = bytes.first_chunk().map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes));
        if !scale.is_finite() {
            return Err(EngineError::Tensor { name: tensor.name.clone(), problem: format!("is {scale} instead of a factor") });
        }
        scales.insert(scaled, scale);
    }
    Ok(scales)
}

/// What a file is that belongs to models but is none.
fn no_model(metadata: &Metadata) -> Result<Option<&'static str>, FormatError> {
    // Early adapters do not say `general.type`.
    let kind = metadata.str_opt("general.type")?.or_else(|| metadata.contains("adapter.type").then_some("adapter"));
    Ok(doppler_files::no_model(kind, metadata.str_opt("general.architecture")?))
}

/// Reads and parses the header of one GGUF file, however long it is.
async fn read_gguf(source: &dyn Source, file: &FileSpan) -> Result<Checkpoint> {
    let mut bytes = FIRST_READ;
    loop {
        let length = file.bytes.min(bytes);
        let prefix = source.read(file.start, length as usize).await?;
        match Gguf::parse(&prefix, Some(file.bytes)) {
            Err(FormatError::NeedMore { at_least }) if length < file.bytes => bytes = at_least.max(2 * bytes),
            other => return Ok(other?),
        }
    }
}

/// The checkpoint of a folder with these tensors, under their Hugging Face names.
///
/// # Errors
/// When a file is no JSON, a key is missing, or the model is of a kind that has no conversion.
pub fn folder_checkpoint(folder: &Folder, tensors: Vec<TensorInfo>) -> Result<Checkpoint, FormatError> {
    let mut checkpoint = huggingface::checkpoint(folder, tensors, &families::folders())?;
    adapt_folder(&mut checkpoint)?;
    Ok(checkpoint)
}

fn adapt_folder(checkpoint: &mut Checkpoint) -> Result<(), FormatError> {
    let name = checkpoint.metadata.str("general.architecture")?.to_owned();
    checkpoint.notes.extend(families::adapt(&name, &mut checkpoint.metadata)?);
    Ok(())
}
