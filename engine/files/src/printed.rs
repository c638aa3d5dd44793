//! Text of others on a terminal.

use std::borrow::Cow;

/// Whether a terminal would act on a character, or show those after it in another order.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with escapes such as `\u{1b}` in the place of characters that a terminal would act on; ends of lines and tabs
/// are among them.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 16), |mut out, c| {
            if is_hidden(c) {
                out.extend(c.escape_unicode());
            } else {
                out.push(c);
            }
            out
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_escapes_control_characters() {
        assert_eq!(printable("été ▁ 模型"), "été ▁ 模型");
        assert_eq!(printable("a\u{1b}]0;b\u{7}\u{9b}2J\r"), r"a\u{1b}]0;b\u{7}\u{9b}2J\u{d}");
        assert_eq!(printable("a\nb\tc"), r"a\u{a}b\u{9}c");
        assert_eq!(printable("fdp.\u{202e}fugg"), r"fdp.\u{202e}fugg");
    }
}
