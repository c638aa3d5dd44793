//! Errors of tokenizers and chat templates.

use super::FormatError;

/// Why text could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The model file lacks a key or has it in the wrong type.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A tokenizer model there is no implementation of.
    #[error("the tokenizer {model:?} is not supported (supported: {supported}); choose another model")]
    UnsupportedTokenizer {
        /// `tokenizer.ggml.model` of the file.
        model: String,
        /// The supported values.
        supported: &'static str,
    },
    /// A pre-tokenizer whose rules are not known.
    #[error("the pre-tokenizer {pre:?} is not supported (supported: {supported}); choose another model")]
    UnsupportedPreTokenizer {
        /// `tokenizer.ggml.pre` of the file.
        pre: String,
        /// The supported values.
        supported: String,
    },
    /// A vocabulary that contradicts itself.
    #[error("the model file's vocabulary is corrupt: {problem}; download it again")]
    Vocabulary {
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer refused a text.
    #[error("the text cannot be tokenized: {message}")]
    Encode {
        /// The tokenizer's message.
        message: String,
    },
    /// The text has more tokens than were allowed for.
    #[error("the text has at least {tokens} tokens, which is too many")]
    TooLong {
        /// Tokens that it has at least.
        tokens: usize,
    },
    /// The model file has no chat template: a base model or an encoder. Plain text can still be continued.
    #[error("the model has no chat template: it can only continue plain text; to chat choose one whose name ends in Instruct or Chat")]
    NoChatTemplate,
    /// The chat template does not parse.
    #[error("the model's chat template cannot be used: {message}")]
    Template {
        /// What is wrong and where.
        message: String,
    },
    /// The chat template refused the messages, or failed on them.
    #[error("the model's chat template rejects these messages: {message}")]
    Render {
        /// The template's own words where it raised the error.
        message: String,
    },
    /// The messages contain every one of the 32 noncharacters U+FDD0 to U+FDEF, one of which is needed as a mark.
    #[error("the messages contain all of the noncharacters U+FDD0 to U+FDEF; remove one of them")]
    Noncharacters,
}
