//! Text in and out: tokenizer, chat template, streaming detokenizer, stop strings.

mod added_tokens;
mod byte_level;
pub mod chat;
mod conversation;
pub mod detokenizer;
mod jinja;
mod kinds;
mod merge;
pub mod pace;
mod pretokenizer;
mod sentencepiece;
mod special;
pub mod stop;
pub mod template;
pub mod tokenizer;
mod vocabulary;
mod wordpiece;

pub use chat::{encode_chat, encode_chat_paced};
pub use detokenizer::Detokenizer;
pub use pace::Pace;
pub use stop::StopStrings;
pub use template::ChatTemplate;
pub use tokenizer::{STRIP_AFTER_ADDED_KEY, Tokenizer};

pub use crate::error::TextError;
