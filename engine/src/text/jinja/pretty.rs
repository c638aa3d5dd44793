//! `pprint`.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::args::bounded;
use super::python::{self, Dict, Result};

const WIDTH: usize = 80;

/// Python's `pprint.pformat`: keys sorted, and what does not fit on a line with one item on each.
pub(super) fn print(value: &Value) -> Result<String> {
    let mut out = String::new();
    write(&sorted(value)?, 0, 0, &mut out)?;
    Ok(out)
}

/// `value` with the keys of its dictionaries in order.
fn sorted(value: &Value) -> Result<Value> {
    match value.kind() {
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            keys.sort();
            let entry = |key: Value| Ok((key.clone(), sorted(&value.get_item(&key)?)?));
            Ok(Value::from_object(keys.into_iter().map(entry).collect::<Result<Dict>>()?))
        }
        ValueKind::Seq => {
            let items = value.try_iter()?.map(|item| sorted(&item)).collect::<Result<Vec<Value>>>()?;
            Ok(if value.is_tuple() { minijinja::value::Tuple::from(items).into() } else { items.into() })
        }
        _ => Ok(value.clone()),
    }
}

/// Writes `value` at column `indent`, with `behind` characters to come behind it.
fn write(value: &Value, indent: usize, behind: usize, out: &mut String) -> Result<()> {
    let line = python::repr(value)?;
    bounded(Some(out.len() + line.len()))?;
    let fits = line.chars().count() + indent + behind <= WIDTH;
    let (open, close) = match value.kind() {
        ValueKind::Map if !fits => ('{', '}'),
        ValueKind::Seq if !fits && value.is_tuple() => ('(', ')'),
        ValueKind::Seq if !fits => ('[', ']'),
        _ => {
            out.push_str(&line);
            return Ok(());
        }
    };
    out.push(open);
    let items: Vec<Value> = value.try_iter()?.collect();
    for (i, item) in items.iter().enumerate() {
        let mut column = indent + 1;
        if i > 0 {
            out.push_str(",\n");
            out.extend(std::iter::repeat_n(' ', column));
        }
        let behind = if i + 1 == items.len() { behind + 1 } else { 1 };
        if value.kind() == ValueKind::Map {
            let key = python::repr(item)?;
            out.push_str(&key);
            out.push_str(": ");
            column += key.chars().count() + 2;
            write(&value.get_item(item)?, column, behind, out)?;
        } else {
            write(item, column, behind, out)?;
        }
    }
    out.push(close);
    Ok(())
}
