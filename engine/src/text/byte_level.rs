//! Byte-level byte-pair encoding, the tokenizer of GPT-2 and its many successors.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization_alignments::UnicodeNormalization;

use super::TextError;
use super::merge::merge;
use super::pace::Pace;
use super::pretokenizer::{self, Splitter};
use super::vocabulary::{Vocabulary, byte_characters};
use crate::formats::Metadata;

/// Bytes of text that become one byte when its characters are composed, at most: those of a Korean syllable do.
const COMPOSED: usize = 3;

/// A byte-level model (`tokenizer.ggml.model` = `gpt2`).
#[derive(Debug)]
pub(super) struct ByteLevel {
    nfc: bool,
    splitter: Splitter,
    /// The token of each byte.
    bytes: [Option<u32>; 256],
    /// Rank and result of the pairs that are merged.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The tokens of the bytes of results that are no token, by the order of their ids, which follow those of the vocabulary.
    no_tokens: Vec<Vec<u32>>,
    vocabulary: u32,
    /// Words that are taken whole, whatever the merges say.
    words: HashMap<Box<[u8]>, u32>,
    /// Whether BOS is added when the file does not say.
    pub(super) add_bos: bool,
}

impl ByteLevel {
    /// The model of tokens and merges. Files of early converters do not name their pre-tokenizer, or name it "".
    pub(super) fn new(metadata: &Metadata, tokens: &[String], vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let name = metadata.str_opt("tokenizer.ggml.pre")?.filter(|name| !name.is_empty());
        let rules = pretokenizer::rules(name.unwrap_or("default"))?;
        // The tokens text may be made of: no control tokens, so that no text can become one by merging.
        let text_tokens = || (0..).zip(tokens).filter(|(id, text)| vocabulary.is_text(*id) && !text.is_empty());
        let ids: HashMap<&str, u32> = text_tokens().map(|(id, text)| (text.as_str(), id)).collect();
        let mut character = [0; 4];
        let alphabet = byte_characters();
        let bytes = alphabet.map(|c| ids.get(&*c.encode_utf8(&mut character)).copied());
        let byte_of: HashMap<char, Option<u32>> = alphabet.into_iter().zip(bytes).collect();
        let mut no_tokens: Vec<Vec<u32>> = Vec::new();
        let mut results: HashMap<String, u32> = HashMap::new();
        let mut symbol = |text: &str| {
            let known = ids.get(text).or_else(|| results.get(text)).copied();
            known.unwrap_or_else(|| {
                let id = (tokens.len() + no_tokens.len()) as u32;
                no_tokens.push(text.chars().filter_map(|c| byte_of.get(&c).copied().flatten()).collect());
                results.insert(text.to_owned(), id);
                id
            })
        };
        let mut merges = HashMap::new();
        for (rank, text) in (0..).zip(metadata.string_array("tokenizer.ggml.merges")?) {
            // The left part may itself begin with a space, so the separator is sought from the second character.
            let first = text.chars().next().map_or(0, char::len_utf8);
            let parts = text[first..].find(' ').map(|at| (&text[..first + at], &text[first + at + 1..]));
            // As in llama.cpp: what has no two parts merges nothing, and what makes no token is taken apart in the end.
            let Some((left, right)) = parts.filter(|(left, right)| !left.is_empty() && !right.is_empty()) else {
                log::warn!("the merge {text:?} has no two parts; ignored");
                continue;
            };
            let result = symbol(&[left, right].concat());
            merges.entry((symbol(left), symbol(right))).or_insert((rank, result));
        }
        let whole = text_tokens().filter(|(_, text)| rules.ignore_merges && text.chars().all(|c| byte_of.contains_key(&c)));
        let words = whole.map(|(id, _)| (vocabulary.bytes(id).into(), id)).collect();
        Ok(Self {
            nfc: rules.nfc,
            splitter: Splitter::new(rules)?,
            bytes,
            merges,
            no_tokens,
            vocabulary: tokens.len() as u32,
            words,
            add_bos: rules.add_bos,
        })
    }

    /// Whether every byte of a text is in a token.
    pub(super) fn keeps_all(&self) -> bool {
        self.bytes.iter().all(Option::is_some)
    }

    /// Bytes of a text that become one before it is encoded, at most.
    pub(super) fn shrinks(&self) -> usize {
        if self.nfc { COMPOSED } else { 1 }
    }

    /// Appends the ids of `text`.
    pub(super) async fn encode(&self, text: &str, ids: &mut Vec<u32>, pace: &mut Pace<'_>) -> Result<(), TextError> {
        let text = if self.nfc && !text.is_ascii() { Cow::Owned(composed(text, pace).await) } else { Cow::Borrowed(text) };
        for word in self.splitter.split(&text) {
            pace.work(1 + word.len() / 16).await;
            if let Some(id) = self.words.get(word.as_bytes()) {
                ids.push(*id);
            } else {
                let symbols = word.bytes().filter_map(|byte| self.bytes[usize::from(byte)]);
                for id in merge(symbols, |left, right| self.merges.get(&(left, right)).copied(), pace).await {
                    match id.checked_sub(self.vocabulary).and_then(|at| self.no_tokens.get(at as usize)) {
                        Some(bytes) => ids.extend(bytes),
                        None => ids.push(id),
                    }
                }
            }
            pace.check(ids.len())?;
        }
        Ok(())
    }
}

/// `text` in Unicode's composed form.
async fn composed(text: &str, pace: &mut Pace<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    for (c, _) in text.nfc() {
        out.push(c);
        pace.work(1).await;
    }
    out
}
