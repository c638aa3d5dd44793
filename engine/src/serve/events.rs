//! The events of a request on their way to its reader. The channel counts those that are not read: a slow reader must not fill the memory.

use std::rc::Rc;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};

use super::sequence::Event;
use crate::error::EngineError;

/// An event, or the error that ends the request.
pub type Message = Result<Event, Rc<EngineError>>;

/// The scheduler's end. Its `len` is the number of events that were sent and not read yet; it is closed when the reader is gone.
pub type EventSender = UnboundedSender<Message>;

/// The reader's end; dropping it cancels the request.
pub(crate) type EventReceiver = UnboundedReceiver<Message>;

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::unbounded;
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn unread_events_are_counted() {
        let (sender, mut receiver): (EventSender, EventReceiver) = unbounded();
        (0..3).for_each(|token| sender.unbounded_send(Ok(Event::Token(token))).expect("a reader"));
        assert_eq!(sender.len(), 3);
        assert!(matches!(receiver.next().now_or_never(), Some(Some(Ok(Event::Token(0))))));
        assert_eq!(sender.len(), 2);
        receiver.close();
        assert!(sender.is_closed() && sender.unbounded_send(Ok(Event::Token(3))).is_err());
        assert_eq!(sender.len(), 2, "what was not sent is not waited for");
        assert!(receiver.next().now_or_never().is_some() && receiver.next().now_or_never().is_some());
        assert!(matches!(receiver.next().now_or_never(), Some(None)));
        assert_eq!(sender.len(), 0);
    }
}
