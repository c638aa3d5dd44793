//! Cuts text into words before byte-pair merging.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::TextError;
use crate::formats::pre_tokenizers::{Cut, PreTokenizer, find, names};

/// The rules that a value of `tokenizer.ggml.pre` names.
pub(super) fn rules(name: &str) -> Result<&'static PreTokenizer, TextError> {
    find(name).ok_or_else(|| TextError::UnsupportedPreTokenizer { pre: name.to_owned(), supported: names().join(", ") })
}

/// The cuts of a [`PreTokenizer`], compiled.
#[derive(Debug)]
pub(super) struct Splitter {
    cuts: Vec<Regex>,
}

impl Splitter {
    /// Pattern of white space within the expression of [`Cut::Words`].
    const SPACES: usize = 1;

    pub(super) fn new(rules: &PreTokenizer) -> Result<Self, TextError> {
        let cuts = rules.cuts.iter().map(|cut| {
            let regex = match cut {
                Cut::At(pattern) => Regex::new(pattern),
                Cut::Words(pattern) => Regex::new_many(&[pattern, r"\s+"]),
            };
            regex.map_err(|e| TextError::Vocabulary { problem: e.to_string() })
        });
        let cuts = cuts.collect::<Result<_, _>>()?;
        Ok(Self { cuts })
    }

    /// The words of `text`: in order, none empty, together all of it. They are found as they are asked for.
    pub(super) fn split<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        // Parts that are still to be cut, the last first: how many cuts are behind them, the part, and how far it is done.
        let mut parts = vec![(0, text, 0)];
        std::iter::from_fn(move || {
            while let Some((cuts, part, done)) = parts.pop() {
                let Some(regex) = self.cuts.get(cuts) else { return Some(part) };
                let Some((start, end)) = Self::cut(regex, part, done) else { continue };
                parts.push((cuts, part, end));
                parts.push((cuts + 1, &part[start..end], 0));
                if done < start {
                    parts.push((cuts + 1, &part[done..start], 0));
                }
            }
            None
        })
    }

    /// The next match in `text`, or the rest of it if there is none; `None` at its end.
    fn cut(regex: &Regex, text: &str, done: usize) -> Option<(usize, usize)> {
        let Some(found) = regex.find(Input::new(text).range(done..)) else {
            return (done < text.len()).then_some((done, text.len()));
        };
        let (start, mut end) = (found.start(), found.end());
        if found.pattern().as_usize() == Self::SPACES && end < text.len() {
            let last = text[start..end].char_indices().next_back().map_or(0, |(i, _)| i);
            end = if last > 0 { start + last } else { end };
        }
        Some((start, end))
    }
}
