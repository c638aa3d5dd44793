//! A checkpoint's header as a family reads it: keys below `general.architecture`, with bounds.

use crate::error::{EngineError, Result};
use crate::formats::{Array, Checkpoint, Metadata, Value};

/// Bounds beyond any real model, so that a lying header cannot make sizes overflow.
pub(super) const MAX_DIM: u32 = 1 << 18;
/// Layers at most.
pub(super) const MAX_LAYERS: u32 = 1 << 10;
/// Elements of a head at most.
pub(super) const MAX_HEAD_DIM: u32 = 1 << 10;
/// Positions of a context at most.
pub(crate) const MAX_CONTEXT: u32 = 1 << 20;

/// The header of a checkpoint of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    checkpoint: &'a Checkpoint,
    /// `general.architecture`.
    pub(super) family: &'static str,
}

impl<'a> Header<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, family: &'static str) -> Self {
        Self { checkpoint, family }
    }

    /// All keys, under their whole names.
    pub(super) fn metadata(&self) -> &'a Metadata {
        &self.checkpoint.metadata
    }

    /// The whole name of a key.
    pub(super) fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.family)
    }

    /// The whole number `suffix`, if it is there.
    pub(super) fn integer(&self, suffix: &str) -> Result<Option<u32>> {
        Ok(self.metadata().u32_opt(&self.key(suffix))?)
    }

    /// Whether `suffix` is true, if it is there.
    pub(super) fn flag(&self, suffix: &str) -> Result<Option<bool>> {
        Ok(self.metadata().bool_opt(&self.key(suffix))?)
    }

    /// The number `suffix`, if it is there.
    pub(super) fn number(&self, suffix: &str) -> Result<Option<f32>> {
        Ok(self.metadata().f32_opt(&self.key(suffix))?)
    }

    /// The number `suffix`, if it is there and not 0, which stands for the default.
    pub(super) fn factor(&self, suffix: &str) -> Result<Option<f32>> {
        Ok(self.number(suffix)?.filter(|factor| *factor != 0.0))
    }

    /// The size `suffix`: 1 to `maximum`.
    pub(super) fn size(&self, suffix: &str, maximum: u32) -> Result<u32> {
        self.within(suffix, self.metadata().u32(&self.key(suffix))?, maximum)
    }

    /// `value`, which is that of `suffix` or its default, if it is 1 to `maximum`.
    pub(super) fn within(&self, suffix: &str, value: u32, maximum: u32) -> Result<u32> {
        bounded(&self.key(suffix), value, maximum)?;
        Ok(value)
    }

    /// The size `suffix` of each of so many layers, 1 to `maximum`, if it is there: one number for all, or an array of at least one for
    /// each.
    pub(super) fn layer_sizes(&self, suffix: &str, layers: u32, maximum: u32) -> Result<Option<Vec<u32>>> {
        let (key, layers) = (self.key(suffix), layers as usize);
        let mut values = match self.metadata().get(&key) {
            None => return Ok(None),
            Some(Value::Array(_)) => self.metadata().u32_array(&key)?,
            Some(_) => vec![self.metadata().u32(&key)?; layers],
        };
        if values.len() < layers {
            return Err(unsupported(format!("{key} of {} numbers", values.len()), format!("a number for each of the {layers} layers")));
        }
        values.truncate(layers);
        if let Some(layer) = values.iter().position(|value| *value == 0) {
            return Err(unsupported(format!("{key} = 0 in layer {layer}"), format!("{key} of 1 to {maximum} in every layer")));
        }
        values.iter().try_for_each(|value| bounded(&key, *value, maximum))?;
        Ok(Some(values))
    }

    /// Whether `suffix` is true of each of so many layers, if it is an array of at least as many.
    pub(super) fn layer_flags(&self, suffix: &str, layers: u32) -> Result<Option<Vec<bool>>> {
        let key = self.key(suffix);
        if !matches!(self.metadata().get(&key), Some(Value::Array(_))) {
            return Ok(None);
        }
        let mut flags: Vec<bool> = match self.metadata().get(&key) {
            Some(Value::Array(Array::Bool(flags))) => flags.clone(),
            _ => self.metadata().u32_array(&key)?.into_iter().map(|flag| flag != 0).collect(),
        };
        if flags.len() < layers as usize {
            return Err(unsupported(format!("{key} of {} entries", flags.len()), format!("one for each of the {layers} layers")));
        }
        flags.truncate(layers as usize);
        Ok(Some(flags))
    }

    /// Whether the checkpoint has the tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.checkpoint.find(name).is_some()
    }

    /// Rows of the matrix `name`, if the checkpoint has it.
    pub(super) fn rows(&self, name: &str) -> Option<u32> {
        self.checkpoint.find(name)?.shape.get(1).and_then(|rows| u32::try_from(*rows).ok())
    }

    /// Rows of the matrix `name`.
    pub(super) fn need_rows(&self, name: &str) -> Result<u32> {
        self.checkpoint.tensor(name)?;
        self.rows(name).ok_or_else(|| EngineError::Tensor { name: name.to_owned(), problem: "is not a matrix".to_owned() })
    }
}

fn bounded(key: &str, value: u32, maximum: u32) -> Result<()> {
    if value == 0 || value > maximum { Err(unsupported(format!("{key} = {value}"), format!("1 to {maximum}"))) } else { Ok(()) }
}

fn unsupported(value: String, supported: String) -> EngineError {
    EngineError::Unsupported { what: "model shape", value, supported }
}
