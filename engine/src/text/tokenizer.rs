//! The tokenizer a GGUF file describes.
//!
//! Added tokens are split off here, before the model of the tokenizer sees the text: so that control tokens can be told from text that
//! merely looks like them, and because GGUF says less about added tokens than `tokenizer.json`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::TextError;
use super::added_tokens::{AddedTokens, Part};
use super::byte_level::ByteLevel;
use super::detokenizer::Detokenizer;
use super::kinds::{Kind, TokenType};
use super::pace::{Pace, at_once};
use super::sentencepiece::SentencePiece;
use super::special::{Marker, special_tokens, stop_tokens};
use super::vocabulary::Vocabulary;
use super::wordpiece::WordPiece;
use crate::formats::Metadata;

/// Metadata key: added tokens take the white space behind them. No file has it; families set it that are so.
pub const STRIP_AFTER_ADDED_KEY: &str = "doppler.tokenizer.strip_after_added";

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    vocabulary: Arc<Vocabulary>,
    /// Added tokens by their types.
    typed: Added,
    /// Added tokens for chats, where they are others: the markers of the chat template are control tokens, whatever their types.
    chat: Option<Added>,
    /// Runs of spaces are user-defined tokens in some `SentencePiece` models, found after spaces have become `▁`.
    escape_spaces: bool,
    special: HashMap<&'static str, u32>,
    add_bos: bool,
    /// The tokens that follow a prompt: of encoders, mostly.
    suffix: Vec<u32>,
    stop: BTreeSet<u32>,
}

/// Tokens that are split off from text.
#[derive(Debug)]
struct Added {
    /// Never found in plain text.
    control: AddedTokens,
    /// User-defined tokens: found in any text, visible in decoded text.
    visible: AddedTokens,
}

/// `text` with `SentencePiece`'s mark for spaces.
fn escape(text: &str) -> String {
    text.replace(' ', "▁")
}

/// Plain text to token ids.
#[derive(Debug)]
enum Model {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
    WordPiece(Box<WordPiece>),
}

