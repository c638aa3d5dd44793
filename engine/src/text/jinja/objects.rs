//! Values that `minijinja` lacks: views of dictionaries, `range`, `cycler`, `joiner`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::args::{Args, failed};
use super::python::{Dict, Result};
use super::strings;

/// The longest `range`, as in Jinja2's sandbox.
const MAX_RANGE: usize = 100_000;

/// What `dict.items()` and its like give: it can be read through, and shows its kind.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl Object for Printed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    /// Python's views have no items by number.
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        key.is_integer().then_some(Value::UNDEFINED)
    }
}

/// A method that is not called where it is named.
#[derive(Debug)]
pub(super) struct Method {
    of: Value,
    name: String,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        self.of.call_method(state, &self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of {} object>", self.name, self.of.kind())
    }
}

/// Methods of dictionaries, lists and numbers.
const METHODS: [(&[ValueKind], &[&str]); 3] = [
    (&[ValueKind::Map], &["copy", "get", "items", "keys", "values"]),
    (&[ValueKind::Seq], &["copy", "count", "index"]),
    (&[ValueKind::Number, ValueKind::Bool], &["bit_length", "is_integer"]),
];

/// Whether Python's types have an attribute of this name, which hides a key of that name.
pub(super) fn is_method(name: &str) -> bool {
    name == "real" || strings::has(name) || METHODS.iter().any(|(_, names)| names.contains(&name))
}

/// The method or number `name` of a value, if Python's has one.
pub(super) fn method(value: &Value, name: &str) -> Option<Value> {
    let kind = value.kind();
    if name == "real" && matches!(kind, ValueKind::Number | ValueKind::Bool) {
        return Some(super::python::integer(value).map_or_else(|| value.clone(), Value::from));
    }
    let is_plain = kind != ValueKind::Map || value.downcast_object_ref::<Dict>().is_some() || value.is_kwargs();
    let known = METHODS.iter().any(|(kinds, names)| kinds.contains(&kind) && names.contains(&name));
    let known = (known && is_plain) || (kind == ValueKind::String && strings::has(name));
    known.then(|| Value::from_object(Method { of: value.clone(), name: name.to_owned() }))
}

/// `range(…)`.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
}

impl Range {
    /// `range(stop)` or `range(start, stop, step)`.
    pub(super) fn value(args: &[Value]) -> Result<Value> {
        let args = Args::bind("range", "start stop step", args)?;
        args.required(0)?;
        let first = args.int_opt(0)?.ok_or_else(|| failed("range takes whole numbers"))?;
        let (start, stop) = args.int_opt(1)?.map_or((0, first), |stop| (first, stop));
        let range = Self { start, stop, step: args.int_opt(2)?.unwrap_or(1) };
        match range.step {
            0 => Err(failed("range() arg 3 must not be zero")),
            _ if range.len() > MAX_RANGE => Err(failed(format!("a range has more than {MAX_RANGE} items"))),
            _ => Ok(Value::from_object(range)),
        }
    }

    fn len(&self) -> usize {
        let (from, to) = if self.step > 0 { (self.start, self.stop) } else { (self.stop, self.start) };
        if from >= to { 0 } else { ((i128::from(to) - i128::from(from) - 1) / i128::from(self.step).abs() + 1) as usize }
    }

    /// What stands between its brackets.
    pub(super) fn arguments(&self) -> String {
        let Self { start, stop, step } = self;
        if *step == 1 { format!("{start}, {stop}") } else { format!("{start}, {stop}, {step}") }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_usize().filter(|index| *index < self.len())?;
        Some(Value::from(self.start + self.step * index as i64))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len())
    }
}

