//! Packed matrices on the device.

use crate::error::{EngineError, Result};
use crate::exec::{BufferId, Executor, Scope};
use crate::kernels::WeightLayout;

/// Rows of a matrix in one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Slab {
    /// The packed rows.
    pub buffer: BufferId,
    /// Row of the matrix that is first.
    pub first_row: u32,
    /// Number of rows.
    pub rows: u32,
}

/// A packed matrix, in slabs that each fit a storage binding.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Type and sizes.
    pub layout: WeightLayout,
    /// Rows of the matrix.
    pub rows: u32,
    /// The rows in order.
    pub slabs: Vec<Slab>,
    /// Factor on all weights.
    pub scale: f32,
}

impl Weight {
    /// Allocates a matrix of `rows` rows, of which each `together` are in one slab. `name` is for messages.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub(super) fn allocate(
        executor: &Executor,
        scope: &mut Scope,
        name: &str,
        layout: WeightLayout,
        rows: u32,
        together: u32,
    ) -> Result<Self> {
        let row_bytes = 4 * u64::from(layout.stride);
        let capabilities = executor.capabilities();
        let limit = capabilities.max_binding.min(capabilities.max_buffer);
        let fitting = u32::try_from((limit / row_bytes).min(u64::from(rows.next_multiple_of(together)))).unwrap_or(rows);
        let slab_rows = fitting / together * together;
        if slab_rows == 0 {
            let what = if together > 2 { format!("an expert of {name}") } else { format!("a row of {name}") };
            return Err(EngineError::TooLarge { what, needed: row_bytes * u64::from(together), limit });
        }
        let mut slabs = Vec::new();
        for first_row in (0..rows).step_by(slab_rows as usize) {
            let rows = slab_rows.min(rows - first_row);
            let buffer = scope.create_buffer(executor, name, row_bytes * u64::from(rows))?;
            slabs.push(Slab { buffer, first_row, rows });
        }
        Ok(Self { layout, rows, slabs, scale: 1.0 })
    }

    /// The slab of a row.
    pub(super) fn slab_of(&self, row: u32) -> &Slab {
        self.slabs.iter().find(|slab| row - slab.first_row < slab.rows).expect("slabs cover all rows")
    }
}
