//! The methods of Python's `str`.

use minijinja::Value;

use super::args::{Args, bounded, failed};
use super::python::{self, Result, is_space};

type Method = fn(&str, &Args) -> Result<Value>;

/// Name, parameters and function of every method.
const METHODS: &[(&str, &str, Method)] = &[
    ("capitalize", "", |s, _| Ok(capitalize(s).into())),
    ("casefold", "", |s, _| Ok(s.chars().map(casefold).collect::<String>().into())),
    ("center", "width fillchar", |s, a| pad(s, a, |space, width| space / 2 + (space & width & 1))),
    ("count", "sub start end", |s, a| Window::new(s, a, 1)?.count(a.str(0)?)),
    ("encode", "encoding errors", |s, _| Ok(Value::from_bytes(s.as_bytes().to_vec()))),
    ("endswith", "suffix start end", |s, a| affix(s, a, |text, suffix| text.ends_with(suffix))),
    ("expandtabs", "tabsize", |s, a| expand_tabs(s, a.size(0, 8)?)),
    ("find", "sub start end", |s, a| Ok(Window::new(s, a, 1)?.find(a.str(0)?).unwrap_or(-1).into())),
    ("index", "sub start end", |s, a| found(Window::new(s, a, 1)?.find(a.str(0)?))),
    ("isalnum", "", |s, _| all(s, |c| python::is_letter(c) || python::is_numeric(c))),
    ("isalpha", "", |s, _| all(s, python::is_letter)),
    ("isascii", "", |s, _| Ok(s.is_ascii().into())),
    ("isdecimal", "", |s, _| all(s, python::is_decimal)),
    ("isdigit", "", |s, _| all(s, python::is_digit)),
    ("isidentifier", "", |s, _| Ok((is_identifier(s)).into())),
    ("islower", "", |s, _| Ok(is_lower(s).into())),
    ("isnumeric", "", |s, _| all(s, python::is_numeric)),
    ("isprintable", "", |s, _| Ok(s.chars().all(python::is_printable).into())),
    ("isspace", "", |s, _| all(s, is_space)),
    ("istitle", "", |s, _| Ok((s.chars().any(is_cased) && title(s) == s).into())),
    ("isupper", "", |s, _| Ok(is_upper(s).into())),
    ("join", "iterable", |s, a| join(s, a.required(0)?)),
    ("ljust", "width fillchar", |s, a| pad(s, a, |_, _| 0)),
    ("lower", "", |s, _| Ok(s.to_lowercase().into())),
    ("lstrip", "chars", |s, a| strip(s, a, true, false)),
    ("partition", "sep", |s, a| partition(s, a.str(0)?, s.find(a.str(0)?), false)),
    ("removeprefix", "prefix", |s, a| Ok(s.strip_prefix(a.str(0)?).unwrap_or(s).into())),
    ("removesuffix", "suffix", |s, a| Ok(s.strip_suffix(a.str(0)?).unwrap_or(s).into())),
    ("replace", "old new count", |s, a| replace(s, a.str(0)?, a.str(1)?, a.int_opt(2)?).map(Value::from)),
    ("rfind", "sub start end", |s, a| Ok(Window::new(s, a, 1)?.rfind(a.str(0)?).unwrap_or(-1).into())),
    ("rindex", "sub start end", |s, a| found(Window::new(s, a, 1)?.rfind(a.str(0)?))),
    ("rjust", "width fillchar", |s, a| pad(s, a, |space, _| space)),
    ("rpartition", "sep", |s, a| partition(s, a.str(0)?, s.rfind(a.str(0)?), true)),
    ("rsplit", "sep maxsplit", |s, a| split(s, a, true)),
    ("rstrip", "chars", |s, a| strip(s, a, false, true)),
    ("split", "sep maxsplit", |s, a| split(s, a, false)),
    ("splitlines", "keepends", |s, a| Ok(lines(s, a.flag(0, false)).into_iter().map(Value::from).collect())),
    ("startswith", "prefix start end", |s, a| affix(s, a, |text, prefix| text.starts_with(prefix))),
    ("strip", "chars", |s, a| strip(s, a, true, true)),
    ("swapcase", "", |s, _| Ok(swap_case(s).into())),
    ("title", "", |s, _| Ok(title(s).into())),
    ("upper", "", |s, _| Ok(s.to_uppercase().into())),
    ("zfill", "width", |s, a| zero_fill(s, a.size(0, 0)?)),
];

/// Methods that are not in the table: called otherwise, or not at all.
const FURTHER: [&str; 4] = ["format", "format_map", "maketrans", "translate"];

/// Whether `str` has a method of this name.
pub(super) fn has(name: &str) -> bool {
    METHODS.iter().any(|(known, ..)| *known == name) || FURTHER.contains(&name)
}

