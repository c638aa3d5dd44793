//! Python's formatting: `str.format` with its field language, and `%`.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::args::{bounded, failed};
use super::python::{self, Result};

/// Digits of a number; Rust formats no more than 65,535.
const MAX_PRECISION: usize = 10_000;

/// `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        let mut chars: Vec<char> = text.chars().collect();
        let is_align = |c: Option<&char>| c.is_some_and(|c| "<>=^".contains(*c));
        if is_align(chars.get(1)) {
            spec.fill = Some(chars[0]);
            spec.align = Some(chars[1]);
            chars.drain(..2);
        } else if is_align(chars.first()) {
            spec.align = Some(chars.remove(0));
        }
        let mut rest = chars.into_iter().peekable();
        spec.sign = rest.next_if(|c| "+- ".contains(*c));
        spec.alternate = rest.next_if_eq(&'#').is_some();
        spec.zero = rest.next_if_eq(&'0').is_some();
        spec.width = digits(&mut rest)?.unwrap_or(0);
        spec.grouping = rest.next_if(|c| ",_".contains(*c));
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut rest)?.ok_or_else(|| failed("format specifier missing precision"))?);
        }
        spec.kind = rest.next();
        if rest.next().is_some() {
            return Err(failed(format!("invalid format specifier {text:?}")));
        }
        Ok(spec)
    }

    /// `format(value, spec)`.
    fn format(&self, value: &Value) -> Result<String> {
        let unknown = || failed(format!("unknown format code {:?} for this value", self.kind.unwrap_or(' ')));
        match (value.kind(), self.kind) {
            (ValueKind::String, None | Some('s')) => {
                let text = value.as_str().unwrap_or_default();
                let text: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
                self.pad("", &text, '<')
            }
            (ValueKind::Bool | ValueKind::Number, kind) => match (python::integer(value), kind) {
                (Some(n), None | Some('b' | 'c' | 'd' | 'n' | 'o' | 'x' | 'X')) => self.integer(n),
                (_, None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%')) => self.float(python::float(value).unwrap_or(f64::NAN)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }

    fn integer(&self, n: i128) -> Result<String> {
        let magnitude = n.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{magnitude:b}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            Some('c') => {
                let c = u32::try_from(n).ok().and_then(char::from_u32).ok_or_else(|| failed("%c arg not in range(0x110000)"))?;
                return self.pad("", &c.to_string(), '<');
            }
            _ => ("", magnitude.to_string()),
        };
        let least = self.precision(0)?;
        let group = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
        let prefix = format!("{}{}", self.sign_of(n < 0), if self.alternate { prefix } else { "" });
        self.pad(&prefix, &self.grouped(&format!("{digits:0>least$}"), group), '>')
    }

    fn float(&self, x: f64) -> Result<String> {
        let precision = self.precision(6)?;
        let magnitude = x.abs();
        let mut body = match self.kind {
            _ if x.is_nan() => "nan".to_owned(),
            _ if x.is_infinite() => "inf".to_owned(),
            Some('f' | 'F') => format!("{magnitude:.precision$}"),
            Some('%') => format!("{:.precision$}%", magnitude * 100.0),
            Some('e' | 'E') => exponent(&format!("{magnitude:.precision$e}")),
            None if self.precision.is_none() => python::float_repr(magnitude),
            _ => general(magnitude, precision.max(1), self.alternate),
        };
        if self.kind.is_some_and(char::is_uppercase) {
            body = body.to_uppercase();
        }
        let whole = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
        let body = self.grouped(&body[..whole], 3) + &body[whole..];
        self.pad(self.sign_of(x.is_sign_negative() && !x.is_nan()), &body, '>')
    }

    fn precision(&self, default: usize) -> Result<usize> {
        let precision = self.precision.unwrap_or(default);
        if precision > MAX_PRECISION { Err(failed("the precision is too large")) } else { Ok(precision) }
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match self.sign {
            _ if negative => "-",
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        }
    }

    fn grouped(&self, digits: &str, size: usize) -> String {
        let Some(mark) = self.grouping else { return digits.to_owned() };
        let mut out = String::new();
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(size) {
                out.push(mark);
            }
            out.push(c);
        }
        out
    }

    /// `prefix` (sign and base) and `body` in the field's width.
    fn pad(&self, prefix: &str, body: &str, align: char) -> Result<String> {
        let space = self.width.saturating_sub(prefix.len() + body.chars().count());
        bounded(space.checked_mul(4))?;
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let align = self.align.unwrap_or(if self.zero && align == '>' { '=' } else { align });
        let repeat = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        Ok(match align {
            '<' => format!("{prefix}{body}{}", repeat(space)),
            '^' => format!("{}{prefix}{body}{}", repeat(space / 2), repeat(space - space / 2)),
            '=' => format!("{prefix}{}{body}", repeat(space)),
            _ => format!("{}{prefix}{body}", repeat(space)),
        })
    }
}

fn digits(rest: &mut std::iter::Peekable<impl Iterator<Item = char>>) -> Result<Option<usize>> {
    let mut text = String::new();
    while let Some(c) = rest.next_if(char::is_ascii_digit) {
        text.push(c);
    }
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| failed("too many decimal digits in format string"))
}

