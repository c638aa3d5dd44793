//! Who leaves when pages or slots run out. The keys and values of a preempted sequence are computed again when it is admitted again.

use super::queue::Blocked;
use super::{Priority, Ticket};

/// A sequence is paused when its reader has more unread events than this…
const PAUSED_ABOVE: usize = 256;

/// …and goes on when it has no more than this.
const RESUMED_AT: usize = 64;

/// An admitted sequence.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Running<'a> {
    pub(in crate::serve) ticket: &'a Ticket,
    /// Its reader is behind, so it is not decoded.
    pub(in crate::serve) paused: bool,
}

impl Running<'_> {
    /// The larger, the sooner it is preempted.
    fn rank(&self) -> impl Ord + use<> {
        let Ticket { class, admitted, .. } = *self.ticket;
        (self.paused, class.cost(), self.ticket.served(), admitted)
    }
}

/// Whether a sequence with these unread events is paused.
pub(in crate::serve) fn is_paused(was_paused: bool, unread: usize) -> bool {
    unread > if was_paused { RESUMED_AT } else { PAUSED_ABOVE }
}

/// The sequence to preempt when one of them needs a page and none is left: a paused one, else of the lowest priority, of the origin that
/// was served most, the most recently admitted. The first admitted always proceeds while its reader does, so some request always ends.
/// Embeddings and scores have sent a part of their result and need no more pages: `None` says to wait for their end.
pub(in crate::serve) fn victim(running: &[Running]) -> Option<usize> {
    most_dispensable(running, |_| true)
}

/// The sequence to preempt so that a waiting request is admitted: a paused one; for somebody who waits for the first token also one in the
/// background of an origin that was served more. It leaves for that reason once at most.
pub(in crate::serve) fn yields(blocked: Blocked, running: &[Running]) -> Option<usize> {
    most_dispensable(running, |Running { ticket, paused }| {
        let outranked = ticket.class.priority == Priority::Background && ticket.served() > blocked.served;
        paused || blocked.urgent && outranked && !ticket.preempted
    })
}

fn most_dispensable(running: &[Running], eligible: impl Fn(Running) -> bool) -> Option<usize> {
    // If it is paused, it is the first to leave.
    let first = running.iter().map(|sequence| sequence.ticket.admitted).min();
    let eligible = |sequence: Running| {
        let protected = !sequence.paused && Some(sequence.ticket.admitted) == first;
        !protected && !sequence.ticket.class.prefill_only && eligible(sequence)
    };
    (0..running.len()).filter(|i| eligible(running[*i])).max_by_key(|i| running[*i].rank())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::policy::{Account, Class};

    const CHAT: Class = Class { priority: Priority::Foreground, prefill_only: false };
    const BACKGROUND: Class = Class { priority: Priority::Background, prefill_only: false };
    const EMBEDDING: Class = Class { priority: Priority::Background, prefill_only: true };

    fn running(tickets: &[Ticket], paused: impl Fn(usize) -> bool) -> Vec<Running<'_>> {
        tickets.iter().enumerate().map(|(i, ticket)| Running { ticket, paused: paused(i) }).collect()
    }

    /// The order in which they are preempted.
    fn order(mut tickets: Vec<Ticket>, paused: Option<u64>) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(i) = victim(&running(&tickets, |i| tickets[i].admitted == paused)) {
            order.extend(tickets.remove(i).admitted);
        }
        order
    }

    #[test]
    fn the_paused_leave_first_then_the_background_then_the_most_served_then_the_newest() {
        let [little, much] = [Account::new("little", 10), Account::new("much", 20)];
        let tickets = || {
            vec![
                Ticket::of(&much, CHAT, 3),
                Ticket::of(&little, EMBEDDING, 6),
                Ticket::of(&little, BACKGROUND, 0),
                Ticket::of(&little, BACKGROUND, 1),
                Ticket::of(&little, CHAT, 2),
                Ticket::of(&much, CHAT, 4),
                Ticket::of(&little, CHAT, 5),
            ]
        };
        assert_eq!(order(tickets(), None), [1, 4, 3, 5, 2], "the first admitted and the embedding stay");
        assert_eq!(order(tickets(), Some(5)), [5, 1, 4, 3, 2]);
        assert_eq!(order(tickets(), Some(0)), [0, 4, 3, 5, 2], "the first that goes on stays");
    }

    #[test]
    fn the_background_leaves_once_for_somebody_who_was_served_less() {
        let [little, much] = [Account::new("little", 10), Account::new("much", 20)];
        let mut tickets = vec![Ticket::of(&little, CHAT, 0), Ticket::of(&much, BACKGROUND, 1), Ticket::of(&much, CHAT, 2)];
        let blocked = |urgent, served| Blocked { urgent, served };
        assert_eq!(yields(blocked(true, 15), &running(&tickets, |_| false)), Some(1));
        assert_eq!(yields(blocked(true, 20), &running(&tickets, |_| false)), None);
        assert_eq!(yields(blocked(false, 15), &running(&tickets, |_| false)), None);
        assert_eq!(yields(blocked(false, 15), &running(&tickets, |i| i == 2)), Some(2), "who is paused leaves for anybody");
        tickets[1].preempted = true;
        assert_eq!(yields(blocked(true, 15), &running(&tickets, |_| false)), None);
    }

    #[test]
    fn a_reader_catches_up_before_its_sequence_goes_on() {
        assert!(!is_paused(false, PAUSED_ABOVE) && is_paused(false, PAUSED_ABOVE + 1));
        assert!(is_paused(true, RESUMED_AT + 1) && !is_paused(true, RESUMED_AT));
    }
}