/// Calls a method of a string; `None` where `str` has no such method.
pub(super) fn call(text: &str, name: &str, args: &[Value]) -> Option<Result<Value>> {
    if name == "format" || name == "format_map" {
        return Some(format(text, args));
    }
    let (name, parameters, method) = METHODS.iter().find(|(known, ..)| *known == name)?;
    Some(Args::bind(name, parameters, args).and_then(|args| method(text, &args)))
}

fn format(text: &str, args: &[Value]) -> Result<Value> {
    let (named, positional) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() || last.kind() == minijinja::value::ValueKind::Map => {
            (Some(last), if last.is_kwargs() { rest } else { args })
        }
        _ => (None, args),
    };
    let lookup = |name: &str| named.and_then(|named| named.get_item(&Value::from(name)).ok()).filter(|v| !v.is_undefined());
    super::format::fields(text, positional, &lookup).map(Value::from)
}

#[allow(clippy::unnecessary_wraps, reason = "what the table of methods holds")]
fn all(s: &str, test: impl Fn(char) -> bool) -> Result<Value> {
    Ok((!s.is_empty() && s.chars().all(test)).into())
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || title_case(c) == Some(c)
}

/// `str.islower`.
pub(super) fn is_lower(s: &str) -> bool {
    s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)
}

/// `str.isupper`.
pub(super) fn is_upper(s: &str) -> bool {
    s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)
}

fn is_identifier(s: &str) -> bool {
    s.chars().enumerate().all(|(i, c)| c == '_' || c.is_alphabetic() || (i > 0 && c.is_alphanumeric())) && !s.is_empty()
}

fn casefold(c: char) -> String {
    match c {
        'ı' => c.to_string(),
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

/// The digraphs that have a third case.
fn title_case(c: char) -> Option<char> {
    match c {
        'Ǆ'..='ǆ' => Some('ǅ'),
        'Ǉ'..='ǉ' => Some('ǈ'),
        'Ǌ'..='ǌ' => Some('ǋ'),
        'Ǳ'..='ǳ' => Some('ǲ'),
        _ => None,
    }
}

/// `c` as the first letter of a title.
fn push_title(c: char, out: &mut String) {
    if let Some(title) = title_case(c) {
        out.push(title);
    } else {
        let mut upper = c.to_uppercase();
        out.extend(upper.next());
        out.extend(upper.flat_map(char::to_lowercase));
    }
}

/// `str.capitalize`.
pub(super) fn capitalize(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut chars = s.chars();
    if let Some(first) = chars.next() {
        push_title(first, &mut out);
    }
    out + &chars.as_str().to_lowercase()
}

fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut in_word = false;
    for c in s.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            push_title(c, &mut out);
        }
        in_word = is_cased(c);
    }
    out
}

fn swap_case(s: &str) -> String {
    let swap = |c: char| if c.is_uppercase() { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() };
    s.chars().map(swap).collect()
}

/// `s` in a field of `width` with `left(space, width)` of the space on its left.
fn pad(s: &str, args: &Args, left: fn(usize, usize) -> usize) -> Result<Value> {
    args.required(0)?;
    let width = args.size(0, 0)?;
    let fill = args.str_opt(1)?.unwrap_or(" ");
    if fill.chars().count() != 1 {
        return Err(failed("the fill character must be exactly one character long"));
    }
    padded(s, width, fill, left).map(Value::from)
}

/// `s` centred as `str.center` does.
pub(super) fn center(s: &str, width: usize) -> Result<String> {
    padded(s, width, " ", |space, width| space / 2 + (space & width & 1))
}

fn padded(s: &str, width: usize, fill: &str, left: fn(usize, usize) -> usize) -> Result<String> {
    let space = width.saturating_sub(s.chars().count());
    bounded(space.checked_mul(fill.len()).and_then(|n| n.checked_add(s.len())))?;
    let left = left(space, width);
    Ok(fill.repeat(left) + s + &fill.repeat(space - left))
}

fn zero_fill(s: &str, width: usize) -> Result<Value> {
    let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
    let digits = padded(digits, width.saturating_sub(sign.len()), "0", |space, _| space)?;
    Ok(format!("{sign}{digits}").into())
}

fn expand_tabs(s: &str, size: usize) -> Result<Value> {
    let mut out = String::with_capacity(s.len());
    let mut column = 0;
    for c in s.chars() {
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                bounded(spaces.checked_add(out.len()))?;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out.into())
}

/// The part of a string between two arguments that count characters.
struct Window<'a> {
    text: &'a str,
    /// Characters before it; `None` where it begins behind the string's end.
    start: Option<usize>,
}

