//! Admission. Each origin has a queue and a virtual token counter; the waiting origin with the least counter is admitted first. An origin
//! that has nothing ready is lifted to the least counter of those that have when it asks again, so idle time is no credit.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::{Account, Class, Ticket};

/// Requests of an origin that wait; the next is refused.
pub(in crate::serve) const MAX_WAITING: usize = 64;

/// After so many admissions of others that a request was next but did not fit, none but its origin is admitted.
pub(super) const MAX_PASSED_OVER: u32 = 16;

/// Whether a waiting request can be admitted now.
#[derive(Debug)]
pub(in crate::serve) enum Fit<R> {
    /// Yes: what was reserved for it, and the tokens of its prompt that are not cached.
    Room {
        /// For the admitted.
        reservation: R,
        /// Charged at the first admission.
        uncached: u32,
    },
    /// Too few slots or pages.
    NoRoom,
    /// Its reader is behind: others of its origin go first.
    Paused,
}

/// The next request.
#[derive(Debug)]
pub(in crate::serve) enum Next<T, R> {
    /// It is admitted.
    Admitted {
        /// Until it ends or is preempted.
        ticket: Ticket,
        /// As it was pushed.
        request: T,
        /// As the caller made it.
        reservation: R,
    },
    /// Requests are ready and none fits; [`super::yields`] says who may leave for this one.
    Blocked(Blocked),
    /// No request is ready.
    Nothing,
}

/// The request that is next and does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) struct Blocked {
    pub(super) urgent: bool,
    /// Its origin's counter.
    pub(super) served: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    ticket: Ticket,
    request: T,
}

#[derive(Debug)]
struct Origin<T> {
    account: Rc<Account>,
    /// In the order of arrival, so those that were preempted are first.
    waiting: VecDeque<Waiting<T>>,
    /// All of them are paused.
    paused: bool,
    /// Admissions of others while its next request did not fit.
    passed_over: u32,
}

impl<T> Origin<T> {
    fn is_backlogged(&self) -> bool {
        !self.waiting.is_empty() && !self.paused
    }
}

/// The requests that wait, by origin.
#[derive(Debug)]
pub(in crate::serve) struct Queue<T> {
    origins: BTreeMap<Rc<str>, Origin<T>>,
    /// The largest that the least counter of the backlogged origins has been.
    virtual_time: u64,
    arrivals: u64,
    admissions: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { origins: BTreeMap::new(), virtual_time: 0, arrivals: 0, admissions: 0 }
    }
}

