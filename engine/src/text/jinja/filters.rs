//! The filters of Jinja2 that `minijinja` lacks, or has with other values.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::args::{Args, bounded, failed};
use super::python::{self, Result, is_space, text};
use super::{format, json, pretty, sequences, strings, wrap};

/// A filter: its input and its arguments.
pub(super) type Filter = fn(&Value, &Args) -> Result<Value>;

/// Name, parameters and function of every filter.
const FILTERS: &[(&str, &str, Filter)] = &[
    ("capitalize", "", |v, _| Ok(strings::capitalize(&text(v)?).into())),
    ("center", "width", |v, a| strings::center(&text(v)?, a.size(0, 80)?).map(Value::from)),
    ("filesizeformat", "binary", file_size),
    ("e", "", escape),
    ("escape", "", escape),
    ("float", "default", |v, a| Ok(to_float(&defined(v)?).map_or_else(|| a.get(0).cloned().unwrap_or_else(|| 0.0.into()), Value::from))),
    ("forceescape", "", |v, _| Ok(Value::from_safe_string(escaped(&text(v)?)))),
    ("indent", "width first blank", indent),
    ("int", "default base", to_int),
    ("join", "d attribute", join),
    ("lower", "", |v, _| Ok(text(v)?.to_lowercase().into())),
    ("pprint", "", |v, _| pretty::print(v).map(Value::from)),
    ("random", "", random),
    ("replace", "old new count", |v, a| {
        strings::replace(&text(v)?, &text(a.required(0)?)?, &text(a.required(1)?)?, a.int_opt(2)?).map(Value::from)
    }),
    ("round", "precision method", round),
    ("string", "", |v, _| if v.as_str().is_some() { Ok(v.clone()) } else { text(v).map(Value::from) }),
    ("striptags", "", |v, _| Ok(strip_tags(&text(v)?).into())),
    ("title", "", |v, _| Ok(title(&text(v)?).into())),
    ("tojson", "ensure_ascii indent separators sort_keys", json::filter),
    ("trim", "chars", |v, a| {
        let chars = a.str_opt(0)?;
        let text = text(v)?;
        Ok(text.trim_matches(|c| chars.map_or_else(|| is_space(c), |chars| chars.contains(c))).into())
    }),
    ("truncate", "length killwords end leeway", truncate),
    ("upper", "", |v, _| Ok(text(v)?.to_uppercase().into())),
    ("urlencode", "", url_encode),
    ("urlize", "trim_url_limit nofollow target rel extra_schemes", wrap::urlize),
    ("wordcount", "", |v, _| {
        Ok(text(v)?.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count().into())
    }),
    ("wordwrap", "width break_long_words wrapstring break_on_hyphens", wrap::filter),
    ("xmlattr", "autospace", xml_attributes),
];

/// Adds the filters, and takes out those that Jinja2 has not.
pub(super) fn add(environment: &mut Environment<'static>) {
    for (name, parameters, filter) in FILTERS.iter().chain(sequences::FILTERS) {
        environment.add_filter(*name, move |state: &State<'_, '_>, value: Value, Rest(args): Rest<Value>, kwargs: Kwargs| {
            charge(state, &value)?;
            filter(&value, &Args::bind(name, parameters, &with_keywords(args, kwargs))?)
        });
    }
    environment.add_filter("format", |value: Value, Rest(args): Rest<Value>, kwargs: Kwargs| {
        let named = Value::from(kwargs);
        let arguments = if named.is_true() { named } else { minijinja::value::Tuple::from(args).into() };
        format::percent(&text(&value)?, &arguments)
    });
    environment.add_filter("map", map);
    for name in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(name);
    }
}

/// Arguments with the keywords last, as methods get them.
pub(super) fn with_keywords(mut args: Vec<Value>, kwargs: Kwargs) -> Vec<Value> {
    args.extend(Some(Value::from(kwargs)).filter(Value::is_true));
    args
}

fn escape(value: &Value, _: &Args) -> Result<Value> {
    if value.is_safe() { Ok(value.clone()) } else { Ok(Value::from_safe_string(escaped(&text(value)?))) }
}

/// A value that is not undefined.
fn defined(value: &Value) -> Result<Value> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(value.clone()) }
}

/// Pays for going once through a list, dictionary or text.
pub(super) fn charge(state: &State<'_, '_>, value: &Value) -> Result<()> {
    let work = value.as_str().map_or_else(|| value.len().unwrap_or(0) / 2, |text| text.len() / 64);
    state.consume_fuel(work as u64)
}

