//! A failed request, and the words by which programs tell failures apart.

use serde::{Deserialize, Serialize};

use crate::engine::Memory;

/// A failure as the wire carries it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default)]
pub struct Failure {
    /// A `DOMException` name.
    pub name: String,
    /// A sentence that says what happened and what to do.
    pub message: String,
    /// A word for programs, such as [`CONTEXT_EXCEEDED`].
    pub code: String,
    /// Whether web pages may read the message; only the engine's worker says so.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub public: Option<bool>,
    /// Depends on the code. Failures that are not the engine's may have other data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "unknown"))]
    pub data: Option<Box<FailureData>>,
}

/// The data of the engine's failures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default)]
pub struct FailureData {
    /// Tokens of a conversation that is too long.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub requested: Option<u32>,
    /// Tokens of the context that it does not fit.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub quota: Option<u32>,
    /// Memory of a model that does not fit the device.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub memory: Option<Memory>,
    /// Tokens of context with which it needs that.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub context: Option<u32>,
    /// The most tokens of context with which it would fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_context: Option<u32>,
    /// The field of the request that is refused.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub param: Option<String>,
}

/// The [`Failure::code`] of a conversation that is longer than the model's context.
pub const CONTEXT_EXCEEDED: &str = "context_length_exceeded";
/// The [`Failure::code`] of a browser without a GPU for pages.
pub const NO_GPU: &str = "no_gpu";
/// The sentence for [`NO_GPU`], in place of the graphics library's.
pub const NO_GPU_SENTENCE: &str = "This browser gives pages no GPU.";
/// The codes of failures that are the file's: it is no model, or none that can be loaded.
const FILE_FAULTS: [&str; 5] = ["not_a_model", "model_file_invalid", "unsupported_model", "tensor_invalid", "text_processing_failed"];

impl Failure {
    /// The message as a sentence of its own.
    pub fn sentence(&self) -> String {
        if self.is_no_gpu() {
            return NO_GPU_SENTENCE.to_owned();
        }
        let words = [&self.message, &self.name].into_iter().find(|words| !words.is_empty());
        sentence(words.map_or("something failed", String::as_str))
    }

    /// Whether there is no GPU.
    pub fn is_no_gpu(&self) -> bool {
        self.code == NO_GPU
    }

    /// Whether the file is at fault, and will be tomorrow.
    pub fn is_of_the_file(&self) -> bool {
        FILE_FAULTS.contains(&self.code.as_str())
    }
}

/// A sentence of the engine's words, which begin without a capital and end without a full stop. The name of a file or a field stays as it is.
pub fn sentence(words: &str) -> String {
    let mut characters = words.trim_end_matches('.').chars();
    let word = words.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ',', ':', ';', '!', '?', '…']);
    let is_word = word.chars().all(|letter| letter.is_alphabetic() || "'’-".contains(letter));
    let first = characters.next().map(|first| if is_word { first.to_ascii_uppercase() } else { first });
    let ended = words.ends_with(['!', '?', '…']);
    first.into_iter().chain(characters).chain((!ended).then_some('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::{Failure, NO_GPU};

    #[test]
    fn failure_sentence_is_capitalised_and_ended() {
        let sentence = |name: &str, message: &str| {
            let (name, message) = (name.to_owned(), message.to_owned());
            Failure { name, message, ..Failure::default() }.sentence()
        };
        assert_eq!(sentence("E", "the prompt is too long; shorten it"), "The prompt is too long; shorten it.");
        assert_eq!(sentence("E", "It broke."), "It broke.");
        assert_eq!(sentence("E", "really?"), "Really?");
        for name in ["notes.txt is no model.", "max_tokens is too large.", "a1 is no name.", "q4/x.gguf is gone."] {
            assert_eq!(sentence("E", name), name, "a name stays as it is");
        }
        assert_eq!(sentence("E", "tensor blk.0.x is missing"), "Tensor blk.0.x is missing.");
        let no_gpu = Failure { message: "noop support not compiled in".into(), code: NO_GPU.into(), ..Failure::default() };
        assert_eq!(no_gpu.sentence(), "This browser gives pages no GPU.");
        assert_eq!(sentence("AbortError", ""), "AbortError.");
        assert_eq!(sentence("", ""), "Something failed.");
    }
}