impl<'a> Window<'a> {
    /// The window that arguments `at` and `at + 1` give.
    fn new(s: &'a str, args: &Args, at: usize) -> Result<Self> {
        if args.some(at).is_none() && args.some(at + 1).is_none() {
            return Ok(Self { text: s, start: Some(0) });
        }
        let count = s.chars().count();
        let position = |n: i64| if n < 0 { count.saturating_sub(n.unsigned_abs() as usize) } else { n as usize };
        let start = args.int_opt(at)?.map_or(0, position);
        let end = args.int_opt(at + 1)?.map_or(count, position).min(count);
        let byte = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(i, _)| i);
        let inside = start <= count && start <= end;
        let text = if inside { &s[byte(start)..byte(end)] } else { "" };
        Ok(Self { text, start: inside.then_some(start) })
    }

    fn find(&self, sub: &str) -> Option<i64> {
        self.text.find(sub).and_then(|at| self.characters(at))
    }

    fn rfind(&self, sub: &str) -> Option<i64> {
        self.text.rfind(sub).and_then(|at| self.characters(at))
    }

    fn characters(&self, at: usize) -> Option<i64> {
        self.start.map(|start| (start + self.text[..at].chars().count()) as i64)
    }

    #[allow(clippy::unnecessary_wraps, reason = "what the table of methods holds")]
    fn count(&self, sub: &str) -> Result<Value> {
        Ok(Value::from(if self.start.is_none() { 0 } else { self.text.matches(sub).count() }))
    }
}

fn found(position: Option<i64>) -> Result<Value> {
    position.map(Value::from).ok_or_else(|| failed("substring not found"))
}

/// `startswith` and `endswith`: one string or a tuple of them.
fn affix(s: &str, args: &Args, test: fn(&str, &str) -> bool) -> Result<Value> {
    let window = Window::new(s, args, 1)?;
    let wanted = args.required(0)?;
    let of = |value: &Value| {
        value.as_str().map(|text| test(window.text, text)).ok_or_else(|| failed("the argument must be a string or a tuple of strings"))
    };
    let any = if wanted.is_tuple() {
        wanted.try_iter()?.map(|value| of(&value)).collect::<Result<Vec<bool>>>()?.contains(&true)
    } else {
        of(wanted)?
    };
    Ok((any && window.start.is_some()).into())
}

fn join(separator: &str, items: &Value) -> Result<Value> {
    let mut out = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        out.push_str(if i > 0 { separator } else { "" });
        out.push_str(item.as_str().ok_or_else(|| failed(format!("sequence item {i}: expected str instance")))?);
        bounded(Some(out.len()))?;
    }
    Ok(out.into())
}

fn strip(s: &str, args: &Args, start: bool, end: bool) -> Result<Value> {
    let chars = args.str_opt(0)?;
    let strips = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let s = if start { s.trim_start_matches(strips) } else { s };
    Ok(Value::from(if end { s.trim_end_matches(strips) } else { s }))
}

fn partition(s: &str, separator: &str, at: Option<usize>, from_right: bool) -> Result<Value> {
    if separator.is_empty() {
        return Err(failed("empty separator"));
    }
    let parts = match at {
        Some(at) => [&s[..at], separator, &s[at + separator.len()..]],
        None if from_right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(minijinja::value::Tuple::from(parts.map(Value::from)).into())
}

/// `str.replace`.
pub(super) fn replace(s: &str, old: &str, new: &str, count: Option<i64>) -> Result<String> {
    let count = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let times = if new.len() > old.len() { s.matches(old).count().min(count) } else { 0 };
    bounded(times.checked_mul(new.len()).and_then(|n| n.checked_add(s.len())))?;
    Ok(s.replacen(old, new, count))
}

fn split(s: &str, args: &Args, from_right: bool) -> Result<Value> {
    let limit = args.int_opt(1)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match args.str_opt(0)? {
        Some("") => return Err(failed("empty separator")),
        Some(separator) if from_right => s.rsplitn(limit + 1, separator).collect(),
        Some(separator) => s.splitn(limit + 1, separator).collect(),
        None => words(s, limit, from_right),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `limit` words from one side and what is left, in that order.
fn words(s: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s;
    loop {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            return parts;
        }
        let boundary = match from_right {
            _ if parts.len() == limit => None,
            true => rest.char_indices().rfind(|(_, c)| is_space(*c)).map(|(i, c)| (i, i + c.len_utf8())),
            false => rest.char_indices().find(|(_, c)| is_space(*c)).map(|(i, c)| (i, i + c.len_utf8())),
        };
        match boundary {
            Some((start, end)) if from_right => {
                parts.push(&rest[end..]);
                rest = &rest[..start];
            }
            Some((start, end)) => {
                parts.push(&rest[..start]);
                rest = &rest[end..];
            }
            None => {
                parts.push(rest);
                return parts;
            }
        }
    }
}

/// `str.splitlines`.
pub(super) fn lines(s: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(is_end) {
        let length = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep_ends { &rest[..at + length] } else { &rest[..at] });
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
