//! The tokenizer a GGUF file describes.
//!
//! Added tokens are split off here, before the model of the tokenizer sees the text: so that control tokens can be told from text that
//! merely looks like them, and because GGUF says less about added tokens than `tokenizer.json`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

use super::TextError;
use super::byte_level::ByteLevel;
use super::detokenizer::Detokenizer;
use super::sentencepiece::SentencePiece;
use super::vocabulary::{Kind, TokenType, Vocabulary};
use super::wordpiece::WordPiece;
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
    model: Model,
    vocabulary: Arc<Vocabulary>,
    /// Control tokens: never found in plain text.
    control: AddedTokens,
    /// User-defined tokens: found in any text, visible in decoded text.
    user_defined: AddedTokens,
    /// Runs of spaces are user-defined tokens in some `SentencePiece` models, found after spaces have become `▁`.
    escape_spaces: bool,
    special: HashMap<&'static str, u32>,
    add_bos: bool,
    /// The tokens that follow a prompt: of encoders, mostly.
    suffix: Vec<u32>,
    stop: BTreeSet<u32>,
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

        let of_type = |wanted| vocabulary.of_type(tokens, wanted);
        let mut stop: BTreeSet<u32> = ["eos", "eot", "eom"].iter().filter_map(|name| special.get(name).copied()).collect();
        stop.extend(
            of_type(TokenType::Control).chain(of_type(TokenType::UserDefined)).filter(|(_, t)| END_TEXTS.contains(t)).map(|(id, _)| id),
        );
        // A one-character control token cannot be kept out of a chat message by a mark inside it; none is known.
        let control = of_type(TokenType::Control).filter(|(_, t)| t.chars().nth(1).is_some()).map(|(id, t)| (id, t.to_owned()));
        let mut control = AddedTokens::new(control)?;
        // The added tokens of Phi-3 take the white space behind them. The file does not say so; llama.cpp knows it by name, too.
        if kind == Kind::SentencePiece && metadata.str_opt("general.architecture")? == Some("phi3") {
            control.strip_after = |text| !["<s>", "<unk>", "<|endoftext|>"].contains(&text);
        }
        let visible = of_type(TokenType::UserDefined).filter(|(_, t)| !t.is_empty());
        let visible = visible.map(|(id, t)| (id, if kind == Kind::SentencePiece { escape(t) } else { t.to_owned() }));
        let user_defined = AddedTokens::new(visible)?;
        let escape_spaces = kind == Kind::SentencePiece;
        let add_bos = flag("add_bos_token", add_bos)?;
        Ok(Self { model, control, user_defined, escape_spaces, special, add_bos, suffix, stop, vocabulary: Arc::new(vocabulary) })
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
        let mut text = Cow::Borrowed(text);
        if self.escape_spaces {
            text = Cow::Owned(escape(&text));
        }
        self.user_defined.split(&text, ids, |words, ids| {
            let encoded = match &self.model {
                Model::ByteLevel(model) => model.encode(words, ids),
                Model::WordPiece(model) => model.encode(words, ids),
                Model::SentencePiece(model) => {
                    model.encode(words, ids);
                    Ok(())
                }
            };
            encoded.map_err(|e| TextError::Encode { message: e.to_string() })
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

    /// Texts of the control tokens recognised in text.
    pub(super) fn control_texts(&self) -> &[String] {
        &self.control.texts
    }

    /// The control tokens in `text`, in order.
    pub(super) fn control_sequence(&self, text: &str) -> Vec<u32> {
        self.control.find(text).map(|(_, _, id)| id).collect()
    }
}

/// The ids of bos, eos, eot, eom and sep; ids beyond the vocabulary are ignored, as llama.cpp does.
pub(super) fn special_tokens(metadata: &Metadata, tokens: usize, kind: Kind) -> Result<HashMap<&'static str, u32>, TextError> {
    let defaults: &[(&str, u32)] = match kind {
        Kind::ByteLevel => &[],
        Kind::SentencePiece => &[("bos", 1), ("eos", 2)],
        Kind::Unigram => &[("eos", 1)],
        Kind::WordPiece => &[("bos", 101), ("sep", 102)],
    };
    let keys = [
        ("bos", "tokenizer.ggml.cls_token_id"),
        ("bos", "tokenizer.ggml.bos_token_id"),
        ("eos", "tokenizer.ggml.eos_token_id"),
        ("eot", "tokenizer.ggml.eot_token_id"),
        ("eom", "tokenizer.ggml.eom_token_id"),
        ("sep", "tokenizer.ggml.seperator_token_id"),
    ];
    let mut special: HashMap<_, _> = defaults.iter().copied().filter(|(_, id)| (*id as usize) < tokens).collect();
    for (name, key) in keys {
        match metadata.token_id_opt(key)? {
            Some(id) if (id as usize) < tokens => drop(special.insert(name, id)),
            Some(id) => log::warn!("{key} is {id}, beyond the vocabulary; ignored"),
            None => {}
        }
    }
    Ok(special)
}

/// Tokens found as whole strings in text, the leftmost first and of those the longest.
#[derive(Debug)]
struct AddedTokens {
    finder: AhoCorasick,
    texts: Vec<String>,
    ids: Vec<u32>,
    /// Whether the token of this text takes the white space behind it.
    strip_after: fn(&str) -> bool,
}

impl AddedTokens {
    fn new(tokens: impl Iterator<Item = (u32, String)>) -> Result<Self, TextError> {
        let (ids, texts): (Vec<u32>, Vec<String>) = tokens.unzip();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        Ok(Self { finder: finder.map_err(|e| TextError::Vocabulary { problem: e.to_string() })?, texts, ids, strip_after: |_| false })
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
            if (self.strip_after)(&text[start..end]) {
                done = text.len() - text[end..].trim_start().len();
            }
        }
        if done < text.len() { encode(&text[done..], ids) } else { Ok(()) }
    }
}
