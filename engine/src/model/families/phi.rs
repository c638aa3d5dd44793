//! Phi-3 and 4: fused projections, and `LongRoPE`.

use super::{Family, llama, qwen};
use crate::formats::huggingface::{FolderSpec, Json, Put, RopeOrder};
use crate::formats::{FormatError, Metadata, Value};
use crate::text::STRIP_AFTER_ADDED_KEY;

pub(super) const PHI_3: Family = Family {
    name: "phi3",
    spec: |header| qwen::DENSE.spec(header),
    folder: Some(&FolderSpec { model_types: &["phi3"], rope: RopeOrder::Halves, variant: no_window, ..llama::FOLDER }),
    adapt: Some(strip_after_added),
};

/// Without the key llama.cpp assumes a window.
fn no_window(config: &Json, put: &mut Put<'_>) -> Result<(), FormatError> {
    if config.u32(&["sliding_window"])?.is_none() {
        put("attention.sliding_window", Value::U32(0));
    }
    Ok(())
}

/// The added tokens of Phi-3 take the white space behind them. Its files do not say so; llama.cpp knows it by name, too.
fn strip_after_added(metadata: &mut Metadata) -> Result<Option<String>, FormatError> {
    metadata.insert(STRIP_AFTER_ADDED_KEY, Value::Bool(true));
    Ok(None)
}
