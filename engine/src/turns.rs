//! Turns on the one thread that requests share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use futures::lock::{Mutex, OwnedMutexGuard};

/// One turn at a time for each origin: however much one asks for, others wait for one slice of it.
#[derive(Debug, Default)]
pub(crate) struct Turns(RefCell<HashMap<Origin, Weak<Mutex<()>>>>);

/// Who asks; `None`: this program itself.
type Origin = Option<Rc<str>>;

impl Turns {
    /// Waits for the origin's turn, which ends when the result is dropped.
    pub(crate) async fn take(&self, origin: Option<&Rc<str>>) -> OwnedMutexGuard<()> {
        let lock = self.lock(origin);
        if let Some(turn) = lock.try_lock_owned() {
            return turn;
        }
        let turn = Arc::clone(&lock).lock_owned().await;
        // Its own requests follow one another: what came between them goes first.
        pause().await;
        turn
    }

    fn lock(&self, origin: Option<&Rc<str>>) -> Arc<Mutex<()>> {
        let mut locks = self.0.borrow_mut();
        if let Some(lock) = locks.get(&origin.cloned()).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Mutex::new(()));
        locks.insert(origin.cloned(), Arc::downgrade(&lock));
        lock
    }
}

/// Lets everything else run that is ready: in a browser messages and the GPU's answers too, which wait while promises are settled.
pub(crate) async fn pause() {
    #[cfg(target_arch = "wasm32")]
    gloo_timers::future::TimeoutFuture::new(0).await;
    #[cfg(not(target_arch = "wasm32"))]
    yield_now().await;
}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
