//! Tokens found as whole strings in text, before the model of the tokenizer sees it.

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::TextError;

/// A set of such tokens: the leftmost is found first, and of those the longest. Work is proportional to the text, however many they are.
#[derive(Debug)]
pub(super) struct AddedTokens {
    finder: AhoCorasick,
    ids: Vec<u32>,
    /// First characters of the texts.
    first: Vec<char>,
    /// Whether the token of this text takes the white space behind it.
    pub(super) strip_after: fn(&str) -> bool,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// An added token.
    Token(u32),
    /// What is between two of them; not empty.
    Text(&'t str),
}

impl AddedTokens {
    /// The set of these ids and texts, which are not empty.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when they are too many.
    pub(super) fn new(tokens: impl IntoIterator<Item = (u32, String)>) -> Result<Self, TextError> {
        let (ids, texts): (Vec<u32>, Vec<String>) = tokens.into_iter().unzip();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        let mut first: Vec<char> = texts.iter().filter_map(|text| text.chars().next()).collect();
        first.sort_unstable();
        first.dedup();
        Ok(Self { finder: finder.map_err(|e| TextError::Vocabulary { problem: e.to_string() })?, ids, first, strip_after: |_| false })
    }

    /// Whether a token begins with this character.
    pub(super) fn begins_with(&self, c: char) -> bool {
        self.first.binary_search(&c).is_ok()
    }

    /// (start, end, id) of every token that is found.
    pub(super) fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize, u32)> + 'a {
        self.finder.find_iter(text).map(|m| (m.start(), m.end(), self.ids[m.pattern().as_usize()]))
    }

    /// Every place where a token begins, those within others included, and the id of the longest there.
    pub(super) fn starts<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.finder.find(Input::new(text).range(from..))?;
            from = found.start() + 1;
            Some((found.start(), self.ids[found.pattern().as_usize()]))
        })
    }

    /// The tokens in `text` and what is between them, in order.
    pub(super) fn parts<'a>(&'a self, text: &'a str) -> Vec<Part<'a>> {
        let (mut parts, mut done) = (Vec::new(), 0);
        for (start, end, id) in self.find(text) {
            if done < start {
                parts.push(Part::Text(&text[done..start]));
            }
            parts.push(Part::Token(id));
            done = if (self.strip_after)(&text[start..end]) { text.len() - text[end..].trim_start().len() } else { end };
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::{AddedTokens, Part};

    #[test]
    fn added_tokens_overlapping_starts_are_found() {
        let tokens = AddedTokens::new([(7, "<a>".to_owned()), (8, "a><b".to_owned()), (9, "<a><".to_owned())]).expect("a set");
        assert_eq!(tokens.starts("é<a><b<a>").collect::<Vec<_>>(), [(2, 9), (3, 8), (7, 7)]);
        assert_eq!(tokens.parts("é<a><b<a>"), [Part::Text("é"), Part::Token(9), Part::Text("b"), Part::Token(7)]);
        assert!(tokens.begins_with('a') && !tokens.begins_with('b'));
        assert!(AddedTokens::new([]).expect("a set").parts("").is_empty());
    }
}
