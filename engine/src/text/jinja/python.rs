//! What Python says of values: `str`, `repr`, numbers and classes of characters.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::LazyLock;

use indexmap::IndexMap;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use regex_automata::meta::Regex;

use super::args::{bounded, failed};
use super::objects::{Printed, Range};
use super::sequences::Group;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// A dictionary of a template.
pub(super) type Dict = IndexMap<Value, Value>;

/// `str(value)`, which is what `{{ value }}` shows.
pub(super) fn text(value: &Value) -> Result<String> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Undefined => Ok(String::new()),
        _ => repr(value),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<String> {
    let mut out = String::new();
    write_repr(value, &mut out)?;
    Ok(out)
}

fn write_repr(value: &Value, out: &mut String) -> Result<()> {
    bounded(Some(out.len()))?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String if value.is_safe() => {
            out.push_str("Markup(");
            quote(value.as_str().unwrap_or_default(), out);
            out.push(')');
        }
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Bytes => bytes(value.as_bytes().unwrap_or_default(), out),
        _ => return write_container(value, out),
    }
    Ok(())
}

fn write_container(value: &Value, out: &mut String) -> Result<()> {
    let (open, close) = match value.kind() {
        _ if value.as_object().is_some_and(|object| object.type_name().ends_with("::Loop")) => {
            let _ = write!(out, "<LoopContext {}/{}>", value.get_attr("index")?, value.get_attr("length")?);
            return Ok(());
        }
        ValueKind::Map if value.downcast_object_ref::<Dict>().is_some() || value.is_kwargs() => ("{".to_owned(), "}".to_owned()),
        ValueKind::Map if value.downcast_object_ref::<Printed>().is_none() && value.len().is_some() => {
            ("<Namespace {".to_owned(), "}>".to_owned())
        }
        _ if value.downcast_object_ref::<Range>().is_some() => ("range(".to_owned(), ")".to_owned()),
        ValueKind::Seq | ValueKind::Iterable => match value.downcast_object_ref::<Printed>() {
            Some(view) => (format!("{}([", view.name), "])".to_owned()),
            None if value.downcast_object_ref::<Group>().is_some() => ("(".to_owned(), ")".to_owned()),
            None if value.is_tuple() => ("(".to_owned(), if value.len() == Some(1) { ",)" } else { ")" }.to_owned()),
            None => ("[".to_owned(), "]".to_owned()),
        },
        _ => {
            let _ = write!(out, "{value}");
            return Ok(());
        }
    };
    out.push_str(&open);
    if let Some(range) = value.downcast_object_ref::<Range>() {
        out.push_str(&range.arguments());
    } else {
        for (i, item) in value.try_iter()?.enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            write_repr(&item, out)?;
            if value.kind() == ValueKind::Map {
                out.push_str(": ");
                write_repr(&value.get_item(&item)?, out)?;
            }
        }
    }
    out.push_str(&close);
    Ok(())
}

/// An integer or truth value.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(value.is_true().into()),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A number or truth value.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok().or_else(|| value.to_string().parse().ok()),
        _ => None,
    }
}

/// `repr` of a number.
pub(super) fn number(value: &Value) -> String {
    match float(value) {
        Some(x) if !value.is_integer() => float_repr(x),
        _ => value.to_string(),
    }
}

/// A float with the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
pub(super) fn float_repr(x: f64) -> String {
    if !x.is_finite() {
        return format!("{x}").to_lowercase();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..16).contains(&e) => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
        _ => format!("{x:?}"),
    }
}

/// `int(text)`: white space around, a sign, single underscores between digits; a prefix where `radix` has one.
pub(super) fn parse_integer(text: &str, radix: u32) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = prefixes.iter().find(|(prefix, base)| (radix == *base || radix == 0) && lower.starts_with(prefix));
    let (digits, radix) = match prefixed {
        Some((_, base)) => (lower[2..].strip_prefix('_').unwrap_or(&lower[2..]), *base),
        None if radix == 0 && lower.starts_with('0') && !lower.trim_matches(['0', '_']).is_empty() => return None,
        None => (lower.as_str(), if radix == 0 { 10 } else { radix }),
    };
    if !(2..=36).contains(&radix) || digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').map(ascii_digit).collect();
    let value = i128::from_str_radix(&digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// A decimal digit of any script as an ASCII digit.
fn ascii_digit(c: char) -> char {
    if c.is_ascii() || !is_decimal(c) {
        return c;
    }
    // Decimal digits stand in runs of ten.
    let zero = (0..10).take_while(|n| char::from_u32(c as u32 - n).is_some_and(is_decimal)).last().unwrap_or(0);
    char::from_digit(zero, 10).unwrap_or(c)
}

/// `float(text)`.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// A string in quotes: single ones, unless it has those and no double ones.
fn quote(s: &str, out: &mut String) {
    let mark = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => escape(c, out),
        }
    }
    out.push(mark);
}

