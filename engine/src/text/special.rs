//! Tokens with a part of their own: which they are, which end an answer, and which a chat message must not contain.

use std::collections::{BTreeSet, HashMap};

use super::TextError;
use super::kinds::{Kind, TokenType};
use crate::formats::Metadata;

/// Texts of tokens that end a turn or a document in the models at large. Tokens of these texts are control tokens unless the file says
/// that they are visible, and control tokens of these texts end an answer, as in llama.cpp: many files name only one of them in
/// `eos_token_id`, and some have their types wrong.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    "</s>",
    "<eos>",
    // Between files and repositories: code models without an end of their own begin the next one.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Texts that end nothing where control tokens of all these others are in the vocabulary.
const NO_END_BESIDE: &[(&str, &[&str])] =
    &[("<|end|>", &["<|return|>", "<|call|>"]), ("<|end|>", &["<|calls|>", "<|flush|>"]), ("</s>", &["<|tool_response>"])];

/// The keys whose tokens end an answer, whatever their texts and types.
const END_KEYS: [&str; 6] = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

/// Whether a token of this text ends a turn or a document.
pub(super) fn is_end_text(text: &str) -> bool {
    END_TEXTS.contains(&text)
}

/// Tokens by the name of their key: bos, eos, sep, and [`END_KEYS`]. Ids beyond the vocabulary are ignored, as llama.cpp does.
pub(super) fn special_tokens(metadata: &Metadata, tokens: usize, kind: Kind) -> Result<HashMap<&'static str, u32>, TextError> {
    let defaults: &[(&str, u32)] = match kind {
        Kind::ByteLevel => &[],
        Kind::SentencePiece => &[("bos", 1), ("eos", 2)],
        Kind::Unigram => &[("eos", 1)],
        Kind::WordPiece => &[("bos", 101), ("sep", 102)],
    };
    let mut special: HashMap<_, _> = defaults.iter().copied().filter(|(_, id)| (*id as usize) < tokens).collect();
    let names = [("bos", "cls"), ("bos", "bos"), ("sep", "seperator")];
    for (name, key) in names.into_iter().chain(END_KEYS.map(|name| (name, name))) {
        let key = format!("tokenizer.ggml.{key}_token_id");
        match metadata.token_id_opt(&key)? {
            Some(id) if (id as usize) < tokens => drop(special.insert(name, id)),
            Some(id) => log::warn!("{key} is {id}, beyond the vocabulary; ignored"),
            None => {}
        }
    }
    Ok(special)
}

/// The tokens at which an answer ends: those that the file names, and control tokens of known texts.
pub(super) fn stop_tokens<'a>(special: &HashMap<&str, u32>, control: impl Iterator<Item = (u32, &'a str)>) -> BTreeSet<u32> {
    let ends: HashMap<&str, u32> = control.filter(|(_, text)| is_end_text(text)).map(|(id, text)| (text, id)).collect();
    let beside = |text: &str| NO_END_BESIDE.iter().any(|(end, others)| *end == text && others.iter().all(|text| ends.contains_key(text)));
    let known = ends.iter().filter(|(text, _)| !beside(text)).map(|(_, id)| *id);
    known.chain(END_KEYS.iter().filter_map(|name| special.get(name).copied())).collect()
}

/// What a token that is no control token by its type is in a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// It shapes the conversation, in whatever message it stands.
    Turn,
    /// Reasoning and tool calls in the manner of XML (`<think>`, `<tool_call>`): assistants write it themselves.
    Markup,
}

/// What begins and ends the names of most markers.
const BARS: ([&str; 2], [&str; 2]) = (["<|", "<｜"], ["|>", "｜>"]);

/// Whether this text looks like a marker. Words, white space and operators stand in templates, too.
pub(super) fn looks_like_marker(text: &str) -> bool {
    text.contains(['<', '>', '[', ']', '|', '｜'])
        && text.contains(char::is_alphanumeric)
        && !text.contains(char::is_whitespace)
        && text.chars().nth(2).is_some()
}

/// What a token with this text and type is in a chat, if it is a marker. `named`: it looks like one and stands in the template.
pub(super) fn marker(text: &str, kind: TokenType, named: bool) -> Option<Marker> {
    let with_bars = BARS.0.iter().any(|begin| text.starts_with(begin)) || BARS.1.iter().any(|end| text.ends_with(end));
    match kind {
        TokenType::UserDefined if is_end_text(text) => Some(Marker::Turn),
        TokenType::UserDefined if named => {
            let markup = text.starts_with('<') && text.ends_with('>') && !with_bars;
            Some(if markup { Marker::Markup } else { Marker::Turn })
        }
        // A file whose types are wrong: the merges make no such token of text.
        TokenType::Normal | TokenType::Unused if named && with_bars => Some(Marker::Turn),
        _ => None,
    }
}
