//! The tokenizer a GGUF file describes, on the `tokenizers` crate.
//!
//! The crate does pre-tokenization and byte-pair merging. Added tokens are split off here, before it: so that control tokens can be
//! told from text that merely looks like them, and because GGUF says less about added tokens than `tokenizer.json`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::TextError;
use super::detokenizer::Detokenizer;
use super::pretokenizer;
use super::vocabulary::{Kind, TokenType, Vocabulary};
use crate::formats::Metadata;

/// Texts of tokens that end a turn or a document in the models at large; those of them that are control or user-defined tokens stop
/// generation, as in llama.cpp, because many files name only one of them in `eos_token_id`.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "</s>",
    "<eos>",
];

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    model: tokenizers::Tokenizer,
    kind: Kind,
    add_space_prefix: bool,
    vocabulary: Arc<Vocabulary>,
    /// Control tokens: never found in plain text.
    control: AddedTokens,
    /// User-defined tokens: found in any text, visible in decoded text.
    user_defined: AddedTokens,
    special: HashMap<&'static str, (u32, String)>,
    add_bos: bool,
    stop: BTreeSet<u32>,
}

impl Tokenizer {
    /// The tokenizer described by `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`TextError::UnsupportedTokenizer`], [`TextError::UnsupportedPreTokenizer`], [`TextError::Vocabulary`], or a missing key.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let tokens = metadata.string_array("tokenizer.ggml.tokens")?;
        let (kind, space_prefix, add_bos) = match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => (Kind::ByteLevel, false, pretokenizer::find(pre_name(metadata)?)?.add_bos),
            "llama" => (Kind::SentencePiece, true, true),
            model => {
                return Err(TextError::UnsupportedTokenizer { model: model.to_owned(), supported: "gpt2, llama" });
            }
        };
        let add_space_prefix = metadata.bool_opt("tokenizer.ggml.add_space_prefix")?.unwrap_or(space_prefix) && space_prefix;
        let vocabulary = Vocabulary::new(metadata, tokens, kind, add_space_prefix)?;
        let model = match kind {
            Kind::ByteLevel => byte_level(metadata, tokens, &vocabulary)?,
            Kind::SentencePiece => sentence_piece(metadata, tokens, &vocabulary)?,
        };
        let special = special_tokens(metadata, tokens, kind)?;
        let mut stop: BTreeSet<u32> = ["eos", "eot", "eom"].iter().filter_map(|name| special.get(name)).map(|(id, _)| *id).collect();
        let vocabulary = Arc::new(vocabulary);
        let types = &vocabulary;
        let of_type = |wanted| (0_u32..).zip(tokens).filter(move |(id, _)| types.token_type(*id) == Some(wanted));
        stop.extend(
            of_type(TokenType::Control)
                .chain(of_type(TokenType::UserDefined))
                .filter(|(_, t)| END_TEXTS.contains(&t.as_str()))
                .map(|(id, _)| id),
        );
        // A one-character control token cannot be kept out of a chat message by a mark inside it; none is known.
        let control = AddedTokens::new(of_type(TokenType::Control).filter(|(_, t)| t.chars().nth(1).is_some()))?;
        let user_defined = AddedTokens::new(of_type(TokenType::UserDefined).filter(|(_, t)| !t.is_empty()))?;
        Ok(Self {
            model,
            kind,
            add_space_prefix,
            control,
            user_defined,
            special,
            add_bos: metadata.bool_opt("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos),
            stop,
            vocabulary,
        })
    }

    /// Token ids of `text`, without BOS. With `parse_special`, control tokens written in `text` become those tokens; without, they
    /// are text like any other. For chat messages use [`encode_chat`](super::encode_chat), which does both where each is due.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        if parse_special {
            self.control.split(text, &mut ids, |plain, ids| self.encode_plain(plain, ids))?;
        } else {
            self.encode_plain(text, &mut ids)?;
        }
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], with BOS in front when the model wants it and `text` does not bring it.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TextError> {
        Ok(self.with_bos(self.encode(text, parse_special)?))
    }

    /// Text with control tokens in which `guard` marks characters that must not be read as part of one; the mark itself is no text.
    pub(super) fn encode_guarded(&self, text: &str, guard: char) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        self.control.split(text, &mut ids, |plain, ids| {
            if plain.contains(guard) { self.encode_plain(&plain.replace(guard, ""), ids) } else { self.encode_plain(plain, ids) }
        })?;
        Ok(self.with_bos(ids))
    }

    fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos()
            && self.add_bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        ids
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        self.user_defined.split(text, ids, |words, ids| {
            let encoding = match self.kind {
                Kind::ByteLevel => self.model.encode_fast(words, false),
                Kind::SentencePiece => {
                    let prefix = if self.add_space_prefix { "▁" } else { "" };
                    self.model.encode_fast(prefix.to_owned() + &words.replace(' ', "▁"), false)
                }
            };
            ids.extend(encoding.map_err(|e| TextError::Encode { message: e.to_string() })?.get_ids());
            Ok(())
        })
    }

    /// A streaming decoder of this vocabulary.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(self.vocabulary.clone())
    }

    /// The text of `ids`, control tokens left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut detokenizer = self.detokenizer();
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text += &detokenizer.finish();
        text
    }

    /// The bytes `id` contributes to decoded text; none for control tokens and ids beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// Whether `id` is a control token.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.token_type(id) == Some(TokenType::Control)
    }

    /// Whether generation ends at `id`: end of sequence, turn or message.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stop.contains(&id)
    }

    /// All ids [`Tokenizer::is_stop`] holds for, ascending.
    pub fn stop_tokens(&self) -> impl Iterator<Item = u32> {
        self.stop.iter().copied()
    }

    /// Number of tokens. The embedding may have more rows.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.get("bos").map(|(id, _)| *id)
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.get("eos").map(|(id, _)| *id)
    }

    /// Whether prompts begin with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Texts of the control tokens recognised in text.
    pub(super) fn control_texts(&self) -> &[String] {
        &self.control.texts
    }

    /// The control tokens in `text`, in order.
    pub(super) fn control_sequence(&self, text: &str) -> Vec<u32> {
        self.control.find(text).map(|(_, _, id)| id).collect()
    }
}

