//! What Ollama keeps beside the weights of a model, as the native host hands it over: parameters and system prompt. They become
//! metadata, as a file's own recommendations are.

use serde_json::{Map, Value as Json};

use super::{Array, Checkpoint, FormatError, Value};
use crate::error::Result;
use crate::source::{FileSpan, Source};
use doppler_files::{OLLAMA_PARAMETERS, OLLAMA_SYSTEM};

/// Metadata of this engine's own: a seed, a limit on new tokens, strings that end answers, a system prompt, and penalties, each for
/// requests that bring none.
pub(crate) const SEED: &str = "doppler.default.seed";
pub(crate) const MAX_TOKENS: &str = "doppler.default.max_tokens";
pub(crate) const STOP: &str = "doppler.default.stop";
pub(crate) const SYSTEM: &str = "doppler.default.system";
pub(crate) const PRESENCE_PENALTY: &str = "doppler.default.presence_penalty";
pub(crate) const FREQUENCY_PENALTY: &str = "doppler.default.frequency_penalty";

/// Bytes of either file.
const MAX_BYTES: u64 = 1 << 20;
/// Strings that end answers.
const MAX_STOP_STRINGS: usize = 64;

/// Parameters that are numbers, their metadata keys, and the values that make sense.
const NUMBERS: [(&str, &str, f64, f64); 6] = [
    ("temperature", "general.sampling.temp", 0.0, 100.0),
    ("top_p", "general.sampling.top_p", 0.0, 1.0),
    ("min_p", "general.sampling.min_p", 0.0, 1.0),
    ("repeat_penalty", "general.sampling.penalty_repeat", 0.01, 10.0),
    ("presence_penalty", PRESENCE_PENALTY, -2.0, 2.0),
    ("frequency_penalty", FREQUENCY_PENALTY, -2.0, 2.0),
];

/// Whether a file is one of Ollama's beside the weights.
pub(crate) fn is_beside(file: &FileSpan) -> bool {
    [OLLAMA_PARAMETERS, OLLAMA_SYSTEM].contains(&file.base_name())
}

/// Adds what these files say to a checkpoint. Parameters that have no meaning here are named in its notes.
///
/// # Errors
/// When they cannot be read, or are not what Ollama writes.
pub(crate) async fn add(source: &dyn Source, files: &[FileSpan], checkpoint: &mut Checkpoint) -> Result<()> {
    for file in files {
        let fail = |problem: String| FormatError::Json { file: file.name.clone(), problem };
        if file.bytes > MAX_BYTES {
            return Err(fail(format!("it has {} bytes; up to {MAX_BYTES} are read", file.bytes)).into());
        }
        let bytes = source.read(file.start, file.bytes as usize).await?;
        if file.base_name() == OLLAMA_SYSTEM {
            let system = String::from_utf8_lossy(&bytes).into_owned();
            if !system.trim().is_empty() {
                checkpoint.metadata.insert(SYSTEM, Value::String(system));
            }
        } else {
            let parameters = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
            add_parameters(&parameters, checkpoint);
        }
    }
    Ok(())
}

fn add_parameters(parameters: &Map<String, Json>, checkpoint: &mut Checkpoint) {
    let mut unused = Vec::new();
    for (name, value) in parameters {
        match metadata(name, value) {
            Some((key, value)) => drop(checkpoint.metadata.insert(key, value)),
            // No limit on new tokens, and another seed each time: both are so anyway.
            None if ["num_predict", "seed"].contains(&name.as_str()) && value.as_i64().is_some_and(|n| n < 0) => {}
            None => unused.push(name.as_str()),
        }
    }
    unused.sort_unstable();
    if !unused.is_empty() {
        checkpoint.notes.push(format!("of Ollama's parameters, these are not used: {}", unused.join(", ")));
    }
}

/// Key and value of a parameter as metadata; `None` where it has no meaning here.
fn metadata(name: &str, value: &Json) -> Option<(&'static str, Value)> {
    if let Some((_, key, least, most)) = NUMBERS.iter().find(|(known, ..)| *known == name) {
        let value = value.as_f64().filter(|value| (*least..=*most).contains(value))?;
        return Some((key, Value::F32(value as f32)));
    }
    match name {
        "top_k" => Some(("general.sampling.top_k", Value::U32(value.as_u64()?.try_into().ok()?))),
        "seed" => Some((SEED, Value::U32(value.as_u64()? as u32))),
        "num_predict" => Some((MAX_TOKENS, Value::U32(value.as_u64().filter(|n| *n > 0)?.try_into().ok()?))),
        "stop" => {
            let strings: Option<Vec<String>> = value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            let strings = strings.filter(|strings| strings.len() <= MAX_STOP_STRINGS && !strings.iter().any(String::is_empty))?;
            Some((STOP, Value::Array(Array::String(strings))))
        }
        _ => None,
    }
}
