//! String and number literals of Python, written as `minijinja` reads them.

/// Bytes of the string literal at the beginning of `rest`, quotes included.
pub(super) fn string_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(i + 1),
            _ => {}
        }
    }
    None
}

/// `literal` with Python's escapes resolved, and only backslashes and quotes escaped.
pub(super) fn string(literal: &str) -> String {
    let mut out = String::from('"');
    for c in unescape(&literal[1..literal.len() - 1]).chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Python's `unicode-escape`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else { break };
        rest = &rest[c.len_utf8()..];
        let digits = |count: usize, radix: u32| {
            let length = rest.chars().take(count).take_while(|c| c.is_digit(radix)).count();
            (length, u32::from_str_radix(&rest[..length], radix).unwrap_or(0))
        };
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let (length, value) = digits(2, 8);
                let value = (c as u32 - '0' as u32) * 8_u32.pow(length as u32) + value;
                out.push(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &rest[length..];
            }
            'x' | 'u' | 'U' => {
                let count = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let (length, value) = digits(count, 16);
                if length == count {
                    out.push(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER));
                    rest = &rest[length..];
                } else {
                    out.extend(['\\', c]);
                }
            }
            c => out.extend(['\\', c]),
        }
    }
    out + rest
}

/// Bytes of the number at the beginning of `rest`: `12`, `1_000`, `0x1F`, `1.5`, `1e-3`; not the dot of `1.real`.
pub(super) fn number_length(rest: &str) -> usize {
    let run = |from: usize, is_in: &dyn Fn(char) -> bool| rest[from..].find(|c| !is_in(c)).map_or(rest.len(), |n| from + n);
    let digit = |c: char| c.is_ascii_digit() || c == '_';
    if rest.starts_with('0') && rest[1..].starts_with(['x', 'X', 'b', 'B', 'o', 'O']) {
        return run(2, &|c| c.is_ascii_hexdigit() || c == '_');
    }
    let mut end = run(0, &digit);
    if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        end = run(end + 1, &digit);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        if rest[end + 1 + sign..].starts_with(|c: char| c.is_ascii_digit()) {
            end = run(end + 1 + sign, &digit);
        }
    }
    end
}

/// `literal` in decimal, without underscores.
pub(super) fn number(literal: &str) -> String {
    let plain = literal.replace('_', "").to_ascii_lowercase();
    let radix = match plain.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => return plain,
    };
    u128::from_str_radix(&plain[2..], radix).map_or(plain, |value| value.to_string())
}
