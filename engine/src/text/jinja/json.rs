//! `tojson` as in `transformers`: Python's `json.dumps` with `ensure_ascii` off, nothing escaped for HTML, the order of keys kept.

use std::fmt::Write;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::args::{Args, bounded, failed};
use super::objects::{Printed, Range};
use super::python::{self, Dict, Result};

struct Style {
    item_separator: String,
    key_separator: String,
    /// What a line is indented by, per level.
    indent: Option<String>,
    sort_keys: bool,
    ensure_ascii: bool,
}

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn filter(value: &Value, args: &Args) -> Result<Value> {
    let indent = match args.some(1).map(|indent| (indent.as_str(), indent)) {
        Some((Some(text), _)) => Some(text.to_owned()),
        Some((None, _)) => {
            let width = args.size(1, 0)?;
            bounded(Some(width))?;
            Some(" ".repeat(width))
        }
        None => None,
    };
    let mut style = Style {
        item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
        key_separator: ": ".to_owned(),
        indent,
        sort_keys: args.flag(3, false),
        ensure_ascii: args.flag(0, false),
    };
    if let Some(separators) = args.some(2) {
        let texts = separators.try_iter()?.map(|text| python::text(&text)).collect::<Result<Vec<String>>>()?;
        [style.item_separator, style.key_separator] = texts.try_into().map_err(|_| failed("separators are two strings"))?;
    }
    let mut out = String::new();
    write(value, &style, 0, &mut out)?;
    Ok(out.into())
}

fn write(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<()> {
    bounded(Some(out.len()))?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => string(value.as_str().unwrap_or_default(), style.ensure_ascii, out),
        ValueKind::Map if value.downcast_object_ref::<Dict>().is_some() || value.is_kwargs() => return object(value, style, depth, out),
        ValueKind::Seq | ValueKind::Iterable
            if value.downcast_object_ref::<Range>().is_none() && value.downcast_object_ref::<Printed>().is_none() =>
        {
            return array(value, style, depth, out);
        }
        kind => return Err(failed(format!("tojson: a value of type {kind} is not JSON serializable"))),
    }
    Ok(())
}

fn number(value: &Value) -> String {
    match python::float(value) {
        Some(x) if !value.is_integer() && x.is_nan() => "NaN".to_owned(),
        Some(x) if !value.is_integer() && x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => python::number(value),
    }
}

/// What goes before item `i` of an array or object.
fn begin(i: usize, style: &Style, depth: usize, out: &mut String) -> Result<()> {
    out.push_str(if i > 0 { &style.item_separator } else { "" });
    line(style, depth + 1, out)
}

fn line(style: &Style, depth: usize, out: &mut String) -> Result<()> {
    if let Some(indent) = &style.indent {
        bounded(indent.len().checked_mul(depth).and_then(|n| n.checked_add(out.len())))?;
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    }
    Ok(())
}

fn array(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<()> {
    let mut empty = true;
    out.push('[');
    for (i, item) in value.try_iter()?.enumerate() {
        begin(i, style, depth, out)?;
        write(&item, style, depth + 1, out)?;
        empty = false;
    }
    if !empty {
        line(style, depth, out)?;
    }
    out.push(']');
    Ok(())
}

fn object(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<()> {
    let mut keys: Vec<Value> = value.try_iter()?.collect();
    if style.sort_keys {
        keys.sort();
    }
    out.push('{');
    for (i, key) in keys.iter().enumerate() {
        begin(i, style, depth, out)?;
        let name = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
            ValueKind::None => "null".to_owned(),
            ValueKind::Bool => key.is_true().to_string(),
            ValueKind::Number => number(key),
            _ => return Err(failed("tojson: keys must be str, int, float, bool or None")),
        };
        string(&name, style.ensure_ascii, out);
        out.push_str(&style.key_separator);
        write(&value.get_item(key)?, style, depth + 1, out)?;
    }
    if !keys.is_empty() {
        line(style, depth, out)?;
    }
    out.push('}');
    Ok(())
}

fn string(s: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
