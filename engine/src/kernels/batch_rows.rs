//! The rows of the decode batch after sequences joined it and left it.

use super::{BatchRowsBindings, Capabilities, Kernel, Plan, Row};
use crate::buffer::HostMemory;
use crate::shaders::{params::BatchRowsParams, variants::BatchRowsVariant};

/// `batch[i]` becomes `batch[sources[i]]`; from [`Self::rows`] on a source is a row of `joining`, from twice as many on there is none and the
/// row is inactive.
#[derive(Debug)]
pub struct BatchRows {
    /// Rows of the batch, at most [`Self::MOST`].
    pub rows: u32,
}

impl BatchRows {
    /// A workgroup has all rows.
    pub const MOST: u32 = 256;
}

impl Kernel for BatchRows {
    type Bindings = BatchRowsBindings;

    fn plan(&self, _: &Capabilities) -> Plan<Self::Bindings> {
        debug_assert!(self.rows <= Self::MOST);
        Plan::new(BatchRowsVariant, &BatchRowsParams { rows: self.rows }, [1, 1, 1])
    }

    fn reference(&self, memory: &mut HostMemory, b: &Self::Bindings) {
        let rows = self.rows as usize;
        let known = [memory.read::<Row>(b.batch)[..rows].to_vec(), memory.read::<Row>(b.joining)[..rows].to_vec()].concat();
        let sources = memory.read::<u32>(b.sources)[..rows].to_vec();
        let batch = memory.write::<Row>(b.batch);
        for (row, source) in batch.iter_mut().zip(sources) {
            *row = known.get(source as usize).copied().unwrap_or_default();
        }
    }
}
