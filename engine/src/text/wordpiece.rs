//! `WordPiece`, the tokenizer of BERT, on the `tokenizers` crate.

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece as Model;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{Model as _, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::TextError;
use super::pace::Pace;
use super::vocabulary::Vocabulary;
use crate::formats::Metadata;

/// A `WordPiece` model (`tokenizer.ggml.model` = `bert`).
#[derive(Debug)]
pub(super) struct WordPiece {
    normalizer: BertNormalizer,
    model: Model,
}

impl WordPiece {
    /// GGUF marks pieces that begin a word with `▁`; BERT's vocabulary, and the crate, mark the others with `##`.
    pub(super) fn new(metadata: &Metadata, tokens: &[String], vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let unknown = metadata.u32_opt("tokenizer.ggml.unknown_token_id")?.unwrap_or(100);
        let unknown = tokens.get(unknown as usize).cloned();
        let unknown = unknown.ok_or_else(|| TextError::Vocabulary { problem: "there is no token for unknown words".to_owned() })?;
        let pieces = (0..).zip(tokens).filter_map(|(id, token)| {
            match token.strip_prefix('▁') {
                _ if *token == unknown => Some((unknown.clone(), id)),
                _ if token.is_empty() || !vocabulary.is_text(id) => None,
                // No word begins with nothing: the piece `▁` is one within a word.
                Some(beginning) if !beginning.is_empty() => Some((beginning.to_owned(), id)),
                _ => Some((format!("##{token}"), id)),
            }
        });
        let model = Model::builder().vocab(pieces.collect::<Vocab>()).unk_token(unknown).build();
        let lowercase = metadata.bool_opt("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = metadata.bool_opt("tokenizer.ggml.normalizer.strip_accents")?;
        Ok(Self {
            normalizer: BertNormalizer::new(true, true, strip_accents, lowercase),
            model: model.map_err(|e| TextError::Vocabulary { problem: e.to_string() })?,
        })
    }

    /// Appends the ids of `text`. Words are apart at these spaces, whatever is done to them: one is encoded at a time.
    pub(super) async fn encode(&self, text: &str, ids: &mut Vec<u32>, pace: &mut Pace<'_>) -> Result<(), TextError> {
        for words in text.split([' ', '\t', '\n', '\r']).filter(|words| !words.is_empty()) {
            pace.work(words.len()).await;
            self.encode_words(words, ids).map_err(|e| TextError::Encode { message: e.to_string() })?;
            pace.check(ids.len())?;
        }
        Ok(())
    }

    fn encode_words(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words)?;
        for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            ids.extend(self.model.tokenize(word)?.iter().map(|token| token.id));
        }
        Ok(())
    }
}
