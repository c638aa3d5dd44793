//! Bounds on the data that a template builds. Comparing, hashing and dropping values recurses, and a list that holds itself twice, sixty
//! times over, has 2^60 items; no instruction is counted for either.

use std::collections::HashMap;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::args::failed;
use super::objects::{Method, Printed, Range};
use super::python::{Dict, Result};
use super::sequences::Group;

/// How deep data may nest; what a conversation brings along included.
const MAX_DEPTH: usize = 128;
/// Values within one value, each counted wherever it occurs: so many, and some times as many as the conversation has.
const MAX_VALUES: u64 = 20_000;
const MAX_TIMES: u64 = 4;

/// Values in a value, itself included, and how deep they nest.
#[derive(Clone, Copy, Default)]
struct Size {
    values: u64,
    depth: usize,
}

/// Sizes by address; the values are held so that an address is not used again.
#[derive(Default)]
struct Sizes {
    known: HashMap<usize, (Size, Value)>,
    limit: Option<u64>,
}

impl Sizes {
    fn of(&mut self, value: &Value, level: usize) -> Result<Size> {
        let mut size = Size { values: 1, depth: 0 };
        if level > MAX_DEPTH {
            return Err(failed("data nests too deep"));
        }
        if level > 0 && is_open(value) {
            return Err(failed("a namespace or method cannot be part of other data"));
        }
        let Some(address) = address(value) else { return Ok(size) };
        if let Some((size, _)) = self.known.get(&address) {
            return Ok(*size);
        }
        let is_map = value.kind() == ValueKind::Map;
        for item in value.try_iter()? {
            if is_map && (item.kind() == ValueKind::Map || (item.kind() == ValueKind::Seq && !item.is_tuple())) {
                return Err(failed("a list or dictionary cannot be a key"));
            }
            let inner = if is_map { self.of(&value.get_item(&item)?, level + 1)? } else { self.of(&item, level + 1)? };
            size.values = size.values.saturating_add(inner.values);
            size.depth = size.depth.max(inner.depth + 1);
        }
        self.known.insert(address, (size, value.clone()));
        Ok(size)
    }
}

/// Where a list, tuple or dictionary is; `None` for what has no parts.
fn address(value: &Value) -> Option<usize> {
    fn of<T: 'static>(value: &Value) -> Option<usize> {
        value.downcast_object_ref::<T>().map(|part| std::ptr::from_ref(part) as usize)
    }
    let plain = of::<Vec<Value>>(value).or_else(|| of::<Dict>(value)).or_else(|| of::<Tuple>(value));
    plain.or_else(|| of::<Printed>(value)).or_else(|| of::<Group>(value))
}

/// Whether a value is a namespace or the like, which could come to hold itself, or a method, whose value is not counted.
fn is_open(value: &Value) -> bool {
    value.downcast_object_ref::<Method>().is_some() || (value.kind() == ValueKind::Map && address(value).is_none() && !value.is_kwargs())
}

/// `value`, if it is not too large. What would be computed only when it is read (slices, sums of lists) is computed now.
///
/// # Errors
/// Too deep or too large data.
pub(super) fn kept(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    let lazy = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
        && address(&value).is_none()
        && value.downcast_object_ref::<Range>().is_none();
    let value = if lazy { value.try_iter()?.collect::<Vec<Value>>().into() } else { value };
    if address(&value).is_none() {
        return Ok(value);
    }
    let conversation = [state.lookup("messages"), state.lookup("tools")];
    let sizes = state.get_or_insert_extension_with(Sizes::default);
    let limit = if let Some(limit) = sizes.limit {
        limit
    } else {
        let mut values = 0;
        for part in conversation.into_iter().flatten() {
            values += sizes.of(&part, 0)?.values;
        }
        *sizes.limit.insert(MAX_VALUES + MAX_TIMES * values)
    };
    let before = sizes.known.len();
    let size = sizes.of(&value, 0)?;
    let visited = (sizes.known.len() - before) as u64;
    if size.depth > MAX_DEPTH {
        return Err(failed("data nests too deep"));
    }
    if size.values > limit {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    state.consume_fuel(visited + value.len().unwrap_or(0) as u64 / 16)?;
    Ok(value)
}

/// [`kept`] for what goes into a namespace: not a namespace itself.
///
/// # Errors
/// As [`kept`].
pub(super) fn member(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    if is_open(&value) { Err(failed("a namespace cannot hold another one or a method")) } else { kept(state, value) }
}
