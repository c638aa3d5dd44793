//! The state that layers keep between passes: declared by the spec, on the device as long as the model.

use super::options::ModelOptions;
use super::spec::{ModelSpec, StateSpec};
use crate::error::Result;
use crate::exec::{BufferId, Executor, Scope};
use crate::kernels::PAGE;

/// Keys and values of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvCache {
    pub(super) keys: BufferId,
    pub(super) values: BufferId,
}

/// The state of all layers.
#[derive(Debug)]
pub(super) struct State {
    /// Pages of the cache.
    pub(super) page_count: u32,
    /// Pages of a sequence of the longest context.
    pub(super) pages_per_slot: u32,
    /// Of each layer.
    pub(super) layers: Vec<KvCache>,
}

impl State {
    /// Makes the state of all layers.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub(super) fn create(executor: &Executor, scope: &mut Scope, spec: &ModelSpec, options: &ModelOptions) -> Result<Self> {
        let pages_per_slot = options.context.div_ceil(PAGE);
        let page_bytes = spec.kv_bytes_per_position(options.kv) * u64::from(PAGE);
        let affordable = u32::try_from(options.kv_bytes / page_bytes).unwrap_or(u32::MAX);
        let page_count = affordable.clamp(pages_per_slot, pages_per_slot.saturating_mul(options.sequences));
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let StateSpec::Pages { bytes_per_position } = layer.state(options.kv);
            let bytes = bytes_per_position / 2 * u64::from(PAGE) * u64::from(page_count);
            let mut create = |label| scope.create_buffer(executor, label, bytes);
            layers.push(KvCache { keys: create("keys")?, values: create("values")? });
        }
        Ok(Self { page_count, pages_per_slot, layers })
    }
}