/// `tokenizer.ggml.pre`, which early converters did not write.
fn pre_name(metadata: &Metadata) -> Result<&str, TextError> {
    Ok(metadata.str_opt("tokenizer.ggml.pre")?.unwrap_or("default"))
}

/// The texts of bos, eos, eot, eom, unk and padding with their ids; ids beyond the vocabulary are ignored, as llama.cpp does.
fn special_tokens(metadata: &Metadata, tokens: &[String], kind: Kind) -> Result<HashMap<&'static str, (u32, String)>, TextError> {
    let keys = [
        ("bos", "tokenizer.ggml.bos_token_id", Some(1)),
        ("eos", "tokenizer.ggml.eos_token_id", Some(2)),
        ("eot", "tokenizer.ggml.eot_token_id", None),
        ("eom", "tokenizer.ggml.eom_token_id", None),
    ];
    let mut special = HashMap::new();
    for (name, key, sentence_piece_default) in keys {
        let id = metadata.u32_opt(key)?.or(if kind == Kind::SentencePiece { sentence_piece_default } else { None });
        match id.map(|id| (id, tokens.get(id as usize))) {
            Some((id, Some(text))) => drop(special.insert(name, (id, text.clone()))),
            Some((id, None)) => log::warn!("{key} is {id}, beyond the vocabulary; ignored"),
            None => {}
        }
    }
    Ok(special)
}

