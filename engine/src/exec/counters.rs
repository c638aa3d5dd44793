//! What an executor has done so far.

use std::cell::Cell;
use std::rc::Rc;

/// What an executor has done so far; read it at any time.
#[derive(Clone, Debug, Default)]
pub struct Counters(Rc<Cell<Counts>>);

/// Numbers of [`Counters`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Kernels run.
    pub dispatches: u64,
    /// Submissions.
    pub submissions: u64,
    /// Bytes that the host read.
    pub read_bytes: u64,
}

impl Counters {
    /// The numbers now.
    pub fn get(&self) -> Counts {
        self.0.get()
    }

    pub(crate) fn add(&self, dispatches: u64, read_bytes: u64) {
        let Counts { dispatches: d, submissions: s, read_bytes: r } = self.0.get();
        self.0.set(Counts { dispatches: d + dispatches, submissions: s + 1, read_bytes: r + read_bytes });
    }
}
