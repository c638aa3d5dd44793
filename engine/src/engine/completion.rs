//! An answer as it comes.

use std::rc::Rc;

use futures::{FutureExt, StreamExt};

use crate::error::EngineError;
use crate::serve::{Event, EventReceiver, FinishReason, Timings};
use crate::text::{Detokenizer, StopStrings};

/// A piece of an answer.
#[derive(Clone, Debug)]
pub enum Piece {
    /// More text; never empty, never a part of a character.
    Text(String),
    /// The end; nothing follows.
    End(FinishReason, Timings),
}

/// An answer as it comes. Dropping it cancels the request.
#[derive(Debug)]
pub struct Completion {
    events: EventReceiver,
    detokenizer: Detokenizer,
    stop: StopStrings,
    end: Option<Result<Piece, Rc<EngineError>>>,
    /// As far as they are known before the end.
    timings: Timings,
    /// Tokens of the text up to now that were not taken.
    tokens: Vec<u32>,
}

impl Completion {
    pub(super) fn new(events: EventReceiver, detokenizer: Detokenizer, stop: StopStrings, prompt_tokens: u32) -> Self {
        let timings = Timings { prompt_tokens, ..Timings::default() };
        Self { events, detokenizer, stop, end: None, timings, tokens: Vec::new() }
    }

    /// Puts itself behind the first tokens of its answer, which are no events; their text.
    pub(super) fn skip(&mut self, answered: &[u32]) -> String {
        let mut text = String::new();
        for &token in answered {
            self.timings.completion_tokens += 1;
            let (more, stopped) = self.stop.push(&self.detokenizer.push(token));
            text.push_str(&more);
            if stopped {
                self.end = Some(Ok(Piece::End(FinishReason::Stop, self.timings)));
                break;
            }
        }
        text
    }

    /// The tokens that came since this was called last. With those before they give the text of all pieces up to now: who resumes the
    /// answer with them gets the rest.
    pub fn take_tokens(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.tokens)
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.timings.prompt_tokens
    }

    /// Tokens of the answer so far.
    pub fn completion_tokens(&self) -> u32 {
        self.timings.completion_tokens
    }

    /// Waits until the request is admitted, if it does not fail before: [`Self::next`] says so.
    pub async fn admitted(&mut self) {
        match self.events.next().await {
            Some(Ok(Event::Admitted(cached))) => self.timings.cached_tokens = cached,
            Some(Err(error)) => self.end = Some(Err(error)),
            // The first event of a request is one of these.
            Some(Ok(_)) | None => {}
        }
    }

    /// The next piece; `None` after the end.
    ///
    /// # Errors
    /// When the engine failed; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Piece, Rc<EngineError>>> {
        if let Some(end) = self.end.take() {
            self.events.close();
            return Some(end);
        }
        loop {
            match self.events.next().await? {
                Err(error) => {
                    self.events.close();
                    return Some(Err(error));
                }
                Ok(Event::Logits(_) | Event::Scores(_) | Event::Embedding(_)) => {}
                Ok(Event::Admitted(cached)) => self.timings.cached_tokens = cached,
                Ok(Event::Token(token)) => {
                    self.timings.completion_tokens += 1;
                    self.tokens.push(token);
                    let text = self.detokenizer.push(token);
                    let (text, stopped) = self.stop.push(&text);
                    if stopped {
                        return Some(Ok(self.last(text, Piece::End(FinishReason::Stop, self.timings))));
                    }
                    if !text.is_empty() {
                        return Some(Ok(Piece::Text(text)));
                    }
                }
                Ok(Event::End(reason, timings)) => {
                    let (mut text, stopped) = self.stop.push(&self.detokenizer.finish());
                    if !stopped {
                        text.push_str(&self.stop.flush());
                    }
                    return Some(Ok(self.last(text, Piece::End(reason, timings))));
                }
            }
        }
    }

    /// The same, with all text that is there already as one piece: the tokens of a submission come together, and a message for each
    /// of them would cost more than the token.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_burst(&mut self) -> Option<Result<Piece, Rc<EngineError>>> {
        let mut piece = self.next().await?;
        while let Ok(Piece::Text(text)) = &mut piece {
            match self.next().now_or_never() {
                Some(Some(Ok(Piece::Text(more)))) => text.push_str(&more),
                Some(end) => {
                    self.end = end;
                    break;
                }
                None => break,
            }
        }
        Some(piece)
    }

    /// The rest of the text, if any, then the end.
    fn last(&mut self, text: String, end: Piece) -> Piece {
        if text.is_empty() {
            self.events.close();
            return end;
        }
        self.end = Some(Ok(end));
        Piece::Text(text)
    }
}
