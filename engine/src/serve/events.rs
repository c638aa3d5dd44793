//! The events of a request on their way to its reader. The channel counts those that are not read: a slow reader must not fill the memory.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::{FusedStream, Stream};
use futures::task::AtomicWaker;

use super::sequence::Event;
use crate::error::EngineError;

/// An event, or the error that ends the request.
pub type Message = Result<Event, Rc<EngineError>>;

/// The scheduler's end.
#[derive(Debug)]
pub struct EventSender {
    sender: UnboundedSender<Message>,
    reader: Rc<AtomicWaker>,
}

/// The reader's end; dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    receiver: UnboundedReceiver<Message>,
    reader: Rc<AtomicWaker>,
}

/// Both ends of a request's events.
pub(crate) fn events() -> (EventSender, EventReceiver) {
    let (sender, receiver) = unbounded();
    let reader = Rc::new(AtomicWaker::new());
    (EventSender { sender, reader: Rc::clone(&reader) }, EventReceiver { receiver, reader })
}

impl EventSender {
    /// Sends an event, unless the reader is gone, which cancels the request: the scheduler looks for that itself.
    pub(crate) fn send(&self, message: Message) {
        // That is the only error.
        let _ = self.sender.unbounded_send(message);
    }

    /// Events that were sent and not read yet.
    pub(super) fn unread(&self) -> usize {
        self.sender.len()
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Wakes the task when the reader reads or goes.
    pub(super) fn wake_on_read(&self, context: &Context<'_>) {
        self.reader.register(context.waker());
    }
}

impl EventReceiver {
    /// Ends the request: what was sent can still be read.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
        self.reader.wake();
    }
}

impl Stream for EventReceiver {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let next = Pin::new(&mut self.receiver).poll_next(context);
        if next.is_ready() {
            self.reader.wake();
        }
        next
    }
}

impl FusedStream for EventReceiver {
    fn is_terminated(&self) -> bool {
        self.receiver.is_terminated()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn unread_events_are_counted() {
        let (sender, mut receiver) = events();
        (0..3).for_each(|token| sender.send(Ok(Event::Token(token))));
        assert_eq!(sender.unread(), 3);
        assert!(matches!(receiver.next().now_or_never(), Some(Some(Ok(Event::Token(0))))));
        assert_eq!(sender.unread(), 2);
        receiver.close();
        sender.send(Ok(Event::Token(3)));
        assert!(sender.is_closed());
        assert_eq!(sender.unread(), 2, "what was not sent is not waited for");
        assert!(receiver.next().now_or_never().is_some() && receiver.next().now_or_never().is_some());
        assert!(matches!(receiver.next().now_or_never(), Some(None)));
        assert_eq!(sender.unread(), 0);
    }

    #[test]
    fn a_reader_that_reads_or_goes_wakes_the_scheduler() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};

        struct Count(AtomicU32);
        impl futures::task::ArcWake for Count {
            fn wake_by_ref(count: &Arc<Self>) {
                count.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicU32::new(0)));
        let waker = futures::task::waker(Arc::clone(&count));
        let wakes = || count.0.load(Ordering::Relaxed);
        let (sender, mut receiver) = events();
        sender.send(Ok(Event::Token(0)));
        sender.wake_on_read(&Context::from_waker(&waker));
        assert_eq!(wakes(), 0);
        assert!(receiver.next().now_or_never().is_some());
        assert_eq!(wakes(), 1);
        assert!(receiver.poll_next_unpin(&mut Context::from_waker(&noop_waker())).is_pending());
        sender.wake_on_read(&Context::from_waker(&waker));
        assert_eq!(wakes(), 1, "nothing was read");
        drop(receiver);
        assert!(wakes() == 2 && sender.is_closed());
    }
}
