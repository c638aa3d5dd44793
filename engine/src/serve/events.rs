//! The events of a request on their way to its reader, which are counted until it reads them: a slow reader must not fill the memory.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::channel::mpsc::{TrySendError, UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt, ready};

use super::sequence::Event;
use crate::error::EngineError;

/// An event, or the error that ends the request.
pub type Message = Result<Event, Rc<EngineError>>;

/// The two ends of a request's events.
pub(crate) fn events() -> (EventSender, EventReceiver) {
    let (sender, receiver) = unbounded();
    let unread = Rc::new(Cell::new(0));
    (EventSender { sender, unread: Rc::clone(&unread) }, EventReceiver { receiver, unread })
}

/// The scheduler's end.
#[derive(Debug)]
pub struct EventSender {
    sender: UnboundedSender<Message>,
    unread: Rc<Cell<usize>>,
}

impl EventSender {
    /// Sends an event.
    ///
    /// # Errors
    /// When the reader is gone: the request is cancelled.
    pub fn unbounded_send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        self.sender.unbounded_send(message)?;
        self.unread.set(self.unread.get() + 1);
        Ok(())
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Events that were sent and not read yet.
    pub fn unread(&self) -> usize {
        self.unread.get()
    }
}

/// The reader's end; dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    receiver: UnboundedReceiver<Message>,
    unread: Rc<Cell<usize>>,
}

impl EventReceiver {
    /// Cancels the request; what was sent can still be read.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
    }
}

impl Stream for EventReceiver {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let message = ready!(self.receiver.poll_next_unpin(context));
        if message.is_some() {
            self.unread.set(self.unread.get() - 1);
        }
        Poll::Ready(message)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn unread_events_are_counted() {
        let (sender, mut receiver) = events();
        (0..3).for_each(|token| sender.unbounded_send(Ok(Event::Token(token))).expect("a reader"));
        assert_eq!(sender.unread(), 3);
        assert!(matches!(receiver.next().now_or_never(), Some(Some(Ok(Event::Token(0))))));
        assert_eq!(sender.unread(), 2);
        receiver.close();
        assert!(sender.is_closed() && sender.unbounded_send(Ok(Event::Token(3))).is_err());
        assert_eq!(sender.unread(), 2, "what was not sent is not waited for");
        assert!(receiver.next().now_or_never().is_some() && receiver.next().now_or_never().is_some());
        assert!(matches!(receiver.next().now_or_never(), Some(None)));
        assert_eq!(sender.unread(), 0);
    }
}