/// Rust's `1.5e-7` as `1.5e-07`.
fn exponent(scientific: &str) -> String {
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let e: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
}

/// `%g`: `precision` digits, with an exponent where it is below -4 or not below the precision; no zeros at the end.
fn general(x: f64, precision: usize, alternate: bool) -> String {
    let scientific = format!("{x:.*e}", precision - 1);
    let e: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |s: &str| {
        let trimmed = if s.contains('.') && !alternate { s.trim_end_matches('0').trim_end_matches('.') } else { s };
        trimmed.to_owned()
    };
    if (-4..precision as i32).contains(&e) {
        return trim(&format!("{x:.*}", (precision as i32 - 1 - e) as usize));
    }
    let (digits, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
    exponent(&format!("{}e{e}", trim(digits)))
}

/// `format.format(*positional, **named)`; `named` looks up a keyword.
pub(super) fn fields(format: &str, positional: &[Value], named: &dyn Fn(&str) -> Option<Value>) -> Result<String> {
    Fields { positional, named, next: 0 }.format(format, 0)
}

struct Fields<'a> {
    positional: &'a [Value],
    named: &'a dyn Fn(&str) -> Option<Value>,
    next: usize,
}

impl Fields<'_> {
    fn format(&mut self, format: &str, depth: usize) -> Result<String> {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if rest.starts_with(brace) && depth == 0 {
                out.push_str(brace);
                rest = &rest[1..];
            } else if brace == "{" && depth < 2 {
                let end = field_end(rest).ok_or_else(|| failed("expected '}' before end of string"))?;
                out.push_str(&self.field(&rest[..end], depth)?);
                rest = &rest[end + 1..];
            } else {
                return Err(failed("single '}' encountered in format string"));
            }
            bounded(Some(out.len()))?;
        }
        Ok(out + rest)
    }

    /// `name.attribute[index]!conversion:spec`.
    fn field(&mut self, field: &str, depth: usize) -> Result<String> {
        let (head, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = head.split_once('!').unwrap_or((head, ""));
        let value = self.value(name)?;
        let spec = if spec.contains('{') { self.format(spec, depth + 1)? } else { spec.to_owned() };
        let value = match conversion {
            "" => value,
            "s" => Value::from(python::text(&value)?),
            "r" => Value::from(python::repr(&value)?),
            "a" => Value::from(ascii(&value)?),
            _ => return Err(failed("unknown conversion specifier")),
        };
        if spec.is_empty() { python::text(&value) } else { Spec::parse(&spec)?.format(&value) }
    }

    fn value(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let index = if end == 0 {
            self.next += 1;
            Some(self.next - 1)
        } else {
            name[..end].parse().ok()
        };
        let missing = || failed(format!("the format has no argument for {{{name}}}"));
        let mut value = match index {
            Some(index) => self.positional.get(index).cloned(),
            None => (self.named)(&name[..end]),
        }
        .ok_or_else(missing)?;
        let mut path = &name[end..];
        while !path.is_empty() {
            let (key, rest) = if let Some(path) = path.strip_prefix('[') {
                path.split_once(']').ok_or_else(missing)?
            } else {
                let path = path.strip_prefix('.').ok_or_else(missing)?;
                path.split_at(path.find(['.', '[']).unwrap_or(path.len()))
            };
            let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
            value = value.get_item(&key)?;
            path = rest;
        }
        if value.is_undefined() { Err(missing()) } else { Ok(value) }
    }
}

