//! The memory that a model takes.

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Weights.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Activations and state.
    pub scratch: u64,
}

impl MemoryUse {
    /// All together.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.scratch
    }
}
