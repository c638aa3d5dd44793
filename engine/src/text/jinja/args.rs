//! Arguments as Python binds them: by position or by name.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python::{self, Result};

/// The longest text that one operation makes, in bytes. Chats that fill a context have a fraction of it.
const MAX_TEXT: usize = 8 << 20;

/// An error in the words of the template's author.
pub(super) fn failed(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Checks the length of a text before it is made.
pub(super) fn bounded(bytes: Option<usize>) -> Result<()> {
    bytes.filter(|bytes| *bytes <= MAX_TEXT).map(|_| ()).ok_or_else(|| failed("a text gets too long"))
}

/// The arguments of a call, in the order of the parameters. What is left out is `None`.
pub(super) struct Args {
    name: &'static str,
    values: Vec<Option<Value>>,
}

impl Args {
    /// Binds `args` to the space-separated names in `parameters`.
    pub(super) fn bind(name: &'static str, parameters: &'static str, args: &[Value]) -> Result<Self> {
        let names: Vec<&str> = parameters.split_whitespace().collect();
        let (positional, kwargs) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        if positional.len() > names.len() {
            return Err(failed(format!("{name} takes {} arguments but {} were given", names.len(), positional.len())));
        }
        let mut values: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
        values.resize(names.len(), None);
        if let Some(kwargs) = kwargs {
            for (parameter, value) in names.iter().zip(&mut values).filter(|(_, value)| value.is_none()) {
                *value = kwargs.get(parameter)?;
            }
            kwargs.assert_all_used()?;
        }
        Ok(Self { name, values })
    }

    /// Argument `i`, where it is given.
    pub(super) fn get(&self, i: usize) -> Option<&Value> {
        self.values.get(i).and_then(Option::as_ref)
    }

    /// Argument `i`, where it is given and not `None`.
    pub(super) fn some(&self, i: usize) -> Option<&Value> {
        self.get(i).filter(|value| !value.is_none())
    }

    /// Argument `i`, which must be given.
    pub(super) fn required(&self, i: usize) -> Result<&Value> {
        self.get(i).ok_or_else(|| failed(format!("{} lacks an argument", self.name)))
    }

    /// Argument `i` as a string.
    pub(super) fn str(&self, i: usize) -> Result<&str> {
        self.required(i)?.as_str().ok_or_else(|| failed(format!("{} takes a string", self.name)))
    }

    /// Argument `i` as a string, if it is given and not `None`.
    pub(super) fn str_opt(&self, i: usize) -> Result<Option<&str>> {
        self.some(i).map(|_| self.str(i)).transpose()
    }

    /// Argument `i` as a whole number.
    pub(super) fn int_opt(&self, i: usize) -> Result<Option<i64>> {
        let read = |value: &Value| match value.kind() {
            ValueKind::Bool => Ok(i64::from(value.is_true())),
            ValueKind::Number if value.is_integer() => {
                Ok(python::integer(value).unwrap_or(0).clamp(i64::MIN.into(), i64::MAX.into()) as i64)
            }
            _ => Err(failed(format!("{} takes a whole number", self.name))),
        };
        self.some(i).map(read).transpose()
    }

    /// Argument `i` as a whole number that is not negative; a negative one is 0.
    pub(super) fn size(&self, i: usize, default: usize) -> Result<usize> {
        Ok(self.int_opt(i)?.map_or(default, |n| usize::try_from(n.max(0)).unwrap_or(usize::MAX)))
    }

    /// Whether argument `i` is true.
    pub(super) fn flag(&self, i: usize, default: bool) -> bool {
        self.get(i).map_or(default, Value::is_true)
    }
}
