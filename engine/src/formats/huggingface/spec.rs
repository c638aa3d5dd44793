//! The description of a family that the folder reader needs: names and defaults of its `config.json`, its tensors' names and their order.

use super::json::Json;
use crate::formats::{FormatError, TensorInfo, Transform, Value};

/// Sets a key of the family, without `general.architecture` before it.
pub(crate) type Put<'a> = dyn FnMut(&str, Value) + 'a;

/// Numbers and length of heads, which several steps of the conversion need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) queries: u32,
    /// Key and value heads.
    pub(crate) keys: u32,
    /// Elements of a head.
    pub(crate) dim: u32,
}

/// (Hugging Face, GGUF), without `.weight` and `.bias`.
pub(crate) type NameTable = &'static [(&'static str, &'static str)];

/// The names of a family's tensors. The prefixes of the classes around a model are taken off before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorNames {
    /// Tensors that are there once.
    pub(crate) global: NameTable,
    /// What stands before a layer's number.
    pub(crate) layer_prefix: &'static str,
    /// Tensors of a layer, after its number.
    pub(crate) layer: &'static [NameTable],
    /// Beginnings and ends of names of tensors that nothing needs.
    pub(crate) ignored: &'static [&'static str],
}

/// Where the folders of a family differ from its GGUF files.
#[derive(Debug)]
pub(crate) struct FolderSpec {
    /// The values of `model_type` that mean it.
    pub(crate) model_types: &'static [&'static str],
    /// Names of the tensors.
    pub(crate) names: TensorNames,
    /// The change that makes a stored tensor, already under GGUF's name, GGUF's.
    pub(crate) transform: fn(&TensorInfo, Heads) -> Result<Option<Transform>, FormatError>,
    /// The activation functions that the family stands for.
    pub(crate) activations: &'static [&'static str],
    /// GGUF's key for the norms' epsilon.
    pub(crate) epsilon: &'static str,
    /// GGUF's convention for the rows of queries and keys.
    pub(crate) rope: RopeOrder,
    /// Values of keys that `config.json` may leave out.
    pub(crate) defaults: Defaults,
    /// The number of key and value heads, where the file states it.
    pub(crate) kv_heads: fn(&Json) -> Result<Option<KvHeads>, FormatError>,
    /// Numbers that only this family has: the name in `config.json`, and GGUF's.
    pub(crate) numbers: &'static [(&'static str, &'static str)],
    /// When `sliding_window` applies.
    pub(crate) window: SlidingWindow,
    /// The layers that it applies to where GGUF's keys do not say.
    pub(crate) windowed: fn(u32) -> bool,
    /// Adds what else follows from `config.json`, and refuses variants that GGUF has no keys for.
    pub(crate) variant: fn(&Json, &mut Put<'_>) -> Result<(), FormatError>,
}

/// The values that a family's class has for what `config.json` leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    /// Query heads.
    pub(crate) heads: Option<u32>,
    /// Key and value heads; `None`: as many as query heads.
    pub(crate) kv_heads: Option<u32>,
    /// Elements of a head; `None`: the width over the heads.
    pub(crate) head_dim: Option<u32>,
    /// Positions.
    pub(crate) context: Option<u32>,
    /// Epsilon of the norms.
    pub(crate) epsilon: f32,
    /// The embedding is the output's matrix too.
    pub(crate) tied: bool,
    /// Base of the rotary embedding.
    pub(crate) rope_base: f32,
    /// Base of the rotary embedding of layers with a window, where that is another.
    pub(crate) local_rope_base: Option<f32>,
    /// The part of a head that is rotated.
    pub(crate) rotated: f32,
}

/// How GGUF orders the rows of queries and keys for rotary embedding; folders always have the halves' order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RopeOrder {
    /// The family has no rotary embedding.
    None,
    /// As the folder.
    Halves,
    /// Pairs are neighbours.
    Neighbours,
}

/// Key and value heads as a folder states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvHeads {
    /// So many.
    Number(u32),
    /// As many as query heads.
    AsQueries,
}

/// When `sliding_window` applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlidingWindow {
    /// Where it is there.
    Stated,
    /// Where `use_sliding_window` says so too.
    Enabled,
    /// Never: the model's code ignores it.
    Ignored,
}

/// [`FolderSpec::transform`] of most families: the bytes are GGUF's.
#[allow(clippy::unnecessary_wraps, reason = "the field's signature")]
pub(crate) fn as_stored(_: &TensorInfo, _: Heads) -> Result<Option<Transform>, FormatError> {
    Ok(None)
}

/// [`FolderSpec::variant`] of families without any.
#[allow(clippy::unnecessary_wraps, reason = "the field's signature")]
pub(crate) fn no_variant(_: &Json, _: &mut Put<'_>) -> Result<(), FormatError> {
    Ok(())
}

/// [`FolderSpec::kv_heads`] of most families.
pub(crate) fn stated_kv_heads(config: &Json) -> Result<Option<KvHeads>, FormatError> {
    Ok(config.u32(&["num_key_value_heads", "num_kv_heads", "n_head_kv"])?.map(KvHeads::Number))
}

/// The error that refuses what `config.json` has for `key`.
pub(crate) fn refused(config: &Json, key: &'static str, supported: &str) -> FormatError {
    let value = config.get(key).map_or_else(String::new, ToString::to_string);
    FormatError::UnsupportedFolder { what: key, value, supported: supported.to_owned() }
}
