//! The vocabulary as bytes: what each token contributes to the decoded text.

use std::collections::{HashMap, HashSet};

use aho_corasick::AhoCorasick;

use super::TextError;
use super::jinja::MAX_BYTES;
use super::kinds::{Kind, TokenType};
use super::special::{Marker, is_end_text, looks_like_marker, marker};
use crate::formats::{Metadata, Value};

/// Token types, and the bytes of every token in one block.
#[derive(Debug)]
pub(super) struct Vocabulary {
    types: Vec<TokenType>,
    bytes: Vec<u8>,
    /// `bytes[ends[i - 1]..ends[i]]` are token `i`'s.
    ends: Vec<u32>,
    /// Most bytes that a token has.
    longest: usize,
    /// Tokens that are control tokens in a chat, though not by their types.
    markers: HashMap<u32, Marker>,
    /// The first word has a space before it that is not in the text; decoding takes it away again.
    pub(super) strip_first_space: bool,
}

impl Vocabulary {
    pub(super) fn new(metadata: &Metadata, tokens: &[String], kind: Kind, strip_first_space: bool) -> Result<Self, TextError> {
        let mut types = match metadata.u32_array_opt("tokenizer.ggml.token_type")? {
            None => vec![TokenType::Normal; tokens.len()],
            Some(ids) if ids.len() >= tokens.len() => ids.into_iter().take(tokens.len()).map(token_type).collect(),
            Some(ids) => {
                return Err(TextError::Vocabulary { problem: format!("{} tokens but {} token types", tokens.len(), ids.len()) });
            }
        };
        for (token, kind_of_token) in tokens.iter().zip(&mut types) {
            if matches!(kind_of_token, TokenType::Normal | TokenType::Unused) && is_end_text(token) {
                log::warn!("{token:?} is typed as text in the file; taken for a control token");
                *kind_of_token = TokenType::Control;
            }
        }
        let named = named(tokens, &templates(metadata))?;
        let marker = |((id, text), kind): ((u32, &String), &TokenType)| Some((id, marker(text, *kind, named.contains(&id))?));
        let markers = (0..).zip(tokens).zip(&types).filter_map(marker).collect();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        let mut longest = 0;
        let alphabet: HashMap<char, u8> = byte_characters().into_iter().zip(0..=255).collect();
        for (token, &kind_of_token) in tokens.iter().zip(&types) {
            let start = bytes.len();
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
            // Typed, the mark for a space has its three bytes.
            let typed = if matches!(kind, Kind::SentencePiece | Kind::Unigram) { token.len() } else { 0 };
            longest = longest.max(bytes.len() - start).max(typed);
            ends.push(bytes.len() as u32); // the file's strings are bounded well below 4 GiB
        }
        Ok(Self { types, bytes, ends, longest, markers, strip_first_space })
    }

    pub(super) fn len(&self) -> usize {
        self.types.len()
    }

    /// The token's type; `None` for ids beyond the vocabulary (padding rows of an embedding).
    pub(super) fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// What a token that is no control token by its type is in a chat message, if it is more than text.
    pub(super) fn marker(&self, id: u32) -> Option<Marker> {
        self.markers.get(&id).copied()
    }

    pub(super) fn has_markers(&self) -> bool {
        !self.markers.is_empty()
    }

    /// Whether text may become this token piece by piece: neither control tokens nor markers, which are only found whole.
    pub(super) fn is_text(&self, id: u32) -> bool {
        let kind = self.token_type(id);
        !matches!(kind, None | Some(TokenType::Control | TokenType::Unknown)) && !self.markers.contains_key(&id)
    }

    /// Most bytes that a token has in the decoded text.
    pub(super) fn longest(&self) -> usize {
        self.longest
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

/// The tokens that look like markers and stand in the templates, found in one pass.
fn named(tokens: &[String], templates: &str) -> Result<HashSet<u32>, TextError> {
    let (ids, texts): (Vec<u32>, Vec<&str>) =
        (0..).zip(tokens).filter(|(_, text)| looks_like_marker(text)).map(|(id, text)| (id, text.as_str())).unzip();
    let finder = AhoCorasick::new(texts).map_err(|e| TextError::Vocabulary { problem: e.to_string() })?;
    Ok(finder.find_overlapping_iter(templates).map(|found| ids[found.pattern().as_usize()]).collect())
}

/// The sources of the chat templates; one that is too long to be a template has no markers.
fn templates(metadata: &Metadata) -> String {
    let source = |key: &str| match metadata.get(key) {
        Some(Value::String(source)) if source.len() <= MAX_BYTES => source.as_str(),
        _ => "",
    };
    ["tokenizer.chat_template", "tokenizer.chat_template.tool_use"].map(source).join("\n")
}

/// What the number means; what means nothing is text, as in llama.cpp.
fn token_type(id: u32) -> TokenType {
    match id {
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => TokenType::Normal, // 0 is "undefined", written by early converters
    }
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