impl Tokenizer {
    /// The tokenizer described by `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`TextError::UnsupportedTokenizer`], [`TextError::UnsupportedPreTokenizer`], [`TextError::Vocabulary`], or a missing key.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let tokens = metadata.string_array("tokenizer.ggml.tokens")?;
        let kind = match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => Kind::ByteLevel,
            "llama" => Kind::SentencePiece,
            "t5" => Kind::Unigram,
            "bert" => Kind::WordPiece,
            model => {
                return Err(TextError::UnsupportedTokenizer { model: model.to_owned(), supported: "gpt2, llama, t5, bert" });
            }
        };
        let flag = |name: &str, default: bool| Ok::<_, TextError>(metadata.bool_opt(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default));
        let sentence_piece = matches!(kind, Kind::SentencePiece | Kind::Unigram);
        let add_space_prefix = sentence_piece && flag("add_space_prefix", true)?;
        let vocabulary = Vocabulary::new(metadata, tokens, kind, add_space_prefix || kind == Kind::WordPiece)?;
        let model = match kind {
            Kind::ByteLevel => Model::ByteLevel(Box::new(ByteLevel::new(metadata, tokens, &vocabulary)?)),
            Kind::SentencePiece | Kind::Unigram => {
                let unigram = kind == Kind::Unigram;
                Model::SentencePiece(Box::new(SentencePiece::new(metadata, tokens, &vocabulary, unigram, add_space_prefix)?))
            }
            Kind::WordPiece => Model::WordPiece(Box::new(WordPiece::new(metadata, tokens, &vocabulary)?)),
        };
        let special = special_tokens(metadata, tokens.len(), kind)?;
        let add_bos = match &model {
            Model::ByteLevel(model) => model.add_bos,
            _ => kind != Kind::Unigram,
        };
        let suffix = [("sep", flag("add_sep_token", kind == Kind::WordPiece)?), ("eos", flag("add_eos_token", kind == Kind::Unigram)?)];
        let mut suffix: Vec<u32> = suffix.iter().filter_map(|(name, add)| special.get(name).copied().filter(|_| *add)).collect();
        suffix.dedup(); // files of BERT name [SEP] twice
        let strips = kind == Kind::SentencePiece && metadata.bool_opt(STRIP_AFTER_ADDED_KEY)?.unwrap_or(false);
        let added = |chat| Added::new(&vocabulary, tokens, kind, strips, chat);
        let (typed, chat) = (added(false)?, if vocabulary.has_markers() { Some(added(true)?) } else { None });
        Ok(Self {
            model,
            typed,
            chat,
            escape_spaces: kind == Kind::SentencePiece,
            add_bos: flag("add_bos_token", add_bos)?,
            suffix,
            stop: stop_tokens(&special, vocabulary.of_type(tokens, TokenType::Control)),
            special,
            vocabulary: Arc::new(vocabulary),
        })
    }

    /// Token ids of `text`, without BOS. With `parse_special`, control tokens written in `text` become those tokens; without, they
    /// are text like any other. For chat messages use [`encode_chat`](super::encode_chat), which does both where each is due.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TextError> {
        at_once(async |pace| self.encode_paced(text, parse_special, pace).await)
    }

    /// As [`Tokenizer::encode`], in slices.
    ///
    /// # Errors
    /// [`TextError::Encode`], [`TextError::TooLong`].
    pub async fn encode_paced(&self, text: &str, parse_special: bool, pace: &mut Pace<'_>) -> Result<Vec<u32>, TextError> {
        let parts = if parse_special { self.typed.control.parts(text) } else { vec![Part::Text(text)] };
        self.encode_parts(&self.typed, parts, None, pace).await
    }

    /// As [`Tokenizer::encode`], with what the model wants around a text, unless `text` brings it: BOS (an encoder's `[CLS]`) in front,
    /// and behind it what the file asks for, such as an encoder's `[SEP]` or EOS.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TextError> {
        let mut ids = self.with_bos(self.encode(text, parse_special)?);
        if !ids.ends_with(&self.suffix) {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// A rendered chat in which `guard` marks characters that must not be read as part of a control token; the mark itself is no text.
    pub(super) async fn encode_guarded(&self, text: &str, guard: char, pace: &mut Pace<'_>) -> Result<Vec<u32>, TextError> {
        let added = self.chat_tokens();
        let parts = added.control.parts(text);
        Ok(self.with_bos(self.encode_parts(added, parts, Some(guard), pace).await?))
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

    /// Refuses what cannot fit by its length before anything is encoded.
    async fn encode_parts(
        &self,
        added: &Added,
        parts: Vec<Part<'_>>,
        guard: Option<char>,
        pace: &mut Pace<'_>,
    ) -> Result<Vec<u32>, TextError> {
        let least = |part: &Part<'_>| match part {
            Part::Token(_) => 1,
            Part::Text(text) => {
                let marks = guard.map_or(0, |guard| text.matches(guard).count() * guard.len_utf8());
                self.longest_token().map_or(0, |longest| (text.len() - marks).div_ceil(longest))
            }
        };
        let mut rest: usize = parts.iter().map(least).sum();
        pace.check(rest)?;
        let mut ids = Vec::new();
        for part in parts {
            pace.work(1).await;
            rest -= least(&part);
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text =
                        guard.filter(|guard| text.contains(*guard)).map_or(Cow::Borrowed(text), |guard| text.replace(guard, "").into());
                    self.encode_plain(&added.visible, &text, &mut ids, pace).await?;
                }
            }
            pace.check(ids.len() + rest)?;
        }
        Ok(ids)
    }

    async fn encode_plain(&self, visible: &AddedTokens, text: &str, ids: &mut Vec<u32>, pace: &mut Pace<'_>) -> Result<(), TextError> {
        let mut text = Cow::Borrowed(text);
        if self.escape_spaces {
            text = Cow::Owned(escape(&text));
        }
        for part in visible.parts(&text) {
            pace.work(1).await;
            match (part, &self.model) {
                (Part::Token(id), _) => ids.push(id),
                (Part::Text(words), Model::ByteLevel(model)) => model.encode(words, ids, pace).await?,
                (Part::Text(words), Model::SentencePiece(model)) => model.encode(words, ids, pace).await?,
                (Part::Text(words), Model::WordPiece(model)) => model.encode(words, ids, pace).await?,
            }
        }
        Ok(())
    }

    /// Bytes of text that a token stands for at most; `None` where there is no such bound, because text is left out or a token stands
    /// for all that is unknown.
    fn longest_token(&self) -> Option<usize> {
        let most = |keeps: bool| keeps.then(|| self.vocabulary.longest().max(1));
        match &self.model {
            Model::ByteLevel(model) => most(model.keeps_all()).map(|bytes| bytes * model.shrinks()),
            Model::SentencePiece(model) => most(model.keeps_all()),
            Model::WordPiece(_) => None,
        }
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
        self.special.get("bos").copied()
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.get("eos").copied()
    }

    /// Whether prompts begin with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The control tokens recognised in a rendered chat.
    pub(super) fn chat_control(&self) -> &AddedTokens {
        &self.chat_tokens().control
    }

    /// Whether assistants may write this control token of a rendered chat themselves.
    pub(super) fn is_markup(&self, id: u32) -> bool {
        self.vocabulary.marker(id) == Some(Marker::Markup)
    }

    fn chat_tokens(&self) -> &Added {
        self.chat.as_ref().unwrap_or(&self.typed)
    }
}

impl Added {
    /// The added tokens of a vocabulary; in a chat its markers are control tokens.
    fn new(vocabulary: &Vocabulary, tokens: &[String], kind: Kind, strips: bool, chat: bool) -> Result<Self, TextError> {
        let is_marker = |id: u32| chat && vocabulary.marker(id).is_some();
        let texts = || (0..).zip(tokens).filter(|(_, text)| !text.is_empty());
        // A one-character control token cannot be kept out of a chat message by a mark inside it; none is known.
        let is_control = |id: u32, text: &str| vocabulary.token_type(id) == Some(TokenType::Control) && text.chars().nth(1).is_some();
        let control = texts().filter(|(id, text)| is_control(*id, text) || is_marker(*id)).map(|(id, text)| (id, text.clone()));
        let mut control = AddedTokens::new(control)?;
        if strips {
            control.strip_after = |text| !["<s>", "<unk>", "<|endoftext|>"].contains(&text);
        }
        let visible = texts().filter(|(id, _)| vocabulary.token_type(*id) == Some(TokenType::UserDefined) && !is_marker(*id));
        let visible = visible.map(|(id, text)| (id, if kind == Kind::SentencePiece { escape(text) } else { text.clone() }));
        Ok(Self { control, visible: AddedTokens::new(visible)? })
    }
}
