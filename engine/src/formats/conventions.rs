//! From what a file holds to what the engine uses of it: keys of Ollama's own conversions under llama.cpp's names, and without what
//! belongs to other programs. What a person might miss is said in [`Checkpoint::notes`].

use super::{Checkpoint, FormatError, Metadata, TensorInfo, Value};
use crate::model::MAX_CONTEXT;

/// Layers of the Gemma 3 models that Ollama's converter left values out for: 1B; 4B, 12B and 27B.
const GEMMA_3_1B: u32 = 26;
const GEMMA_3_LARGER: [u32; 3] = [34, 48, 62];

/// The checkpoint as the engine uses it.
///
/// # Errors
/// When a value that decides on this is of another type.
pub(super) fn adapted(checkpoint: Checkpoint) -> Result<Checkpoint, FormatError> {
    let Checkpoint { mut metadata, mut tensors, mut notes, .. } = checkpoint;
    if let Some(name) = metadata.str_opt("general.architecture")?.map(str::to_owned) {
        let architecture = &name;
        if architecture == "gemma3" {
            notes.extend(gemma_3_of_ollama(&mut metadata)?);
        }
        notes.extend(without_prediction(architecture, &mut metadata, &mut tensors)?);
        notes.extend(clipped_context(architecture, &mut metadata)?);
    }
    notes.extend(without_senses(&mut tensors));
    // Frequencies that early converters stored and that follow from the metadata.
    tensors.retain(|tensor| !tensor.name.ends_with("attn_rot_embd.weight"));
    Ok(Checkpoint { notes, ..Checkpoint::new(metadata, tensors)? })
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

/// Gemma 3 as Ollama converts it: some keys have other names, and values that its own program has built in are left out. The values are
/// those that Ollama uses, and those of Google's configurations.
fn gemma_3_of_ollama(metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    let own = ["rope.local.freq_base", "rope.global.freq_base", "vision.block_count", "mm.tokens_per_image"];
    let key = |suffix: &str| format!("gemma3.{suffix}");
    let epsilon = key("attention.layer_norm_rms_epsilon");
    if metadata.contains(&epsilon) && !own.iter().any(|suffix| metadata.contains(&key(suffix))) {
        return Ok(None);
    }
    for (theirs, ours) in [
        ("rope.local.freq_base", "rope.freq_base_swa"),
        ("rope.global.freq_base", "rope.freq_base"),
        ("rope.scaling.beta_fast", "rope.scaling.yarn_beta_fast"),
        ("rope.scaling.beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        if let Some(value) = metadata.remove(&key(theirs)) {
            fill(metadata, &key(ours), value);
        }
    }
    fill(metadata, &epsilon, Value::F32(1e-6));
    fill(metadata, &key("rope.freq_base"), Value::F32(1e6));
    fill(metadata, &key("rope.freq_base_swa"), Value::F32(1e4));
    fill(metadata, &key("attention.key_length"), Value::U32(256));
    fill(metadata, &key("attention.value_length"), Value::U32(256));
    let layers = metadata.u32(&key("block_count"))?;
    let has_window = metadata.u32_opt(&key("attention.sliding_window"))?.unwrap_or(0) < metadata.u32(&key("context_length"))?;
    if has_window && layers == GEMMA_3_1B {
        metadata.remove(&key("final_logit_softcapping"));
    }
    if has_window && GEMMA_3_LARGER.contains(&layers) {
        fill(metadata, &key("rope.scaling.type"), Value::String("linear".to_owned()));
        fill(metadata, &key("rope.scaling.factor"), Value::F32(8.0));
    }
    if metadata.str_opt(&key("rope.scaling.type"))? == Some("yarn") {
        // Ollama takes the growth of YaRN out again.
        fill(metadata, &key("rope.scaling.yarn_attn_factor"), Value::F32(1.0));
        fill(metadata, &key("rope.scaling.yarn_beta_fast"), Value::F32(64.0));
    }
    Ok(Some("the file is Ollama's own conversion: what it leaves out is as Ollama has it".to_owned()))
}

/// Sets what is not there.
fn fill(metadata: &mut Metadata, key: &str, value: Value) {
    if !metadata.contains(key) {
        metadata.insert(key, value);
    }
}
