//! Tokens to text, one at a time, never cutting a character in two.

use std::sync::Arc;

use super::vocabulary::Vocabulary;

/// Decodes a stream of tokens. Bytes of an unfinished character are held back until it is complete or certain to be invalid (then
/// it becomes U+FFFD). Control tokens are skipped. Work per token is proportional to its length.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    /// At most 3 bytes between calls: the beginning of a character.
    pending: Vec<u8>,
    strip_space: bool,
}

impl Detokenizer {
    pub(super) fn new(vocabulary: Arc<Vocabulary>) -> Self {
        let strip_space = vocabulary.strip_first_space;
        Self { vocabulary, pending: Vec::new(), strip_space }
    }

    /// The text that is certain after `token`; often one word, empty within a character and for control tokens.
    pub fn push(&mut self, token: u32) -> String {
        let mut bytes = self.vocabulary.bytes(token);
        if self.strip_space && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.strip_space = false;
        }
        self.pending.extend_from_slice(bytes);
        let mut out = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = invalid;
                    let Some(len) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        out
    }

    /// The end of the text: U+FFFD when it ends within a character, otherwise nothing. The detokenizer can then be used anew.
    pub fn finish(&mut self) -> String {
        self.strip_space = self.vocabulary.strip_first_space;
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}
