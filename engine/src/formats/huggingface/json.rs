//! JSON objects with typed access and errors that name file and key.

use serde_json::{Map, Value};

use crate::formats::FormatError;

/// A JSON object of a file. A key with the value null is taken for absent.
#[derive(Debug)]
pub(crate) struct Json {
    file: String,
    object: Map<String, Value>,
}

macro_rules! getters {
    ($($name:ident, $type:ty, $expected:literal, $convert:expr;)*) => {$(
        #[doc = concat!("The first of `keys` that is there, which must be ", $expected, ".")]
        pub(crate) fn $name(&self, keys: &[&str]) -> Result<Option<$type>, FormatError> {
            let Some((key, value)) = self.first(keys) else { return Ok(None) };
            let convert: fn(&Value) -> Option<$type> = $convert;
            convert(value).map(Some).ok_or_else(|| self.invalid(format!("{key} is {value}, expected {}", $expected)))
        }
    )*};
}

impl Json {
    pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let object = serde_json::from_slice(bytes).map_err(|e| FormatError::Json { file: file.to_owned(), problem: e.to_string() })?;
        Ok(Self { file: file.to_owned(), object })
    }

    /// An error about this file.
    pub(crate) fn invalid(&self, problem: String) -> FormatError {
        FormatError::Json { file: self.file.clone(), problem }
    }

    fn first<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &Value)> {
        keys.iter().find_map(|key| self.get(key).map(|value| (*key, value)))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    getters! {
        u32, u32, "an integer of 32 bits", |v| v.as_u64().and_then(|v| u32::try_from(v).ok());
        f32, f32, "a number", |v| v.as_f64().map(|v| v as f32);
        bool, bool, "a boolean", Value::as_bool;
    }

    /// The value of `key`, a string.
    pub(crate) fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// As [`Json::u32`], but the key must be there.
    pub(crate) fn need_u32(&self, keys: &[&str]) -> Result<u32, FormatError> {
        self.u32(keys)?.ok_or_else(|| self.invalid(format!("{} is missing", keys.join(" or "))))
    }

    /// The object `key`.
    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.invalid(format!("{key} is no object"))),
        }
    }

    /// Takes the object `key` out.
    pub(super) fn take(&mut self, key: &str) -> Option<Self> {
        match self.object.remove(key) {
            Some(Value::Object(object)) => Some(Self { file: format!("{} ({key})", self.file), object }),
            _ => None,
        }
    }

    /// A part of this file as an object of its own.
    pub(super) fn part(&self, key: &str, object: &Map<String, Value>) -> Self {
        Self { file: format!("{} ({key})", self.file), object: object.clone() }
    }
}
