//! Text for a screen reader while an answer streams: whole sentences, never single tokens.

/// Ends of sentences in the scripts that mark them with a character.
const ENDS: [char; 9] = ['.', '!', '?', '…', '。', '！', '？', '।', '؟'];

/// The length in bytes of the finished sentences at the start of `text`; 0 when there is none.
///
/// A sentence is finished by an end mark with white space after it, or by a line break. A number and a dot at the start of a line
/// ("2. ") number an item and end nothing.
pub fn finished(text: &str) -> usize {
    let mut end = 0;
    let mut line = 0;
    let mut before = None;
    for (index, character) in text.char_indices() {
        if character == '\n' {
            end = index + 1;
            line = end;
        } else if character.is_whitespace() && before.is_some_and(|mark| ENDS.contains(&mark)) {
            let sentence = text[line..index].trim_end_matches('.').trim_start();
            if sentence.is_empty() || !sentence.chars().all(|digit| digit.is_ascii_digit()) {
                end = index + character.len_utf8();
            }
        } else if matches!(character, '。' | '！' | '？') {
            end = index + character.len_utf8();
        }
        before = Some(character);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::finished;

    #[test]
    fn finished_sentences_are_split_off() {
        for (text, sentences) in [
            ("", ""),
            ("One", ""),
            ("One.", ""),
            ("One. Two", "One. "),
            ("One! Two? Three", "One! Two? "),
            ("Pi is 3.14 or", ""),
            ("- a\n- b", "- a\n"),
            ("... and so", "... "),
            ("1. a", ""),
            ("1. a\n2. b", "1. a\n"),
            ("一。二", "一。"),
            ("What? 🚀", "What? "),
        ] {
            assert_eq!(&text[..finished(text)], sentences, "{text:?}");
        }
    }
}
