//! Checkpoint files: bytes to a description of what is in them, never the weights themselves.
//!
//! Every parser here treats its input as hostile: checked arithmetic, caps on counts and lengths, no panic, and memory
//! bounded by the size of the input.

pub mod convert;
pub mod dequantize;
pub mod gguf;
pub mod gguf_write;
pub mod huggingface;
pub mod metadata;
pub(crate) mod ollama;
pub(crate) mod pre_tokenizers;
pub mod quantize;
pub mod read;
pub mod safetensors;
pub mod split;

use std::collections::HashMap;

pub use dequantize::dequantize;
pub use gguf::Gguf;
pub use metadata::{Array, Metadata, Value};
pub use quantize::convert_rows;
pub use read::{read_rows, span_of_rows};

pub use crate::dtype::DType;
pub(crate) use crate::dtype::block;
pub use crate::error::FormatError;

/// One tensor of a checkpoint: where its bytes lie and how to read them.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// The name, as `blk.0.attn_q.weight`.
    pub name: String,
    /// The weight format.
    pub dtype: DType,
    /// The dimensions in GGUF order: `shape[0]` is the row length, the dimension that lies contiguous in memory.
    pub shape: Vec<u64>,
    /// Where the data starts, in bytes from the start of the file.
    pub offset: u64,
    /// Length of the data in bytes; 0 for a dtype of unknown layout.
    pub bytes: u64,
    /// What makes the stored bytes what the name, type and shape say; [`read_rows`] applies it.
    pub transform: Option<Transform>,
}

/// A difference between how a model folder stores a tensor and how GGUF does.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// One is added to every value: Gemma's norms are stored as the difference from one, in this type. The tensor's own type, F32, is
    /// the sum's.
    AddOne(DType),
    /// Rows and columns are exchanged: GPT-2 stores its matrices inputs first.
    Transpose,
    /// Rows come grouped by key-value head, each group's queries, then its key, then its value; wanted are all queries, then all keys,
    /// then all values (Falcon).
    UngroupQkv {
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
    },
    /// In each head, row i of the first half and row i of the second become neighbours: the order in which GGUF has the queries and
    /// keys of llama's family.
    PairNeighbours {
        /// Heads.
        heads: u32,
    },
    /// Zeros follow each row, and the rows of each group: kernels read eight values at a time. Wanted is the tensor's shape.
    Pad {
        /// The tensor without them.
        stored: Box<TensorInfo>,
        /// Groups of rows.
        groups: u64,
    },
    /// The values are these and nothing is stored.
    Values(Vec<f32>),
}

impl TensorInfo {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product() // cannot overflow: checked when the checkpoint was built
    }

    /// Number of rows; one for a vector.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }
}

/// What a checkpoint file holds.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The key-value pairs, in file order.
    pub metadata: Metadata,
    /// The tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// What of the file is not used, or used otherwise than it says: a sentence each, for the person at the screen.
    pub notes: Vec<String>,
    /// Factors that some tensors have in tensors of their own, by the scaled tensor's name.
    pub scales: HashMap<String, f32>,
    index: HashMap<String, usize>,
}

impl Checkpoint {
    /// A checkpoint of these parts.
    ///
    /// # Errors
    /// [`FormatError::BadName`] when a tensor name is empty or occurs twice.
    pub fn new(metadata: Metadata, tensors: Vec<TensorInfo>) -> Result<Self, FormatError> {
        let mut index = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if tensor.name.is_empty() || index.insert(tensor.name.clone(), i).is_some() {
                return Err(FormatError::BadName { what: "tensor name", name: tensor.name.clone() });
            }
        }
        Ok(Self { metadata, tensors, notes: Vec::new(), scales: HashMap::new(), index })
    }

    /// The factor on all values of a tensor.
    pub fn scale(&self, name: &str) -> f32 {
        self.scales.get(name).copied().unwrap_or(1.0)
    }

    /// Whether a tensor is a factor that is in [`Checkpoint::scales`].
    pub fn is_scale(&self, name: &str) -> bool {
        name.strip_suffix(".scale").is_some_and(|stem| self.scales.contains_key(&format!("{stem}.weight")))
    }

    /// The tensor of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.find(name).ok_or_else(|| FormatError::MissingTensor { name: name.to_owned() })
    }
}