/// Byte-level BPE of tokens and merges.
fn byte_level(metadata: &Metadata, tokens: &[String], vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TextError> {
    let pre = pretokenizer::find(pre_name(metadata)?)?;
    let mut merges = Vec::new();
    for merge in metadata.string_array("tokenizer.ggml.merges")? {
        // The left part may itself begin with a space, so the separator is sought from the second character.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let Some(at) = merge[first..].find(' ') else {
            return Err(TextError::Vocabulary { problem: format!("the merge {merge:?} has no two parts") });
        };
        merges.push((merge[..first + at].to_owned(), merge[first + at + 1..].to_owned()));
    }
    let bpe = BPE::builder().vocab_and_merges(model_vocabulary(tokens, vocabulary), merges).ignore_merges(pre.ignore_merges);
    let mut model = tokenizers::Tokenizer::new(bpe.build().map_err(|e| corrupt(&e))?);
    let mut steps = Vec::new();
    for pattern in pre.patterns {
        let split = Split::new(SplitPattern::Regex((*pattern).to_owned()), SplitDelimiterBehavior::Isolated, false);
        steps.push(split.map_err(|e| corrupt(&e))?.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    model.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok(model)
}

/// `SentencePiece` BPE: merges follow from the scores, as `transformers` derives them. Every way of cutting a token into two tokens is
/// a merge, best score first.
fn sentence_piece(metadata: &Metadata, tokens: &[String], vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TextError> {
    let scores = metadata.f32_array_opt("tokenizer.ggml.scores")?.unwrap_or_default();
    if scores.len() != tokens.len() {
        return Err(TextError::Vocabulary { problem: format!("{} tokens but {} scores", tokens.len(), scores.len()) });
    }
    let vocab = model_vocabulary(tokens, vocabulary);
    let mut ranked: Vec<(f32, &str, &str)> = Vec::new();
    for (token, &score) in tokens.iter().zip(scores).filter(|(token, _)| vocab.contains_key(token.as_str())) {
        for (i, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(i);
            if vocab.contains_key(left) && vocab.contains_key(right) {
                ranked.push((score, left, right));
            }
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges = ranked.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect();
    let unknown = (0..).zip(tokens).find(|(id, _)| vocabulary.token_type(*id) == Some(TokenType::Unknown));
    let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some((_, text)) = unknown {
        bpe = bpe.unk_token(text.clone());
    }
    Ok(tokenizers::Tokenizer::new(bpe.build().map_err(|e| corrupt(&e))?))
}

/// The tokens text may be made of: all but control tokens, so that no text can become one by merging.
fn model_vocabulary(tokens: &[String], vocabulary: &Vocabulary) -> Vocab {
    (0..)
        .zip(tokens)
        .filter(|(id, _)| vocabulary.token_type(*id) != Some(TokenType::Control))
        .map(|(id, text)| (text.clone(), id))
        .collect()
}

fn corrupt(error: &tokenizers::Error) -> TextError {
    TextError::Vocabulary { problem: error.to_string() }
}

/// Tokens found as whole strings in text, the leftmost first and of those the longest.
#[derive(Debug)]
struct AddedTokens {
    finder: AhoCorasick,
    texts: Vec<String>,
    ids: Vec<u32>,
}

impl AddedTokens {
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a String)>) -> Result<Self, TextError> {
        let (ids, texts): (Vec<u32>, Vec<String>) = tokens.map(|(id, text)| (id, text.clone())).unzip();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        Ok(Self { finder: finder.map_err(|e| TextError::Vocabulary { problem: e.to_string() })?, texts, ids })
    }

    /// (start, end, id) of every occurrence.
    fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize, u32)> + 'a {
        self.finder.find_iter(text).map(|m| (m.start(), m.end(), self.ids[m.pattern().as_usize()]))
    }

    /// Appends the ids of the added tokens and has `encode` append those of the non-empty texts between them.
    fn split(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        mut encode: impl FnMut(&str, &mut Vec<u32>) -> Result<(), TextError>,
    ) -> Result<(), TextError> {
        let mut done = 0;
        for (start, end, id) in self.find(text) {
            if done < start {
                encode(&text[done..start], ids)?;
            }
            ids.push(id);
            done = end;
        }
        if done < text.len() { encode(&text[done..], ids) } else { Ok(()) }
    }
}
