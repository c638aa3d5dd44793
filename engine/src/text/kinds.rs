//! Kinds of tokenizers and of tokens.

/// `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The kind of tokenizer, `tokenizer.ggml.model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `gpt2`: byte-level byte-pair encoding.
    ByteLevel,
    /// `llama`: `SentencePiece` byte-pair encoding with byte fallback.
    SentencePiece,
    /// `t5`: `SentencePiece` unigram.
    Unigram,
    /// `bert`.
    WordPiece,
}
