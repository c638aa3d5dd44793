//! Scheduling policy: who is admitted, who is preempted, and which rows a prefill pass has. It decides and the scheduler acts, so there is
//! no device in here and no clock: times are arguments.
//!
//! * [`queue`]: admission, fair among origins (virtual token counters: Sheng et al. 2024, "Fairness in Serving Large Language Models").
//! * [`preemption`]: who leaves when pages or slots run out.
//! * [`prefill`]: the rows of a prefill pass and its share of the time (chunked prefill: Agrawal et al. 2024, "Sarathi-Serve").

mod preemption;
mod prefill;
mod queue;
#[cfg(test)]
mod simulation;

use std::cell::Cell;
use std::rc::Rc;

pub(super) use preemption::{Running, is_paused, victim, yields};
pub(super) use prefill::{PrefillBudget, Prompt};
pub(super) use queue::{Fit, MAX_WAITING, Next, Queue};
#[cfg(test)]
pub(super) use simulation::Random;

/// Cost of a token of the answer, in tokens of the prompt: it takes a step of its own.
const OUTPUT_COST: u64 = 2;

/// Cost of a token for the background, in tokens for the foreground.
const BACKGROUND_COST: u64 = 4;

/// Cost of a token of an embedding or a score, in tokens of a conversation.
const PREFILL_ONLY_COST: u64 = 2;

/// Whether somebody looks at the answer as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A visible tab, the popup, the command line.
    #[default]
    Foreground,
    /// A tab that is not visible.
    Background,
}

/// How much of the service a request gets beside others. A lower priority makes its tokens cost more, so it is served less often and
/// still never starves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) priority: Priority,
    /// An embedding or a score: it has no decode steps, and reserves all its pages at admission.
    pub(super) prefill_only: bool,
}

impl Class {
    /// Cost of one of its tokens.
    fn cost(self) -> u64 {
        let priority = if self.priority == Priority::Background { BACKGROUND_COST } else { 1 };
        priority * if self.prefill_only { PREFILL_ONLY_COST } else { 1 }
    }

    /// Whether somebody waits for its first token.
    fn is_urgent(self) -> bool {
        self.priority == Priority::Foreground && !self.prefill_only
    }
}

/// The virtual token counter of an origin, shared by its requests.
#[derive(Debug)]
struct Account {
    origin: Rc<str>,
    /// Cost of the tokens served.
    served: Cell<u64>,
}

impl Account {
    /// An origin that asked for nothing meanwhile has saved nothing up.
    fn lift(&self, virtual_time: u64) {
        self.served.set(self.served.get().max(virtual_time));
    }
}

/// A request's place in the policy, from its arrival to its end.
#[derive(Debug)]
pub(super) struct Ticket {
    account: Rc<Account>,
    class: Class,
    /// Number of its arrival.
    arrival: u64,
    /// Number of its first admission.
    admitted: Option<u64>,
    preempted: bool,
}

impl Ticket {
    /// Charges its origin for tokens of the answer. Tokens that are computed again after a preemption are not charged.
    pub(super) fn charge_output(&self, tokens: u32) {
        self.charge(OUTPUT_COST * u64::from(tokens));
    }

    fn charge(&self, tokens: u64) {
        self.account.served.set(self.account.served.get() + self.class.cost() * tokens);
    }

    fn served(&self) -> u64 {
        self.account.served.get()
    }
}

#[cfg(test)]
impl Ticket {
    /// A ticket of an origin that was served so much.
    fn of(account: &Rc<Account>, class: Class, admitted: u64) -> Self {
        Self { account: Rc::clone(account), class, arrival: admitted, admitted: Some(admitted), preempted: false }
    }
}

#[cfg(test)]
impl Account {
    fn new(origin: &str, served: u64) -> Rc<Self> {
        Rc::new(Self { origin: origin.into(), served: Cell::new(served) })
    }
}
