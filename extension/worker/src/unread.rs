//! Parts of a streamed answer that are on their way to a reader. Beyond a limit the answer waits: then the engine's own channel fills, and
//! the scheduler stops computing it.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use futures::task::AtomicWaker;

/// The parts of one answer.
#[derive(Debug)]
pub(crate) struct Unread {
    most: u32,
    count: Cell<u32>,
    reader: AtomicWaker,
}

impl Unread {
    /// `None`: the reader says nothing, and is not waited for.
    pub(crate) fn new(most: Option<u32>) -> Self {
        Self { most: most.unwrap_or(u32::MAX), count: Cell::new(0), reader: AtomicWaker::new() }
    }

    /// A part was sent.
    pub(crate) fn sent(&self) {
        self.count.set(self.count.get().saturating_add(1));
    }

    /// So many parts were read. A reader that claims more gets no advance.
    pub(crate) fn read(&self, parts: u32) {
        self.count.set(self.count.get().saturating_sub(parts));
        self.reader.wake();
    }

    /// Waits until another part may be sent.
    pub(crate) async fn room(&self) {
        poll_fn(|context| {
            self.reader.register(context.waker());
            if self.count.get() < self.most { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_answer_waits_for_its_reader() {
        let unread = Unread::new(Some(2));
        let has_room = || unread.room().now_or_never().is_some();
        assert!(has_room());
        unread.sent();
        assert!(has_room());
        unread.sent();
        assert!(!has_room());
        unread.read(1);
        assert!(has_room());
        unread.read(100);
        unread.sent();
        unread.sent();
        assert!(!has_room(), "what was not sent cannot be read in advance");
        let never_asked = Unread::new(None);
        never_asked.sent();
        assert!(never_asked.room().now_or_never().is_some());
    }
}