/// `\x7f`, `\u200b` or `\U000e0001`.
pub(super) fn escape(c: char, out: &mut String) {
    let code = c as u32;
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

fn bytes(bytes: &[u8], out: &mut String) {
    let mark = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    out.extend(['b', mark]);
    for byte in bytes {
        match *byte as char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            c if c.is_ascii_graphic() || c == ' ' => out.push(c),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(mark);
}

/// The characters that `str.isspace` and `str.strip` know.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A class of characters that Unicode names and Rust does not.
fn in_class(class: &LazyLock<Regex>, c: char) -> bool {
    class.is_match(c.encode_utf8(&mut [0; 4]) as &str)
}

#[allow(clippy::expect_used, reason = "the patterns are constants that a test compiles")]
fn class(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of classes")
}

static LETTER: LazyLock<Regex> = LazyLock::new(|| class(r"\p{L}"));
static DECIMAL: LazyLock<Regex> = LazyLock::new(|| class(r"\p{Nd}"));
static HIDDEN: LazyLock<Regex> = LazyLock::new(|| class(r"[\p{C}\p{Z}]"));

/// `str.isalpha` of one character.
pub(super) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { in_class(&LETTER, c) }
}

/// `str.isdecimal` of one character.
pub(super) fn is_decimal(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { in_class(&DECIMAL, c) }
}

/// `str.isdigit` of one character: superscripts and circled digits too.
pub(super) fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐' | '⓪' | '❶'..='❾' | '➀'..='➈' | '➊'..='➒')
}

/// `str.isnumeric` of one character: fractions, Roman and Chinese numerals too.
pub(super) fn is_numeric(c: char) -> bool {
    c.is_numeric() || "〇零一壹二贰貳三叁參四肆五伍六陆陸七柒八捌九玖十拾百佰千仟万萬亿億兆".contains(c)
}

/// `str.isprintable` of one character.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() { !c.is_ascii_control() } else { !in_class(&HIDDEN, c) }
}

/// The key of a case-insensitive comparison: a string in lower case, anything else as it is.
pub(super) fn ignore_case(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |s| Value::from(s.to_lowercase()))
}

/// Whether `operands` (values with operators between them) compare as they say.
///
/// # Errors
/// For an order of values that have none.
pub(super) fn compare(operands: &[Value]) -> Result<bool> {
    for step in operands.windows(3).step_by(2) {
        let holds = match step[1].as_str() {
            Some("==") => step[0] == step[2],
            Some("!=") => step[0] != step[2],
            Some(operator) => order(&step[0], &step[2])?.is_some_and(|order| match operator {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                _ => order.is_ge(),
            }),
            None => false,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How numbers, strings, lists or tuples compare with their like; `None` for what is no number.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (float(left), float(right)) {
        let exact = integer(left).zip(integer(right)).map(|(a, b)| a.cmp(&b));
        return Ok(exact.or_else(|| a.partial_cmp(&b)));
    }
    let alike = left.kind() == right.kind() && left.is_tuple() == right.is_tuple();
    match left.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String | ValueKind::Bytes | ValueKind::Seq if alike => Ok(Some(left.cmp(right))),
        _ if right.is_undefined() => Err(Error::from(ErrorKind::UndefinedError)),
        _ => Err(failed(format!("{} and {} have no order", left.kind(), right.kind()))),
    }
}

/// The remainder with the sign of the divisor; for a string on the left, `%` formatting.
pub(super) fn remainder(left: &Value, right: &Value) -> Result<Value> {
    if let Some(format) = left.as_str() {
        return super::format::percent(format, right).map(Value::from);
    }
    let mismatch = || failed("unsupported operands of %");
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let rest = a.checked_rem(b).ok_or_else(|| failed("modulo by zero"))?;
        let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
        return Ok(Value::from(rest));
    }
    let (a, b) = float(left).zip(float(right)).ok_or_else(mismatch)?;
    if b == 0.0 {
        return Err(failed("modulo by zero"));
    }
    let rest = a % b;
    Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }))
}
