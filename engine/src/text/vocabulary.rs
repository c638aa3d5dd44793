//! The vocabulary as bytes: what each token contributes to the decoded text.

use std::collections::HashMap;

use super::TextError;
use crate::formats::Metadata;

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

/// Token types, and the bytes of every token in one block.
#[derive(Debug)]
pub(super) struct Vocabulary {
    types: Vec<TokenType>,
    bytes: Vec<u8>,
    /// `bytes[ends[i - 1]..ends[i]]` are token `i`'s.
    ends: Vec<u32>,
    /// The first word has a space before it that is not in the text; decoding takes it away again.
    pub(super) strip_first_space: bool,
}

impl Vocabulary {
    pub(super) fn new(metadata: &Metadata, tokens: &[String], kind: Kind, strip_first_space: bool) -> Result<Self, TextError> {
        let types = match metadata.u32_array_opt("tokenizer.ggml.token_type")? {
            None => vec![TokenType::Normal; tokens.len()],
            Some(ids) if ids.len() == tokens.len() => ids.into_iter().map(token_type).collect::<Result<_, _>>()?,
            Some(ids) => {
                return Err(TextError::Vocabulary { problem: format!("{} tokens but {} token types", tokens.len(), ids.len()) });
            }
        };
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        let alphabet: HashMap<char, u8> = byte_characters().into_iter().zip(0..=255).collect();
        for (token, &kind_of_token) in tokens.iter().zip(&types) {
            match (kind_of_token, kind) {
                (TokenType::Control | TokenType::Unknown, _) => {} // not part of the text
                (TokenType::UserDefined, Kind::ByteLevel | Kind::WordPiece) => bytes.extend(token.as_bytes()),
                (TokenType::Byte, _) => match token.strip_prefix("<0x").and_then(|t| u8::from_str_radix(t.strip_suffix('>')?, 16).ok()) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend(token.as_bytes()),
                },
                (_, Kind::SentencePiece | Kind::Unigram | Kind::WordPiece) => bytes.extend(token.replace('▁', " ").as_bytes()),
                (_, Kind::ByteLevel) => {
                    let decoded: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
                    bytes.extend(decoded.unwrap_or_else(|| token.as_bytes().to_vec()));
                }
            }
            ends.push(bytes.len() as u32); // the file's strings are bounded well below 4 GiB
        }
        Ok(Self { types, bytes, ends, strip_first_space })
    }

    pub(super) fn len(&self) -> usize {
        self.types.len()
    }

    /// The token's type; `None` for ids beyond the vocabulary (padding rows of an embedding).
    pub(super) fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// Ids and texts of the tokens of a type; `tokens` are those this was made of.
    pub(super) fn of_type<'a>(&'a self, tokens: &'a [String], wanted: TokenType) -> impl Iterator<Item = (u32, &'a str)> {
        (0..).zip(tokens).zip(&self.types).filter(move |(_, kind)| **kind == wanted).map(|((id, text), _)| (id, text.as_str()))
    }

    /// The token's bytes in the decoded text; none for control tokens and ids beyond the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }
}

fn token_type(id: u32) -> Result<TokenType, TextError> {
    Ok(match id {
        0 | 1 => TokenType::Normal, // 0 is "undefined", written by early converters
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        id => {
            return Err(TextError::Vocabulary { problem: format!("unknown token type {id}") });
        }
    })
}

/// GPT-2's printable alphabet: the character of each byte. Printable Latin-1 stands for itself, the other bytes follow from U+0100 in
/// order.
pub(super) fn byte_characters() -> [char; 256] {
    let mut unprintable = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => unprintable.next().unwrap_or_default(),
    })
}
