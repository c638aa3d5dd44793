//! `SentencePiece`: normalization, byte-pair encoding by scores, and unigram segmentation, as in Google's library.
//!
//! Source: <https://github.com/google/sentencepiece> (`normalizer.cc`, `bpe_model.cc`, `unigram_model.cc`). The `tokenizers` crate
//! approximates both models: it ranks merges where the library breaks ties by position, and adds scores in another precision.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;

use super::TextError;
use super::kinds::TokenType;
use super::merge::merge;
use super::pace::Pace;
use super::vocabulary::Vocabulary;
use crate::formats::{Array, Metadata, Value};

/// Stands for a space in pieces.
const SPACE: char = '▁';
/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A `SentencePiece` model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    normalizer: Normalizer,
    model: Model,
    /// The token of each byte, for characters without a piece.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
}

#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    Unigram(Unigram),
}

/// A part of the text and its token, unless it has none.
type Segment<'t> = (&'t str, Option<u32>);

impl SentencePiece {
    /// The byte-pair model (`tokenizer.ggml.model` = `llama`) of tokens and scores; with `unigram` the unigram model (`t5`).
    pub(super) fn new(
        metadata: &Metadata,
        tokens: &[String],
        vocabulary: &Vocabulary,
        unigram: bool,
        add_space_prefix: bool,
    ) -> Result<Self, TextError> {
        let scores = scores(metadata, tokens.len())?;
        let mut bytes = vec![None; 256];
        for (id, _) in vocabulary.of_type(tokens, TokenType::Byte) {
            if let [byte] = vocabulary.bytes(id) {
                bytes[usize::from(*byte)] = Some(id);
            }
        }
        let unknown = vocabulary.of_type(tokens, TokenType::Unknown).next().map(|(id, _)| id);
        let pieces = (0_u32..)
            .zip(tokens)
            .zip(scores)
            .filter(|((id, text), _)| !text.is_empty() && vocabulary.is_text(*id) && vocabulary.token_type(*id) != Some(TokenType::Byte));
        let pieces = pieces.map(|((id, text), score)| (text.replace(' ', "▁"), id, score));
        // Byte-pair models that replace characters or collapse spaces are not known; converters do not say either.
        let (model, normalizer) = if unigram {
            let collapse_spaces = metadata.bool_opt("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false);
            let charsmap = Charsmap::from_gguf(metadata)?;
            (Model::Unigram(Unigram::new(pieces)?), Normalizer { charsmap, add_space_prefix, collapse_spaces })
        } else {
            (Model::Bpe(Bpe::new(pieces)), Normalizer { charsmap: None, add_space_prefix, collapse_spaces: false })
        };
        Ok(Self { normalizer, model, bytes, unknown })
    }

    /// Whether every character of a text is in a token of its own.
    pub(super) fn keeps_all(&self) -> bool {
        let Normalizer { charsmap, collapse_spaces, .. } = &self.normalizer;
        charsmap.is_none() && !collapse_spaces && self.bytes.iter().all(Option::is_some)
    }

    /// Appends the ids of `text`.
    pub(super) async fn encode(&self, text: &str, ids: &mut Vec<u32>, pace: &mut Pace<'_>) -> Result<(), TextError> {
        let text = self.normalizer.normalize(text, pace).await;
        let segments = match &self.model {
            Model::Bpe(model) => model.segment(&text, pace).await,
            Model::Unigram(model) => model.segment(&text, pace).await,
        };
        let mut after_unknown = false;
        for (part, id) in segments {
            pace.work(1).await;
            let bytes = || part.bytes().map(|b| self.bytes[usize::from(b)]).collect::<Option<Vec<_>>>();
            after_unknown = if let Some(id) = id {
                ids.push(id);
                false
            } else if let Some(bytes) = bytes() {
                ids.extend(bytes);
                false
            } else {
                // A run of unknown characters is one token.
                ids.extend(self.unknown.filter(|_| !after_unknown));
                true
            };
            pace.check(ids.len())?;
        }
        Ok(())
    }
}

/// `tokenizer.ggml.scores`, a number for each token or more. Without any all pieces are equally good, as in llama.cpp.
fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, TextError> {
    let key = "tokenizer.ggml.scores";
    let scores: Vec<f32> = match metadata.get(key) {
        None => return Ok(vec![0.0; tokens]),
        Some(Value::Array(Array::F64(scores))) => scores.iter().map(|score| *score as f32).collect(),
        Some(Value::Array(Array::I32(scores))) => scores.iter().map(|score| *score as f32).collect(),
        Some(_) => metadata.f32_array_opt(key)?.unwrap_or_default().to_vec(),
    };
    if scores.len() < tokens {
        return Err(TextError::Vocabulary { problem: format!("{tokens} tokens but {} scores", scores.len()) });
    }
    Ok(scores)
}

/// What happens to text before it is segmented.
#[derive(Debug)]
struct Normalizer {
    charsmap: Option<Charsmap>,
    /// Puts a space before the text.
    add_space_prefix: bool,
    /// Keeps one of several spaces, and none at either end.
    collapse_spaces: bool,
}

impl Normalizer {
    async fn normalize(&self, text: &str, pace: &mut Pace<'_>) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if self.add_space_prefix {
            out.push(SPACE);
        }
        let mut after_space = self.collapse_spaces;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            pace.work(1).await;
            let mapped = self.charsmap.as_ref().and_then(|map| map.longest_prefix(rest));
            let (len, mut part) = mapped.unwrap_or((first.len_utf8(), &rest[..first.len_utf8()]));
            rest = &rest[len..];
            if after_space {
                part = part.trim_start_matches(' ');
            }
            out.extend(part.chars().map(|c| if c == ' ' { SPACE } else { c }));
            if !part.is_empty() {
                after_space = self.collapse_spaces && part.ends_with(' ');
            }
        }
        if self.collapse_spaces {
            out.truncate(out.trim_end_matches(SPACE).len());
        }
        out
    }
}

