//! The server's connections: how many there are, and which of them make room for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::AbortHandle;

/// What a connection is doing.
#[derive(Debug)]
pub struct Usage(Mutex<State>);

#[derive(Debug)]
struct State {
    /// It has had a request with the right token.
    trusted: bool,
    /// It is having an answer.
    busy: bool,
    /// Since when it is as it is.
    since: Instant,
}

impl Default for Usage {
    fn default() -> Self {
        Self(Mutex::new(State { trusted: false, busy: false, since: Instant::now() }))
    }
}

impl Usage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_busy(&self, busy: bool) {
        let mut state = self.state();
        state.busy = busy;
        state.since = Instant::now();
    }

    /// A request with the right token has come.
    pub(crate) fn trust(&self) {
        self.state().trusted = true;
    }

    /// The connection is having an answer until the value is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.set_busy(true);
        Busy(Arc::clone(self))
    }
}

/// An answer on its way.
pub(crate) struct Busy(Arc<Usage>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

/// The open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    open: Vec<(Arc<Usage>, AbortHandle)>,
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, open: Vec::new() }
    }

    /// Whether one more may be added. Where all places are taken, the one that has been idle the longest is ended, those that never sent
    /// the token before the others.
    pub(crate) fn make_room(&mut self) -> bool {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() < self.limit {
            return true;
        }
        let idle = |usage: &Usage| {
            let state = usage.state();
            (!state.busy).then_some((state.trusted, state.since))
        };
        let idle = (0..).zip(&self.open).filter_map(|(i, (usage, _))| Some((idle(usage)?, i)));
        let Some((_, oldest)) = idle.min() else { return false };
        self.open.swap_remove(oldest).1.abort();
        true
    }

    pub(crate) fn add(&mut self, usage: Arc<Usage>, task: AbortHandle) {
        self.open.push((usage, task));
    }
}
