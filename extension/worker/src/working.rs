//! The request that the module works for, in memory that the offscreen document shares: it reads there which request stopped the worker,
//! also when the worker hangs and can say nothing any more.

use std::pin::pin;
use std::task::Poll;

use js_sys::{Atomics, Int32Array};

/// One number: the id of the request of which a step runs now, or 0.
#[derive(Clone, Debug)]
pub(crate) struct Working(Int32Array);

impl Working {
    /// Over shared memory of one element.
    pub(crate) fn new(shared: Int32Array) -> Self {
        Self(shared)
    }

    /// Replaces `from`, if that is the number, by `to`.
    pub(crate) fn exchange(&self, from: u32, to: u32) {
        if let Err(error) = Atomics::compare_exchange(&self.0, 0, from.cast_signed(), to.cast_signed()) {
            log::error!("whose request runs is not known: {error:?}");
        }
    }
}

/// Does `work`, whose steps have 0 replaced by `id` while they run. The id of a step that never ends stays: none after it replaces it.
pub(crate) async fn working_for<F: Future>(id: u32, exchange: impl Fn(u32, u32), work: F) -> F::Output {
    let mut work = pin!(work);
    std::future::poll_fn(|context| -> Poll<F::Output> {
        exchange(0, id);
        let state = work.as_mut().poll(context);
        exchange(id, 0);
        state
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures::FutureExt;
    use futures::channel::oneshot;

    use super::*;

    fn exchange(number: &Cell<u32>) -> impl Fn(u32, u32) {
        |from, to| {
            if number.get() == from {
                number.set(to);
            }
        }
    }

    #[test]
    fn steps_are_marked_and_pauses_unmarked() {
        let number = Cell::new(0);
        let (sender, receiver) = oneshot::channel::<()>();
        let steps = RefCell::new(Vec::new());
        let mut work = pin!(working_for(7, exchange(&number), async {
            steps.borrow_mut().push(number.get());
            let _ = receiver.await;
            steps.borrow_mut().push(number.get());
        }));
        assert!(work.as_mut().now_or_never().is_none());
        assert_eq!(number.get(), 0, "between its steps others work");
        sender.send(()).expect("a receiver");
        assert!(work.as_mut().now_or_never().is_some());
        assert_eq!((steps.borrow().as_slice(), number.get()), (&[7, 7][..], 0));
    }

    #[test]
    fn step_that_trapped_stays_marked() {
        let number = Cell::new(0);
        let ended = working_for(7, exchange(&number), async { panic!("a trap") });
        let step = AssertUnwindSafe(|| ended.now_or_never());
        assert!(catch_unwind(step).is_err());
        assert!(working_for(8, exchange(&number), async {}).now_or_never().is_some());
        assert_eq!(number.get(), 7);
    }
}