/// Where the field that begins `rest` ends, with the fields in its specification.
fn field_end(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(i),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `ascii(value)`.
fn ascii(value: &Value) -> Result<String> {
    let mut out = String::new();
    for c in python::repr(value)?.chars() {
        if c.is_ascii() { out.push(c) } else { python::escape(c, &mut out) }
    }
    Ok(out)
}

/// `format % value`.
pub(super) fn percent(format: &str, value: &Value) -> Result<String> {
    let is_mapping = value.kind() == ValueKind::Map;
    let values: Vec<Value> = if value.is_tuple() { value.try_iter()?.collect() } else { vec![value.clone()] };
    let mut arguments = values.into_iter();
    let mut out = String::new();
    let mut rest = format;
    let mut named = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        bounded(Some(out.len()))?;
        rest = &rest[at + 1..];
        let key = match rest.strip_prefix('(') {
            Some(inner) => {
                let (key, after) = inner.split_once(')').ok_or_else(|| failed("incomplete format key"))?;
                rest = after;
                named = true;
                Some(
                    value
                        .get_item(&Value::from(key))
                        .ok()
                        .filter(|v| is_mapping && !v.is_undefined())
                        .ok_or_else(|| failed(format!("the format has no argument for {key:?}")))?,
                )
            }
            None => None,
        };
        let mut next = || arguments.next().ok_or_else(|| failed("not enough arguments for format string"));
        let mut chars = rest.chars().peekable();
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        let mut left = false;
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                '-' => left = true,
                sign if spec.sign != Some('+') => spec.sign = Some(sign),
                _ => {}
            }
        }
        let mut size = |chars: &mut std::iter::Peekable<std::str::Chars>| match chars.next_if_eq(&'*') {
            Some(_) => python::integer(&next()?).ok_or_else(|| failed("* wants int")).map(|n| {
                left |= n < 0;
                Some(usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX))
            }),
            None => digits(chars),
        };
        spec.width = size(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(size(&mut chars)?.unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let kind = chars.next().ok_or_else(|| failed("incomplete format"))?;
        rest = &rest[rest.len() - chars.map(char::len_utf8).sum::<usize>()..];
        spec.align = left.then_some('<');
        if kind == '%' {
            out.push('%');
            continue;
        }
        let argument = key.map_or_else(next, Ok)?;
        out.push_str(&conversion(kind, &argument, spec)?);
    }
    if !named && !is_mapping && arguments.next().is_some() && (value.is_tuple() || value.kind() != ValueKind::Seq) {
        return Err(failed("not all arguments converted during string formatting"));
    }
    Ok(out + rest)
}

/// One `%` conversion.
fn conversion(kind: char, argument: &Value, mut spec: Spec) -> Result<String> {
    let wrong = || failed(format!("%{kind} format: a number is required"));
    spec.kind = Some(kind);
    match kind {
        's' | 'r' | 'a' | 'c' => {
            let text = match (kind, python::integer(argument)) {
                ('s', _) => python::text(argument)?,
                ('r', _) => python::repr(argument)?,
                ('a', _) => ascii(argument)?,
                (_, Some(_)) => Spec { kind: Some('c'), ..Spec::default() }.format(argument)?,
                _ => argument.as_str().filter(|s| s.chars().count() == 1).ok_or_else(|| failed("%c requires int or char"))?.to_owned(),
            };
            spec.kind = None;
            spec.zero = false;
            spec.align = spec.align.or(Some('>'));
            spec.format(&Value::from(text))
        }
        'd' | 'i' | 'u' => {
            let whole = python::integer(argument).or_else(|| python::float(argument).map(|x| x as i128)).ok_or_else(wrong)?;
            spec.kind = Some('d');
            spec.integer(whole)
        }
        'o' | 'x' | 'X' => spec.integer(python::integer(argument).ok_or_else(wrong)?),
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => spec.float(python::float(argument).ok_or_else(wrong)?),
        _ => Err(failed(format!("unsupported format character {kind:?}"))),
    }
}
