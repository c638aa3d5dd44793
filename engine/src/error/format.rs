//! Errors of checkpoint files.

use crate::dtype::DType;

/// Why a checkpoint could not be read. Every variant names the thing at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The header is longer than the bytes given; not a fault of the file.
    #[error("the header needs more bytes: read at least the first {at_least} and parse again")]
    NeedMore {
        /// A prefix of this many bytes is worth trying next; it grows at least twofold, so that repeated tries cost
        /// linear time, and never exceeds the length of the file where that is known.
        at_least: u64,
    },
    /// The file ends before its contents do.
    #[error(
        "the file is incomplete: {}{missing} of {}{needed} bytes are missing; download it again",
        least(*at_least), least(*at_least)
    )]
    Truncated {
        /// Bytes the file should have.
        needed: u64,
        /// How many of them are not there.
        missing: u64,
        /// The header itself is cut: what it says no more would need more bytes.
        at_least: bool,
    },
    /// The file does not begin with `GGUF`.
    #[error("this is not a GGUF file but {found}")]
    NotGguf {
        /// What it is instead and what to do, as far as its first bytes tell.
        found: String,
    },
    /// A GGUF file that belongs to models, but is none.
    #[error("this is no model but {what}")]
    NoModel {
        /// What it is, and what it is for.
        what: &'static str,
    },
    /// A GGUF file written for a big-endian machine.
    #[error("this GGUF file is big-endian; convert it to little-endian")]
    BigEndian,
    /// A GGUF version other than 2 and 3.
    #[error("GGUF version {version} is not supported (2 and 3 are); convert the model again with current tools")]
    Version {
        /// The version in the file.
        version: u32,
    },
    /// A count or length beyond any sane file.
    #[error("the file is corrupt: {what} is {count}, more than the limit of {limit}")]
    TooLarge {
        /// Which count.
        what: &'static str,
        /// Its value in the file.
        count: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// A value type id GGUF does not define.
    #[error("the file is corrupt: key {key:?} has the unknown value type {id}")]
    ValueType {
        /// The metadata key.
        key: String,
        /// The type id.
        id: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("the file is corrupt: {what} near byte {offset} is not valid")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
    },
    /// A metadata key or tensor name that occurs twice or is empty.
    #[error("the file is corrupt: the {what} {name:?} is empty or occurs twice")]
    BadName {
        /// `metadata key` or `tensor name`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A tensor whose shape, offset or size cannot be.
    #[error("the file is corrupt: tensor {name:?}: {problem}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// `general.alignment` is not a power of two.
    #[error("the file is corrupt: its alignment {alignment} is not a power of two of at least 8")]
    Alignment {
        /// The alignment in bytes.
        alignment: u64,
    },
    /// A metadata key that is needed is not there.
    #[error("the model file lacks the metadata key {key:?}; it was converted incompletely")]
    MissingKey {
        /// The metadata key.
        key: String,
    },
    /// A metadata value of another type than the key calls for.
    #[error("metadata key {key:?} is {found}, expected {expected}")]
    WrongType {
        /// The metadata key.
        key: String,
        /// The type wanted.
        expected: &'static str,
        /// The type in the file.
        found: &'static str,
    },
    /// A tensor that is needed is not there.
    #[error("the model file lacks the tensor {name:?}; it is incomplete or of another architecture than it says")]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// A weight format there is no decoder for.
    #[error("the weight format {dtype} is not supported; use one of {}", DType::supported_names())]
    UnsupportedDType {
        /// The format.
        dtype: DType,
    },
    /// A tensor in a weight format that there is no decoder for.
    #[error("the weight format {dtype} of {name} is not supported; choose a file of the model in {}", DType::supported_names())]
    UnsupportedTensor {
        /// The tensor's name.
        name: String,
        /// The format.
        dtype: DType,
    },
    /// A file that belongs to the model is not there.
    #[error("{file} is missing; put all files of the model together")]
    MissingFile {
        /// The file's name.
        file: String,
    },
    /// Files that are no parts of one model.
    #[error("the files do not fit together: {problem}")]
    Split {
        /// What does not fit.
        problem: String,
    },
    /// JSON, or a safetensors header, that is not what it should be.
    #[error("{file} is corrupt or of an unknown kind: {problem}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong and where.
        problem: String,
    },
    /// A property of a model folder that there is no conversion for.
    #[error("{what} {value:?} is not supported (supported: {supported}); choose a GGUF file of the model")]
    UnsupportedFolder {
        /// Which property.
        what: &'static str,
        /// Its value.
        value: String,
        /// What would work.
        supported: String,
    },
    /// Bytes that are no whole number of blocks.
    #[error("{bytes} bytes are no whole number of {dtype} blocks")]
    PartialBlock {
        /// The weight format.
        dtype: DType,
        /// How many bytes were given.
        bytes: u64,
    },
}

/// What makes a number of bytes a lower bound.
fn least(at_least: bool) -> &'static str {
    if at_least { "at least " } else { "" }
}