/// `tokenizer.ggml.precompiled_charsmap`: replacements of character sequences. A double-array trie (darts-clone) from sequences to
/// offsets into a block of zero-terminated strings.
#[derive(Debug)]
struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    fn from_gguf(metadata: &Metadata) -> Result<Option<Self>, TextError> {
        let bytes = match metadata.get("tokenizer.ggml.precompiled_charsmap") {
            Some(Value::Array(Array::U8(bytes))) => bytes.clone(),
            Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|b| *b as u8).collect(),
            _ => return Ok(None),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        // The size of the trie in bytes, the trie, the strings.
        let parsed = bytes.split_at_checked(4).and_then(|(size, rest)| {
            rest.split_at_checked(u32::from_le_bytes(size.try_into().ok()?) as usize).filter(|(trie, _)| trie.len() % 4 == 0)
        });
        let Some((trie, replacements)) = parsed else {
            return Err(TextError::Vocabulary { problem: "the character map is cut off".to_owned() });
        };
        let units = trie.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Some(Self { units, replacements: replacements.to_vec() }))
    }

    /// Length of the longest sequence at the beginning of `text` that has a replacement, and that replacement.
    fn longest_prefix(&self, text: &str) -> Option<(usize, &str)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut node = offset(*self.units.first()?);
        let mut longest = None;
        for (i, byte) in text.bytes().enumerate() {
            node ^= u32::from(byte);
            let Some(&unit) = self.units.get(node as usize).filter(|unit| **unit & (1 << 31 | 0xff) == u32::from(byte)) else { break };
            node ^= offset(unit);
            // A leaf: the node that follows on a zero byte has the value.
            if unit & (1 << 8) != 0 {
                let value = self.units.get(node as usize).map(|unit| (unit & !(1 << 31)) as usize);
                longest = value.map(|value| (i + 1, value));
            }
        }
        let (len, start) = longest.filter(|(len, _)| text.is_char_boundary(*len))?;
        let string = self.replacements.get(start..)?.split(|b| *b == 0).next()?;
        Some((len, std::str::from_utf8(string).ok()?))
    }
}