impl<T> Queue<T> {
    /// The requests that wait; those that are paused do.
    pub(in crate::serve) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.origins.values().flat_map(|origin| &origin.waiting).map(|waiting| &waiting.request)
    }

    /// Puts a request behind the others of its origin.
    ///
    /// # Errors
    /// The request, when [`MAX_WAITING`] of its origin wait already.
    pub(in crate::serve) fn push(&mut self, origin: &Rc<str>, class: Class, request: T) -> Result<(), T> {
        let (account, waiting) = match self.origins.get(origin) {
            Some(known) => (Rc::clone(&known.account), known.waiting.len()),
            None => (Rc::new(Account { origin: Rc::clone(origin), served: Cell::new(0) }), 0),
        };
        if waiting >= MAX_WAITING {
            return Err(request);
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.enqueue(Ticket { account, class, arrival, admitted: None, preempted: false }, request);
        Ok(())
    }

    /// Puts a preempted request before those of its origin that arrived later.
    pub(in crate::serve) fn requeue(&mut self, ticket: Ticket, request: T) {
        self.enqueue(Ticket { preempted: true, ..ticket }, request);
    }

    fn enqueue(&mut self, ticket: Ticket, request: T) {
        self.advance();
        let origin = self.origins.entry(Rc::clone(&ticket.account.origin)).or_insert_with(|| Origin {
            account: Rc::clone(&ticket.account),
            waiting: VecDeque::new(),
            paused: false,
            passed_over: 0,
        });
        if !origin.is_backlogged() {
            origin.account.lift(self.virtual_time);
            origin.paused = false;
        }
        let place = origin.waiting.partition_point(|other| other.ticket.arrival < ticket.arrival);
        origin.waiting.insert(place, Waiting { ticket, request });
    }

    fn advance(&mut self) {
        let least = self.origins.values().filter(|origin| origin.is_backlogged()).map(|origin| origin.account.served.get()).min();
        self.virtual_time = self.virtual_time.max(least.unwrap_or(0));
    }

    /// Removes requests; returns them.
    pub(in crate::serve) fn remove(&mut self, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for origin in self.origins.values_mut() {
            // Asked in every step: the queue is rebuilt only where somebody leaves.
            if !origin.waiting.iter().any(|waiting| unwanted(&waiting.request)) {
                continue;
            }
            let first = origin.waiting.front().map(|waiting| waiting.ticket.arrival);
            let (leave, stay) = origin.waiting.drain(..).partition::<VecDeque<_>, _>(|waiting| unwanted(&waiting.request));
            origin.waiting = stay;
            if first != origin.waiting.front().map(|waiting| waiting.ticket.arrival) {
                origin.passed_over = 0;
            }
            removed.extend(leave.into_iter().map(|waiting| waiting.request));
        }
        self.forget();
        removed
    }

    /// Admits the next request that fits. `fit` is asked in the order of preference and reserves what the request needs. Where one does
    /// not fit, requests of other origins go first, until it was passed over [`MAX_PASSED_OVER`] times.
    pub(in crate::serve) fn next<R>(&mut self, mut fit: impl FnMut(&T) -> Fit<R>) -> Next<T, R> {
        self.advance();
        let (mut passed, mut blocked) = (Vec::new(), None);
        for name in self.order() {
            let Some(origin) = self.origins.get_mut(&name) else { continue };
            let ready = origin.waiting.iter().enumerate().find_map(|(place, waiting)| match fit(&waiting.request) {
                Fit::Room { reservation, uncached } => Some((place, Some((reservation, uncached)))),
                Fit::NoRoom => Some((place, None)),
                Fit::Paused => None,
            });
            let was_paused = std::mem::replace(&mut origin.paused, ready.is_none());
            if was_paused {
                origin.account.lift(self.virtual_time);
            }
            match ready {
                Some((place, Some((reservation, uncached)))) => {
                    let Some(waiting) = origin.waiting.remove(place) else { continue };
                    origin.passed_over = 0;
                    for name in passed {
                        self.origins.entry(name).and_modify(|origin| origin.passed_over += 1);
                    }
                    let (ticket, request) = self.admitted(waiting, uncached);
                    return Next::Admitted { ticket, request, reservation };
                }
                Some((place, None)) => {
                    let ticket = &origin.waiting[place].ticket;
                    blocked.get_or_insert(Blocked { urgent: ticket.class.is_urgent(), served: ticket.served() });
                    if origin.passed_over >= MAX_PASSED_OVER {
                        break;
                    }
                    passed.push(name);
                }
                None => {}
            }
        }
        blocked.map_or(Next::Nothing, Next::Blocked)
    }

    fn admitted(&mut self, waiting: Waiting<T>, uncached: u32) -> (Ticket, T) {
        let Waiting { mut ticket, request } = waiting;
        if ticket.admitted.is_none() {
            ticket.admitted = Some(self.admissions);
            self.admissions += 1;
            ticket.charge(u64::from(uncached));
        }
        self.forget();
        (ticket, request)
    }

    /// The origins that have requests, those that were passed over too often first, then by counter.
    fn order(&self) -> Vec<Rc<str>> {
        let mut order: Vec<_> = (self.origins.iter())
            .filter_map(|(name, origin)| {
                let Ticket { class, arrival, .. } = origin.waiting.front()?.ticket;
                let fits_later = origin.passed_over < MAX_PASSED_OVER;
                Some(((fits_later, origin.account.served.get(), class.cost(), arrival), Rc::clone(name)))
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, name)| name).collect()
    }

    /// Forgets origins without requests, unless they were served more than others: for them it would be a way to lose their counter.
    fn forget(&mut self) {
        let virtual_time = self.virtual_time;
        self.origins.retain(|_, origin| Rc::strong_count(&origin.account) > 1 || origin.account.served.get() > virtual_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::policy::Priority;

    const CHAT: Class = Class { priority: Priority::Foreground, prefill_only: false };
    const BACKGROUND: Class = Class { priority: Priority::Background, prefill_only: false };

    fn push<T>(queue: &mut Queue<T>, origin: &str, request: T) {
        assert!(queue.push(&origin.into(), CHAT, request).is_ok());
    }

    /// Admits the next request that fits, with a prompt of ten tokens.
    fn next<T: Copy>(queue: &mut Queue<T>, fits: impl Fn(T) -> bool) -> Option<(Ticket, T)> {
        match queue.next(|request| if fits(*request) { Fit::Room { reservation: (), uncached: 10 } } else { Fit::NoRoom }) {
            Next::Admitted { ticket, request, .. } => Some((ticket, request)),
            _ => None,
        }
    }

    fn all<T: Copy>(queue: &mut Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| next(queue, |_| true)).map(|(_, request)| request).collect()
    }

    #[test]
    fn origins_alternate_and_each_keeps_its_order() {
        let mut queue = Queue::default();
        (0..4).for_each(|request| push(&mut queue, "a", request));
        (10..12).for_each(|request| push(&mut queue, "b", request));
        assert_eq!(all(&mut queue), [0, 10, 1, 11, 2, 3]);
    }

    #[test]
    fn an_origin_is_remembered_while_it_was_served_more_than_others() {
        let mut queue = Queue::default();
        push(&mut queue, "a", 0);
        push(&mut queue, "b", 1);
        assert_eq!(all(&mut queue), [0, 1]);
        push(&mut queue, "b", 2);
        next(&mut queue, |_| true).expect("b").0.charge_output(5);
        // The tickets are gone: of these two origins one has nothing to be remembered for.
        assert!(queue.waiting().next().is_none() && queue.remove(|_| false).is_empty());
        assert_eq!(queue.origins.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
        (20..24).for_each(|request| push(&mut queue, "c", request));
        (10..14).for_each(|request| push(&mut queue, "b", request));
        assert_eq!(all(&mut queue), [20, 21, 22, 10, 23, 11, 12, 13]);
    }

    #[test]
    fn a_token_costs_more_in_the_background_and_in_an_answer() {
        let mut queue = Queue::default();
        for request in 0..5 {
            assert!(queue.push(&"hidden".into(), BACKGROUND, request).is_ok());
        }
        (10..15).for_each(|request| push(&mut queue, "visible", request));
        // The visible one first, then one of the other for four of its own.
        assert_eq!(all(&mut queue)[..6], [10, 0, 11, 12, 13, 14]);

        (0..2).for_each(|request| push(&mut queue, "a", request));
        (10..13).for_each(|request| push(&mut queue, "b", request));
        let (ticket, _) = next(&mut queue, |_| true).expect("a");
        ticket.charge_output(6);
        assert_eq!(all(&mut queue), [10, 11, 12, 1], "an answer of 6 tokens is like a prompt of 12");
    }

    #[test]
    fn idle_time_is_no_credit() {
        let mut queue = Queue::default();
        (0..50).for_each(|request| push(&mut queue, "busy", request));
        assert_eq!(all(&mut queue).len(), 50);
        (0..3).for_each(|request| push(&mut queue, "busy", request));
        (10..13).for_each(|request| push(&mut queue, "new", request));
        assert_eq!(all(&mut queue), [0, 10, 1, 11, 2, 12]);
    }

    #[test]
    fn the_request_behind_a_full_queue_is_refused() {
        let mut queue = Queue::default();
        (0..MAX_WAITING).for_each(|request| push(&mut queue, "a", request));
        assert_eq!(queue.push(&"a".into(), CHAT, 99), Err(99));
        push(&mut queue, "b", 0);
        assert_eq!(queue.remove(|request| *request == 5), [5]);
        push(&mut queue, "a", 99);
    }

    #[test]
    fn a_preempted_request_is_before_the_others_of_its_origin_and_not_charged_again() {
        let mut queue = Queue::default();
        (0..4).for_each(|request| push(&mut queue, "a", request));
        let [first, second] = [0, 1].map(|_| next(&mut queue, |_| true).expect("room"));
        let served = first.0.served();
        queue.requeue(second.0, second.1);
        queue.requeue(first.0, first.1);
        let (first, request) = next(&mut queue, |_| true).expect("room");
        assert_eq!((request, first.served(), first.admitted), (0, served, Some(0)));
        assert_eq!(all(&mut queue), [1, 2, 3]);
    }

    #[test]
    fn others_go_before_a_request_that_does_not_fit_but_not_for_ever() {
        let mut queue = Queue::default();
        push(&mut queue, "large", 0);
        let running = next(&mut queue, |_| true).expect("room").0;
        (1..4).for_each(|request| push(&mut queue, "large", request));
        let pass = |queue: &mut Queue<u32>| {
            for _ in 0..MAX_PASSED_OVER {
                push(queue, "small", 10);
                assert_eq!(next(queue, |request| request >= 10).map(|(_, request)| request), Some(10));
            }
            push(queue, "small", 10);
            assert!(next(queue, |request| request >= 10).is_none(), "it is waited for");
            assert_eq!(queue.remove(|request| *request == 10), [10]);
        };
        pass(&mut queue);
        assert_eq!(queue.remove(|request| *request == 1), [1]);
        pass(&mut queue);
        // It is waited for even though its origin has been served more meanwhile.
        push(&mut queue, "small", 10);
        running.charge_output(1_000);
        assert!(next(&mut queue, |request| request >= 10).is_none());
        assert_eq!(all(&mut queue), [2, 10, 3]);
    }

    #[test]
    fn a_paused_request_stands_in_nobodys_way_and_saves_nothing_up() {
        let mut queue = Queue::default();
        push(&mut queue, "a", 0);
        let unless_paused = |request: &i32| if *request == 0 { Fit::Paused } else { Fit::Room { reservation: (), uncached: 10 } };
        for request in 1..=50 {
            push(&mut queue, "b", request);
            assert!(matches!(queue.next(unless_paused), Next::Admitted { request: admitted, .. } if admitted == request));
        }
        assert!(matches!(queue.next(unless_paused), Next::Nothing));
        (1..4).for_each(|request| push(&mut queue, "a", request));
        (11..14).for_each(|request| push(&mut queue, "b", request));
        let order = std::iter::from_fn(|| match queue.next(unless_paused) {
            Next::Admitted { request, .. } => Some(request),
            _ => None,
        });
        assert_eq!(order.collect::<Vec<_>>(), [1, 2, 11, 3, 12, 13]);
        for request in 1..=50 {
            push(&mut queue, "b", request);
            assert!(matches!(queue.next(unless_paused), Next::Admitted { request: admitted, .. } if admitted == request));
        }
        // It goes on, and others of its origin come before there is room.
        assert!(next(&mut queue, |_| false).is_none());
        (1..4).for_each(|request| push(&mut queue, "a", request));
        (11..14).for_each(|request| push(&mut queue, "b", request));
        assert_eq!(all(&mut queue), [0, 1, 11, 2, 12, 3, 13]);
    }
}
