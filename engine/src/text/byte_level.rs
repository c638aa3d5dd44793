//! Byte-level byte-pair encoding, the tokenizer of GPT-2 and its many successors, on the `tokenizers` crate.

use std::borrow::Cow;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::{Model, NormalizedString, Normalizer};

use super::TextError;
use super::pretokenizer::{self, Splitter};
use super::vocabulary::{TokenType, Vocabulary, byte_characters};
use crate::formats::Metadata;

/// A byte-level model (`tokenizer.ggml.model` = `gpt2`).
#[derive(Debug)]
pub(super) struct ByteLevel {
    nfc: bool,
    splitter: Splitter,
    alphabet: [char; 256],
    bpe: BPE,
    /// Whether BOS is added when the file does not say.
    pub(super) add_bos: bool,
}

impl ByteLevel {
    /// The model of tokens and merges. Files of early converters do not name their pre-tokenizer.
    pub(super) fn new(metadata: &Metadata, tokens: &[String], vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let rules = pretokenizer::find(metadata.str_opt("tokenizer.ggml.pre")?.unwrap_or("default"))?;
        // The tokens text may be made of: no control tokens, so that no text can become one by merging.
        let text_tokens = (0..).zip(tokens).filter(|(id, _)| vocabulary.token_type(*id) != Some(TokenType::Control));
        let ids: Vocab = text_tokens.map(|(id, text)| (text.clone(), id)).collect();
        let mut merges = Vec::new();
        for merge in metadata.string_array("tokenizer.ggml.merges")? {
            // The left part may itself begin with a space, so the separator is sought from the second character.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let Some((left, right)) = merge[first..].find(' ').map(|at| (&merge[..first + at], &merge[first + at + 1..])) else {
                return Err(TextError::Vocabulary { problem: format!("the merge {merge:?} has no two parts") });
            };
            // The crate looks the parts up, but panics on a long result that is no token.
            if !ids.contains_key(&format!("{left}{right}")) {
                return Err(TextError::Vocabulary { problem: format!("the merge {merge:?} makes no token") });
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(rules.ignore_merges).build();
        Ok(Self {
            nfc: rules.nfc,
            splitter: Splitter::new(rules)?,
            alphabet: byte_characters(),
            bpe: bpe.map_err(|e| TextError::Vocabulary { problem: e.to_string() })?,
            add_bos: rules.add_bos,
        })
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut text = Cow::Borrowed(text);
        if self.nfc && !text.is_ascii() {
            let mut normalized = NormalizedString::from(text.as_ref());
            NFC.normalize(&mut normalized)?;
            text = Cow::Owned(normalized.get().to_owned());
        }
        let mut mapped = String::new();
        for word in self.splitter.split(&text) {
            mapped.clear();
            mapped.extend(word.bytes().map(|b| self.alphabet[usize::from(b)]));
            ids.extend(self.bpe.tokenize(&mapped)?.iter().map(|token| token.id));
        }
        Ok(())
    }
}