/// `cycler(…)`: its items in turn.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    pub(super) fn value(args: &[Value]) -> Result<Value> {
        let items: Vec<Value> = args.iter().filter(|value| !value.is_kwargs()).cloned().collect();
        if items.is_empty() {
            return Err(failed("at least one item has to be provided"));
        }
        Ok(Value::from_object(Self { items, at: AtomicUsize::new(0) }))
    }

    fn current(&self) -> Value {
        self.items[self.at.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value> {
        let current = self.current();
        match method {
            "next" => {
                self.at.fetch_add(1, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `joiner(…)`: nothing the first time, then its separator.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Joiner {
    pub(super) fn value(args: &[Value]) -> Result<Value> {
        let args = Args::bind("joiner", "sep", args)?;
        Ok(Value::from_object(Self { separator: args.get(0).cloned().unwrap_or_else(|| ", ".into()), used: AtomicBool::new(false) }))
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value> {
        Ok(if self.used.swap(true, Ordering::Relaxed) { self.separator.clone() } else { "".into() })
    }
}

/// `dict(…)`: from a dictionary or pairs, and keywords.
pub(super) fn dict(args: &[Value]) -> Result<Value> {
    let mut dict = Dict::new();
    for source in args {
        let is_map = source.kind() == ValueKind::Map || source.is_kwargs();
        for item in source.try_iter()? {
            let (key, value) = if is_map { (item.clone(), source.get_item(&item)?) } else { pair(&item)? };
            dict.insert(key, value);
        }
    }
    Ok(Value::from_object(dict))
}

fn pair(item: &Value) -> Result<(Value, Value)> {
    let parts: Vec<Value> = item.try_iter()?.collect();
    <[Value; 2]>::try_from(parts).map(|[key, value]| (key, value)).map_err(|_| failed("dict takes pairs of a key and a value"))
}

/// Calls a method of a dictionary, list or number; `None` where Python's has no such method, or one that would change it.
pub(super) fn call(value: &Value, name: &str, args: &[Value]) -> Option<Result<Value>> {
    let view = |name, items: Result<Vec<Value>>| items.map(|items| Value::from_object(Printed { name, items }));
    let pairs = |value: &Value| {
        let pair = |key: Value| Ok(Value::from(minijinja::value::Tuple::from([key.clone(), value.get_item(&key)?])));
        value.try_iter().and_then(|keys| keys.map(pair).collect())
    };
    Some(match (value.kind(), name) {
        (ValueKind::Map, "items") => view("dict_items", pairs(value)),
        (ValueKind::Map, "keys") => view("dict_keys", value.try_iter().map(Iterator::collect)),
        (ValueKind::Map, "values") => view("dict_values", value.try_iter().and_then(|keys| keys.map(|key| value.get_item(&key)).collect())),
        (ValueKind::Map, "get") => Args::bind("get", "key default", args).and_then(|args| {
            let found = value.get_item(args.required(0)?)?;
            Ok(if found.is_undefined() { args.get(1).cloned().unwrap_or_else(|| Value::from(())) } else { found })
        }),
        (ValueKind::Map | ValueKind::Seq, "copy") => Ok(value.clone()),
        (ValueKind::Seq, "index") => Args::bind("index", "value start end", args).and_then(|args| {
            let wanted = args.required(0)?;
            let (start, end) = (args.size(1, 0)?, args.size(2, usize::MAX)?);
            let at = value.try_iter()?.enumerate().skip(start).find(|(i, item)| *i < end && item == wanted);
            at.map(|(i, _)| i.into()).ok_or_else(|| failed("the value is not in the list"))
        }),
        (ValueKind::Seq, "count") => Args::bind("count", "value", args).and_then(|args| {
            let wanted = args.required(0)?;
            Ok(value.try_iter()?.filter(|item| item == wanted).count().into())
        }),
        (ValueKind::Number, "bit_length") if value.is_integer() => {
            let bits = super::python::integer(value).map_or(0, |n| u128::BITS - n.unsigned_abs().leading_zeros());
            Ok(bits.into())
        }
        (ValueKind::Number, "is_integer") => Ok(super::python::float(value).is_some_and(|x| x.fract() == 0.0).into()),
        _ => return None,
    })
}
