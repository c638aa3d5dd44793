//! `wordwrap` and `urlize`.

use minijinja::Value;

use super::args::{Args, failed};
use super::python::{Result, is_space, text};
use super::strings;

/// `wordwrap`: every line on its own, as Python's `textwrap.wrap` breaks it.
pub(super) fn filter(value: &Value, args: &Args) -> Result<Value> {
    let wrap = Wrap { width: args.size(0, 79)?, breaks_words: args.flag(1, true), at_hyphens: args.flag(3, true) };
    if wrap.width == 0 {
        return Err(failed("wordwrap takes a width from 1"));
    }
    let end = args.str_opt(2)?.unwrap_or("\n");
    let text = text(value)?;
    let mut lines = Vec::new();
    let mut bytes = 0_usize;
    for line in strings::lines(&text, false) {
        let broken = wrap.line(line);
        let own: usize = broken.iter().map(String::len).sum();
        bytes = bytes.saturating_add(own).saturating_add(broken.len().max(1).saturating_mul(end.len()));
        super::args::bounded(Some(bytes))?;
        lines.push(broken.join(end));
    }
    Ok(lines.join(end).into())
}

struct Wrap {
    width: usize,
    breaks_words: bool,
    at_hyphens: bool,
}

impl Wrap {
    fn line(&self, line: &str) -> Vec<String> {
        let mut chunks = self.chunks(line);
        chunks.reverse();
        let mut lines = Vec::new();
        while let Some(last) = chunks.last() {
            if is_blank(last) && !lines.is_empty() {
                chunks.pop();
            }
            let mut taken: Vec<Vec<char>> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= self.width) {
                length += chunk.len();
                taken.push(chunk);
            }
            if let Some(long) = chunks.pop_if(|chunk| chunk.len() > self.width) {
                self.split_long(long, length, &mut taken, &mut chunks);
            }
            taken.pop_if(|chunk| is_blank(chunk));
            if !taken.is_empty() {
                lines.push(taken.into_iter().flatten().collect());
            }
        }
        lines
    }

    /// A word that is longer than a line: its beginning goes into the line that has `length` characters, if words are broken.
    fn split_long(&self, long: Vec<char>, length: usize, taken: &mut Vec<Vec<char>>, chunks: &mut Vec<Vec<char>>) {
        if !self.breaks_words {
            if taken.is_empty() {
                taken.push(long);
            } else {
                chunks.push(long);
            }
            return;
        }
        let room = self.width - length;
        let hyphen = long[..room].iter().rposition(|c| *c == '-').filter(|at| self.at_hyphens && long[..*at].iter().any(|c| *c != '-'));
        let (start, rest) = long.split_at(hyphen.map_or(room, |at| at + 1));
        taken.push(start.to_vec());
        chunks.push(rest.to_vec());
    }

    /// Words and the white space between them; hyphenated words in their parts.
    fn chunks(&self, line: &str) -> Vec<Vec<char>> {
        let chars: Vec<char> = line.chars().collect();
        let is_letter = |i: usize| chars.get(i).is_some_and(|c| c.is_alphabetic());
        let mut chunks: Vec<Vec<char>> = Vec::new();
        for (i, c) in chars.iter().enumerate() {
            let behind_hyphen = self.at_hyphens
                && i >= 3
                && chars[i - 1] == '-'
                && is_letter(i - 2)
                && is_letter(i - 3)
                && is_letter(i)
                && (is_letter(i + 1) || (chars.get(i + 1) == Some(&'-') && is_letter(i + 2)));
            match chunks.last_mut() {
                Some(last) if is_blank(last) == is_space(*c) && !behind_hyphen => last.push(*c),
                _ => chunks.push(vec![*c]),
            }
        }
        chunks
    }
}

fn is_blank(chunk: &[char]) -> bool {
    chunk.iter().all(|c| is_space(*c))
}

/// `urlize`: addresses as links.
pub(super) fn urlize(value: &Value, args: &Args) -> Result<Value> {
    let text = text(value)?;
    let limit = args.some(0).map(|_| args.size(0, 0)).transpose()?;
    let rel = if args.flag(1, false) { "nofollow noopener" } else { "noopener" };
    let words = text.split_inclusive(is_space).map(|word| {
        let end = word.trim_end_matches(|c| is_space(c) || ",.:;!?)".contains(c)).len();
        let (address, rest) = word.split_at(end);
        let is_web = address.starts_with("http://") || address.starts_with("https://") || address.starts_with("www.");
        let is_mail = address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
        let shown = match limit {
            Some(limit) if address.chars().count() > limit => address.chars().take(limit).collect::<String>() + "...",
            _ => address.to_owned(),
        };
        match (is_web, is_mail) {
            (true, _) => {
                let scheme = if address.starts_with("www.") { "https://" } else { "" };
                format!("<a href=\"{scheme}{address}\" rel=\"{rel}\">{shown}</a>{rest}")
            }
            (_, true) => format!("<a href=\"mailto:{address}\">{address}</a>{rest}"),
            _ => word.to_owned(),
        }
    });
    let out: String = words.collect();
    super::args::bounded(Some(out.len()))?;
    Ok(out.into())
}
