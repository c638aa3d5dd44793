//! From the contents of a GGUF file to what the engine uses of it: with what its family leaves unsaid, and without what belongs to
//! other programs. What a person might miss is said in [`Checkpoint::notes`].

use super::families::{self, MAX_CONTEXT};
use crate::formats::{Checkpoint, FormatError, Metadata, TensorInfo, Value};

/// The checkpoint as the engine uses it.
///
/// # Errors
/// When a value that decides on this is of another type.
pub(super) fn adapted(checkpoint: Checkpoint) -> Result<Checkpoint, FormatError> {
    let Checkpoint { mut metadata, mut tensors, mut notes, .. } = checkpoint;
    use_common_name(&mut metadata)?;
    if let Some(name) = metadata.str_opt("general.architecture")?.map(str::to_owned) {
        notes.extend(families::adapt(&name, &mut metadata)?);
        notes.extend(without_prediction(&name, &mut metadata, &mut tensors)?);
        notes.extend(clipped_context(&name, &mut metadata)?);
    }
    notes.extend(without_senses(&mut tensors));
    // Frequencies that early converters stored and that follow from the metadata.
    tensors.retain(|tensor| !tensor.name.ends_with("attn_rot_embd.weight"));
    let mut adapted = Checkpoint::new(metadata, tensors)?;
    adapted.notes = notes;
    Ok(adapted)
}

/// Brings a family's keys under its common name.
fn use_common_name(metadata: &mut Metadata) -> Result<(), FormatError> {
    let name = metadata.str_opt("general.architecture")?;
    let Some((alias, common)) = name.and_then(families::common_name) else { return Ok(()) };
    let prefix = format!("{alias}.");
    let keys: Vec<String> = metadata.iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).map(str::to_owned).collect();
    for key in keys {
        if let Some(value) = metadata.remove(&key) {
            metadata.insert(format!("{common}.{}", &key[prefix.len()..]), value);
        }
    }
    metadata.insert("general.architecture", Value::String(common.to_owned()));
    Ok(())
}

/// The engine counts positions up to a limit that no model reaches in use.
fn clipped_context(architecture: &str, metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    let key = format!("{architecture}.context_length");
    let stated = metadata.u64_opt(&key)?.filter(|stated| *stated > u64::from(MAX_CONTEXT));
    Ok(stated.map(|stated| {
        metadata.insert(key, Value::U32(MAX_CONTEXT));
        format!("the file states a context of {stated} tokens; at most {MAX_CONTEXT} are used")
    }))
}

/// Encoders of pictures and sound, which Ollama's conversions keep in the same file.
fn without_senses(tensors: &mut Vec<TensorInfo>) -> Option<String> {
    let before = tensors.len();
    tensors.retain(|tensor| !["v.", "mm.", "a."].iter().any(|prefix| tensor.name.starts_with(prefix)));
    (tensors.len() < before).then(|| format!("{} tensors for pictures or sound are not used: the model reads text", before - tensors.len()))
}

/// Layers that predict further tokens: they come behind the others, counted among them or not.
fn without_prediction(architecture: &str, metadata: &mut Metadata, tensors: &mut Vec<TensorInfo>) -> Result<Option<String>, FormatError> {
    let Some(extra) = metadata.u32_opt(&format!("{architecture}.nextn_predict_layers"))?.filter(|extra| *extra > 0) else {
        return Ok(None);
    };
    let layer = |tensor: &TensorInfo| tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let Some(first) = tensors.iter().filter(|tensor| tensor.name.contains(".nextn.")).filter_map(layer).min() else { return Ok(None) };
    let key = format!("{architecture}.block_count");
    if metadata.u32(&key)? == first.saturating_add(extra) {
        metadata.insert(key, Value::U32(first));
    }
    tensors.retain(|tensor| layer(tensor).is_none_or(|layer| layer < first));
    Ok(Some("the layers that predict further tokens are not used".to_owned()))
}