/// `map('filter', …)` or `map(attribute='path', default=…)`.
#[allow(clippy::needless_pass_by_value, reason = "the signature minijinja calls filters by")]
fn map(state: &mut State<'_, '_>, value: Value, Rest(args): Rest<Value>, kwargs: Kwargs) -> Result<Value> {
    charge(state, &value)?;
    let items = sequences::items(&value)?;
    if args.is_empty() && kwargs.has("attribute") {
        let (path, default) = (kwargs.get::<Value>("attribute")?, kwargs.get::<Option<Value>>("default")?);
        kwargs.assert_all_used()?;
        let pick = |item: &Value| {
            let found = attribute(item, Some(&path))?;
            Ok(if found.is_undefined() { default.clone().unwrap_or(found) } else { found })
        };
        return items.iter().map(pick).collect();
    }
    let mut args = with_keywords(args, kwargs);
    let name = args.first().and_then(Value::as_str).ok_or_else(|| failed("map requires a filter argument"))?.to_owned();
    let apply = |item: Value| {
        args[0] = item;
        state.apply_filter(&name, &args)
    };
    items.into_iter().map(apply).collect()
}

/// `text` as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&#34;")
}

/// Every word in lower case but for its first letter; words begin behind white space and opening brackets.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        let begins = "-({[<".contains(c) || is_space(c);
        if begins {
            out.push(c);
        } else if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = !begins;
    }
    out
}

fn to_float(value: &Value) -> Option<f64> {
    value.as_str().map_or_else(|| python::float(value), python::parse_float)
}

fn to_int(value: &Value, args: &Args) -> Result<Value> {
    let base = args.size(1, 10)? as u32;
    let value = &defined(value)?;
    let exact = match value.as_str() {
        Some(text) => python::parse_integer(text, base),
        None => python::integer(value),
    };
    let whole = exact.or_else(|| to_float(value).filter(|x| x.is_finite()).map(|x| x.trunc() as i128));
    Ok(whole.map_or_else(|| args.get(0).cloned().unwrap_or_else(|| 0.into()), Value::from))
}

fn file_size(value: &Value, args: &Args) -> Result<Value> {
    let bytes = to_float(value).ok_or_else(|| failed("filesizeformat takes a number"))?;
    let binary = args.flag(0, false);
    let base = if binary { 1024.0 } else { 1000.0 };
    if bytes < base {
        let unit = if bytes.total_cmp(&1.0).is_eq() { "Byte" } else { "Bytes" };
        return Ok(format!("{} {unit}", bytes.trunc()).into());
    }
    let mut unit = base;
    let mut prefix = 'Y';
    for c in "kMGTPEZY".chars() {
        prefix = c;
        if bytes < unit * base {
            break;
        }
        unit *= base;
    }
    let unit = if prefix == 'Y' && bytes >= unit { unit / base } else { unit };
    let prefix = if binary { format!("{}i", prefix.to_uppercase()) } else { prefix.to_string() };
    Ok(format!("{:.1} {prefix}B", bytes / unit).into())
}

fn indent(value: &Value, args: &Args) -> Result<Value> {
    let width = if let Some(text) = args.get(0).and_then(Value::as_str) {
        text.to_owned()
    } else {
        let width = args.size(0, 4)?;
        bounded(Some(width))?;
        " ".repeat(width)
    };
    let blank = args.flag(2, false);
    let text = text(value)? + "\n";
    let mut out = if args.flag(1, false) { width.clone() } else { String::new() };
    for (i, line) in strings::lines(&text, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&width);
            }
        }
        out.push_str(line);
        bounded(Some(out.len()))?;
    }
    Ok(out.into())
}

/// `value.a.0.b`, or the item itself without a path.
pub(super) fn attribute(item: &Value, path: Option<&Value>) -> Result<Value> {
    let Some(path) = path else { return Ok(item.clone()) };
    let Some(path) = path.as_str() else { return item.get_item(path) };
    path.split('.').try_fold(item.clone(), |value, part| {
        let key = part.parse::<i64>().map_or_else(|_| Value::from(part), Value::from);
        if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { value.get_item(&key) }
    })
}

