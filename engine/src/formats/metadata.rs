//! Key-value metadata of a checkpoint with typed access.

use std::fmt;

use indexmap::IndexMap;

use super::FormatError;

/// A metadata value, in the type the file stores it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the types they are named after")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the types they are named after")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The type's name, for error messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "a u8",
            Self::I8(_) => "an i8",
            Self::U16(_) => "a u16",
            Self::I16(_) => "an i16",
            Self::U32(_) => "a u32",
            Self::I32(_) => "an i32",
            Self::F32(_) => "an f32",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Array(array) => array.type_name(),
            Self::U64(_) => "a u64",
            Self::I64(_) => "an i64",
            Self::F64(_) => "an f64",
        }
    }

    /// The value as an integer, whatever its width; `None` for other types.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

/// Scalars as they are, arrays as their type and length.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(v) => write!(f, "{v}"),
            Self::F64(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::String(v) => write!(f, "{v:?}"),
            Self::Array(array) => write!(f, "{} ({})", array.type_name(), array.len()),
            integer => write!(f, "{}", integer.integer().unwrap_or_default()),
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type's name, for error messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) | Self::F64(_) => "an array of floats",
            Self::Bool(_) => "an array of booleans",
            Self::String(_) => "an array of strings",
            Self::Array(_) => "an array of arrays",
            _ => "an array of integers",
        }
    }

    /// The elements converted to `T`; `None` when they are no integers or one does not fit.
    fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        fn convert<S: Copy + Into<i128>, T: TryFrom<i128>>(v: &[S]) -> Option<Vec<T>> {
            v.iter().map(|&x| T::try_from(x.into()).ok()).collect()
        }
        match self {
            Self::U8(v) => convert(v),
            Self::I8(v) => convert(v),
            Self::U16(v) => convert(v),
            Self::I16(v) => convert(v),
            Self::U32(v) => convert(v),
            Self::I32(v) => convert(v),
            Self::U64(v) => convert(v),
            Self::I64(v) => convert(v),
            _ => None,
        }
    }
}

/// The key-value pairs of a checkpoint, in file order.
///
/// The getter named after a type fails when the key is missing or of another type, and its `_opt` twin gives `None` when the key is
/// missing. Integers of any width convert when the value fits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(IndexMap<String, Value>);

/// Defines a getter and its optional twin from a conversion of `&Value` to `Option<T>`.
macro_rules! getters {
    ($($get:ident, $get_opt:ident, $type:ty, $expected:literal, $convert:expr;)*) => {$(
        #[doc = concat!("The value of `key` as ", $expected, ".")]
        ///
        /// # Errors
        /// [`FormatError::MissingKey`] and [`FormatError::WrongType`].
        pub fn $get(&self, key: &str) -> Result<$type, FormatError> {
            self.$get_opt(key)?.ok_or_else(|| FormatError::MissingKey { key: key.to_owned() })
        }

        #[doc = concat!("The value of `key` as ", $expected, ", or `None` when the key is missing.")]
        ///
        /// # Errors
        /// [`FormatError::WrongType`].
        pub fn $get_opt(&self, key: &str) -> Result<Option<$type>, FormatError> {
            let Some(value) = self.get(key) else { return Ok(None) };
            let convert: fn(&Value) -> Option<$type> = $convert;
            convert(value).map(Some).ok_or_else(|| FormatError::WrongType {
                key: key.to_owned(),
                expected: $expected,
                found: value.type_name(),
            })
        }
    )*};
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The raw value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Whether there is an entry `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Sets `key`, which keeps its place when it was there before. Returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        self.0.insert(key.into(), value)
    }

    /// Removes `key`; the others keep their order. Returns the value it had.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    /// The entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    getters! {
        u32, u32_opt, u32, "an integer of 32 bits", |v| u32::try_from(v.integer()?).ok();
        u64, u64_opt, u64, "an unsigned integer", |v| u64::try_from(v.integer()?).ok();
        f32, f32_opt, f32, "a number", |v| match v {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            other => other.integer().map(|x| x as f32),
        };
        bool, bool_opt, bool, "a boolean", |v| match v { Value::Bool(x) => Some(*x), other => (0..2).contains(&other.integer()?).then(|| other.integer() == Some(1)) };
        bool_array, bool_array_opt, Vec<bool>, "an array of booleans", |v| match v { Value::Array(Array::Bool(a)) => Some(a.clone()), _ => None };
        u32_array, u32_array_opt, Vec<u32>, "an array of integers of 32 bits", |v| match v { Value::Array(a) => a.integers(), _ => None };
        i32_array, i32_array_opt, Vec<i32>, "an array of integers of 32 bits", |v| match v { Value::Array(a) => a.integers(), _ => None };
    }

    /// The value of `key` as the id of a token, or `None` when the key is missing; -1, which stands for none, is `u32::MAX`.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn token_id_opt(&self, key: &str) -> Result<Option<u32>, FormatError> {
        if self.get(key).and_then(Value::integer) == Some(-1) { Ok(Some(u32::MAX)) } else { self.u32_opt(key) }
    }

    /// The value of `key` as a string.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`] and [`FormatError::WrongType`].
    pub fn str(&self, key: &str) -> Result<&str, FormatError> {
        self.str_opt(key)?.ok_or_else(|| FormatError::MissingKey { key: key.to_owned() })
    }

    /// The value of `key` as a string, or `None` when the key is missing.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn str_opt(&self, key: &str) -> Result<Option<&str>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(wrong_type(key, "a string", other)),
        }
    }

    /// The value of `key` as an array of strings.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`] and [`FormatError::WrongType`].
    pub fn string_array(&self, key: &str) -> Result<&[String], FormatError> {
        self.string_array_opt(key)?.ok_or_else(|| FormatError::MissingKey { key: key.to_owned() })
    }

    /// The value of `key` as an array of strings, or `None` when the key is missing.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn string_array_opt(&self, key: &str) -> Result<Option<&[String]>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(v))) => Ok(Some(v)),
            Some(other) => Err(wrong_type(key, "an array of strings", other)),
        }
    }

    /// The value of `key` as an array of f32, or `None` when the key is missing.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn f32_array_opt(&self, key: &str) -> Result<Option<&[f32]>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(v))) => Ok(Some(v)),
            Some(other) => Err(wrong_type(key, "an array of f32", other)),
        }
    }
}

fn wrong_type(key: &str, expected: &'static str, found: &Value) -> FormatError {
    FormatError::WrongType { key: key.to_owned(), expected, found: found.type_name() }
}
