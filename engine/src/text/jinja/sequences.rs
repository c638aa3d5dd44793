//! Filters that order, group and pick, as Jinja2 has them.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind};

use super::args::{Args, failed};
use super::filters::{Filter, attribute};
use super::objects;
use super::python::{self, Dict, Result};

/// Name, parameters and function of every filter.
pub(super) const FILTERS: &[(&str, &str, Filter)] = &[
    ("abs", "", abs),
    ("attr", "name", |v, a| match objects::method(v, a.str(0)?) {
        Some(method) => Ok(method),
        None if v.downcast_object_ref::<Dict>().is_some() => Ok(Value::UNDEFINED),
        None => v.get_attr(a.str(0)?),
    }),
    ("d", "default_value boolean", default),
    ("default", "default_value boolean", default),
    ("dictsort", "case_sensitive by reverse", dict_sort),
    ("groupby", "attribute default case_sensitive", group_by),
    ("list", "", |v, _| items(v).map(Value::from)),
    ("max", "case_sensitive attribute", |v, a| extreme(v, a, Ordering::Greater)),
    ("min", "case_sensitive attribute", |v, a| extreme(v, a, Ordering::Less)),
    ("sort", "reverse case_sensitive attribute", sort),
];

/// The items of what can be read through; none of what is undefined.
pub(super) fn items(value: &Value) -> Result<Vec<Value>> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::None => Err(failed("None is not iterable")),
        _ => Ok(value.try_iter()?.collect()),
    }
}

fn abs(value: &Value, _: &Args) -> Result<Value> {
    match (python::integer(value), python::float(value)) {
        (Some(whole), _) => Ok(whole.checked_abs().ok_or_else(|| failed("the number is too large"))?.into()),
        (None, Some(number)) => Ok(number.abs().into()),
        _ => Err(failed("abs takes a number")),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what the table of filters holds")]
fn default(value: &Value, args: &Args) -> Result<Value> {
    let missing = value.is_undefined() || (args.flag(1, false) && !value.is_true());
    Ok(if missing { args.get(0).cloned().unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// Python's order: of numbers, strings and lists among themselves.
fn compare(a: &Value, b: &Value) -> Result<Ordering> {
    let is_number = |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool);
    let comparable = (is_number(a) && is_number(b)) || (a.kind() == b.kind() && matches!(a.kind(), ValueKind::String | ValueKind::Seq));
    if !comparable {
        return Err(failed(format!("values of the types {} and {} cannot be compared", a.kind(), b.kind())));
    }
    Ok(match (python::integer(a), python::integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.cmp(b),
    })
}

/// `items` in the order of their keys, stable.
fn sorted<T>(items: Vec<(Value, T)>, reverse: bool) -> Result<Vec<(Value, T)>> {
    let mut failure = None;
    let mut items = items;
    items.sort_by(|(a, _), (b, _)| match compare(a, b) {
        Ok(order) if reverse => order.reverse(),
        Ok(order) => order,
        Err(error) => {
            failure = Some(error);
            Ordering::Equal
        }
    });
    failure.map_or(Ok(items), Err)
}

/// What an item is compared by.
fn key(item: &Value, path: Option<&Value>, case_sensitive: bool) -> Result<Value> {
    let fold = |value: Value| if case_sensitive { value } else { python::ignore_case(&value) };
    match path.and_then(Value::as_str).filter(|path| path.contains(',')) {
        Some(paths) => {
            paths.split(',').map(|path| attribute(item, Some(&path.into())).map(fold)).collect::<Result<Vec<Value>>>().map(Value::from)
        }
        None => attribute(item, path).map(fold),
    }
}

fn keyed(value: &Value, path: Option<&Value>, case_sensitive: bool) -> Result<Vec<(Value, Value)>> {
    items(value)?.into_iter().map(|item| Ok((key(&item, path, case_sensitive)?, item))).collect()
}

fn sort(value: &Value, args: &Args) -> Result<Value> {
    let sorted = sorted(keyed(value, args.some(2), args.flag(1, false))?, args.flag(0, false))?;
    Ok(sorted.into_iter().map(|(_, item)| item).collect())
}

fn extreme(value: &Value, args: &Args, wanted: Ordering) -> Result<Value> {
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(value, args.some(1), args.flag(0, false))? {
        let better = best.as_ref().map_or(Ok(true), |(known, _)| compare(&key, known).map(|order| order == wanted))?;
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn dict_sort(value: &Value, args: &Args) -> Result<Value> {
    if value.kind() != ValueKind::Map {
        return Err(failed("dictsort takes a dictionary"));
    }
    let by_value = match args.str_opt(1)?.unwrap_or("key") {
        "key" => false,
        "value" => true,
        _ => return Err(failed("dictsort sorts by key or value")),
    };
    let mut pairs = Vec::new();
    for name in value.try_iter()? {
        let item = value.get_item(&name)?;
        let by = key(if by_value { &item } else { &name }, None, args.flag(0, false))?;
        pairs.push((by, Value::from(Tuple::from([name, item]))));
    }
    Ok(sorted(pairs, args.flag(2, false))?.into_iter().map(|(_, pair)| pair).collect())
}

/// What `groupby` gives for each value: a pair whose parts have names.
#[derive(Debug)]
pub(super) struct Group {
    grouper: Value,
    list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

fn group_by(value: &Value, args: &Args) -> Result<Value> {
    let path = args.required(0)?;
    let case_sensitive = args.flag(2, false);
    let mut keyed = Vec::new();
    for item in items(value)? {
        let found = attribute(&item, Some(path))?;
        let found = if found.is_undefined() { args.get(1).cloned().unwrap_or(found) } else { found };
        let key = if case_sensitive { found.clone() } else { python::ignore_case(&found) };
        keyed.push((key, (found, item)));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, (found, item)) in sorted(keyed, false)? {
        match groups.last_mut() {
            Some((last, _, items)) if *last == key => items.push(item),
            _ => groups.push((key, found, vec![item])),
        }
    }
    Ok(groups.into_iter().map(|(_, grouper, list)| Value::from_object(Group { grouper, list: list.into() })).collect())
}