fn join(value: &Value, args: &Args) -> Result<Value> {
    let separator = args.get(0).map_or(Ok(String::new()), text)?;
    let mut out = String::new();
    if value.is_undefined() {
        return Ok(out.into());
    }
    for (i, item) in value.try_iter()?.enumerate() {
        out.push_str(if i > 0 { &separator } else { "" });
        out.push_str(&text(&attribute(&item, args.some(1))?)?);
        bounded(Some(out.len()))?;
    }
    Ok(out.into())
}

fn random(value: &Value, _: &Args) -> Result<Value> {
    use std::hash::{BuildHasher, RandomState};
    let items: Vec<Value> = value.try_iter()?.collect();
    let at = RandomState::new().hash_one(items.len()) as usize % items.len().max(1);
    Ok(items.get(at).cloned().unwrap_or(Value::UNDEFINED))
}

fn round(value: &Value, args: &Args) -> Result<Value> {
    let precision = args.int_opt(0)?.unwrap_or(0).clamp(-300, 300) as i32;
    let number = python::float(value).ok_or_else(|| failed("round takes a number"))?;
    let scale = 10_f64.powi(precision);
    match (args.str_opt(1)?.unwrap_or("common"), python::integer(value)) {
        ("common", Some(whole)) if precision >= 0 => Ok(whole.into()),
        ("common", Some(whole)) => {
            let unit = 10_i128.checked_pow(precision.unsigned_abs()).unwrap_or(i128::MAX);
            let (down, rest) = (whole.div_euclid(unit), whole.rem_euclid(unit));
            let up = rest > unit - rest || (rest == unit - rest && down % 2 != 0);
            Ok(((down + i128::from(up)) * unit).into())
        }
        ("common", None) if !number.is_finite() => Ok(number.into()),
        ("common", None) if precision >= 0 => Ok(format!("{number:.*}", precision as usize).parse::<f64>().unwrap_or(number).into()),
        ("common", None) => Ok(((number * scale).round_ties_even() / scale).into()),
        ("ceil", _) => Ok(((number * scale).ceil() / scale).into()),
        ("floor", _) => Ok(((number * scale).floor() / scale).into()),
        _ => Err(failed("method must be common, ceil or floor")),
    }
}

fn strip_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let comment = rest[start..].starts_with("<!--");
        let end = if comment { rest[start..].find("-->").map(|n| n + 3) } else { rest[start..].find('>').map(|n| n + 1) };
        let Some(end) = end else { break };
        out.push_str(&rest[..start]);
        rest = &rest[start + end..];
    }
    out.push_str(rest);
    let words: Vec<&str> = out.split(is_space).filter(|word| !word.is_empty()).collect();
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&nbsp;", "\u{a0}"), ("&amp;", "&")];
    entities.iter().fold(words.join(" "), |text, (entity, character)| text.replace(entity, character))
}

fn truncate(value: &Value, args: &Args) -> Result<Value> {
    let length = args.size(0, 255)?;
    let end = args.str_opt(2)?.unwrap_or("...");
    let text = text(value)?;
    let keep = length.checked_sub(end.chars().count()).ok_or_else(|| failed("truncate: the length is less than that of the end"))?;
    if text.chars().count() <= length.saturating_add(args.size(3, 5)?) {
        return Ok(text.into());
    }
    let kept: String = text.chars().take(keep).collect();
    let kept = if args.flag(1, false) { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(words, _)| words) };
    Ok(format!("{kept}{end}").into())
}

fn quote_url(text: &str, safe: &str, space: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = byte as char;
        if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) {
            out.push(c);
        } else if c == ' ' {
            out.push_str(space);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn url_encode(value: &Value, _: &Args) -> Result<Value> {
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        return Ok(quote_url(&text(value)?, "/", "%20").into());
    }
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        let (key, value) = if value.kind() == ValueKind::Map {
            (item.clone(), value.get_item(&item)?)
        } else {
            (item.get_item_by_index(0)?, item.get_item_by_index(1)?)
        };
        parts.push(format!("{}={}", quote_url(&text(&key)?, "", "+"), quote_url(&text(&value)?, "", "+")));
    }
    Ok(parts.join("&").into())
}

fn xml_attributes(value: &Value, args: &Args) -> Result<Value> {
    let mut out = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        let key = text(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        if key.contains(|c: char| is_space(c) || "/>=".contains(c)) {
            return Err(failed(format!("invalid character in attribute name: {key:?}")));
        }
        let _ = write!(out, " {}=\"{}\"", escaped(&key), escaped(&text(&item)?));
    }
    let start = usize::from(!args.flag(0, true) && !out.is_empty());
    Ok(out[start..].into())
}