/// Byte-pair encoding: neighbours that form a piece are merged, the piece with the best score first, of equals the leftmost.
#[derive(Debug)]
struct Bpe {
    /// Id, and rank by score.
    pieces: HashMap<String, (u32, u32)>,
    /// Length of the longest piece in bytes.
    longest: usize,
}

impl Bpe {
    fn new(pieces: impl Iterator<Item = (String, u32, f32)>) -> Self {
        // An integer of the opposite order.
        let rank = |score: f32| {
            let bits = (score + 0.0).to_bits(); // no negative zero
            if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
        };
        let pieces: HashMap<_, _> = pieces.map(|(text, id, score)| (text, (id, rank(score)))).collect();
        let longest = pieces.keys().map(String::len).max().unwrap_or(0);
        Self { pieces, longest }
    }

    async fn segment<'t>(&self, text: &'t str, pace: &mut Pace<'_>) -> Vec<Segment<'t>> {
        // Symbols are ranges of the text.
        let characters = text.char_indices().map(|(start, c)| (start, start + c.len_utf8()));
        let find = |left: (usize, usize), right: (usize, usize)| {
            let piece = text.get(left.0..right.1).filter(|piece| piece.len() <= self.longest)?;
            self.pieces.get(piece).map(|(_, rank)| (*rank, (left.0, right.1)))
        };
        let merged = merge(characters, find, pace).await;
        let pieces = merged.map(|(start, end)| &text[start..end]);
        pieces.map(|piece| (piece, self.pieces.get(piece).map(|(id, _)| *id))).collect()
    }
}

/// The most likely segmentation, where pieces are independent and their scores are logarithms of probabilities.
#[derive(Debug)]
struct Unigram {
    matcher: AhoCorasick,
    /// Id and score of each pattern of `matcher`.
    pieces: Vec<(u32, f32)>,
    unknown_score: f32,
}

impl Unigram {
    fn new(pieces: impl Iterator<Item = (String, u32, f32)>) -> Result<Self, TextError> {
        let (texts, pieces): (Vec<String>, Vec<(u32, f32)>) = pieces.map(|(text, id, score)| (text, (id, score))).unzip();
        let matcher = AhoCorasick::new(texts).map_err(|e| TextError::Vocabulary { problem: e.to_string() })?;
        let worst = pieces.iter().map(|(_, score)| *score).fold(f32::INFINITY, f32::min);
        Ok(Self { matcher, pieces, unknown_score: worst - UNKNOWN_PENALTY })
    }

    /// Viterbi's algorithm. Of equal paths to a position the one with the longest last piece wins.
    async fn segment<'t>(&self, text: &'t str, pace: &mut Pace<'_>) -> Vec<Segment<'t>> {
        // By position in bytes: score of the best path there, start of its last piece, that piece's id.
        let mut best: Vec<Option<(f32, usize, Option<u32>)>> = vec![None; text.len() + 1];
        best[0] = Some((0.0, 0, None));
        let mut relax = |start: usize, end: usize, score: f32, id: Option<u32>| {
            let Some((before, ..)) = best[start] else { return };
            if best[end].is_none_or(|(best, ..)| before + score > best) {
                best[end] = Some((before + score, start, id));
            }
        };
        let mut matches = self.matcher.find_overlapping_iter(text).peekable();
        for (start, c) in text.char_indices() {
            let end = start + c.len_utf8();
            let mut known = false;
            pace.work(1).await;
            while let Some(m) = matches.next_if(|m| m.end() == end) {
                let (id, score) = self.pieces[m.pattern().as_usize()];
                relax(m.start(), end, score, Some(id));
                known |= m.start() == start;
            }
            if !known {
                relax(start, end, self.unknown_score, None);
            }
        }
        let mut segments = Vec::new();
        let mut end = text.len();
        while let Some((_, start, id)) = best[end].filter(|_| end > 0) {
            segments.push((&text[start..end], id));
            end = start;
        }
        segments.reverse();
        segments
    }
}
