//! Description of a model for people.

use std::collections::HashMap;

use crate::error::Result;
use crate::formats::convert::{Recipe, loaded_dtypes};
use crate::formats::{Checkpoint, DType, TensorInfo};
use crate::kernels::Capabilities;
use crate::model::{MemoryUse, ModelOptions, ModelSpec, families, read_checkpoint};
use crate::plan;
use crate::source::Source;

/// A model, described for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModelInfo {
    /// Name that requests use.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Type that most of the weights have.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Positions of a sequence.
    pub context: u32,
    /// Bytes on the device.
    pub memory: MemoryUse,
    /// Elements of the embeddings of texts that the model makes; `None`: it makes none.
    pub embedding: Option<u32>,
    /// Whether the model continues text.
    pub generates: bool,
    /// Parts of the file that are not used, or used otherwise than it says: a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ModelInfo {
    pub(super) fn new(
        id: &str,
        source: &dyn Source,
        checkpoint: &Checkpoint,
        spec: &ModelSpec,
        granted: &ModelOptions,
        memory: MemoryUse,
    ) -> Result<Self> {
        Ok(Self {
            id: id.to_owned(),
            name: spec.name.clone(),
            architecture: spec.family.to_owned(),
            quantization: main_dtype(checkpoint, granted.quantize)?.to_string(),
            parameters: checkpoint.tensors.iter().map(TensorInfo::elements).sum(),
            file_bytes: source.bytes(),
            context: granted.context,
            memory,
            embedding: spec.head.pooling.map(|_| spec.dim),
            generates: spec.is_causal(),
            notes: checkpoint.notes.clone(),
        })
    }

    /// The description of a model as it would be on a device with these capabilities: only its header is read.
    ///
    /// # Errors
    /// When the file is damaged, not supported, or has what such a device cannot hold.
    pub async fn read(id: &str, source: &dyn Source, capabilities: &Capabilities, options: ModelOptions) -> Result<Self> {
        let checkpoint = read_checkpoint(source).await?;
        let spec = families::spec(&checkpoint)?;
        let plan::MemoryPlan { memory, context, .. } = plan::plan(&checkpoint, capabilities, options)?;
        Self::new(id, source, &checkpoint, &spec, &ModelOptions { context, ..options }, memory)
    }
}

/// The type that holds most of the weights once they are loaded.
///
/// # Errors
/// When the metadata does not say what quantizing needs.
pub fn main_dtype(checkpoint: &Checkpoint, quantize: Option<Recipe>) -> Result<DType> {
    let dtype = loaded_dtypes(checkpoint, quantize)?;
    let mut elements = HashMap::new();
    for tensor in &checkpoint.tensors {
        *elements.entry(dtype(tensor)).or_insert(0) += tensor.elements();
    }
    Ok(elements.into_iter().max_by_key(|(_, count)| *count).map_or(DType::F32, |(dtype, _)| dtype))
}
