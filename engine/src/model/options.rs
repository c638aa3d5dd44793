//! Limits of a model at run time.

use crate::formats::convert::Recipe;
use crate::kernels::KvFormat;
pub use crate::memory::MemoryUse;

/// How much a model may use at run time.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// Positions of one sequence; clipped to what the model was trained for.
    pub context: u32,
    /// Concurrent sequences.
    pub sequences: u32,
    /// Most rows of a prefill step; the device's tuning may want fewer. An encoder prefills a text in one step: there it is the context.
    pub prefill_rows: u32,
    /// Elements of the cache.
    pub kv: KvFormat,
    /// Bytes of cache to stay under, as long as one sequence of `context` fits.
    pub kv_bytes: u64,
    /// What weights that are floats become on their way to the device; `None`: they stay as they are.
    pub quantize: Option<Recipe>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { context: 8192, sequences: 32, prefill_rows: 512, kv: KvFormat::F16, kv_bytes: 256 << 20, quantize: None }
    }
}
