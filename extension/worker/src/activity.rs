//! The conversations that are being answered, for the list in the options.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use doppler_protocol::engine::{RunningChat, RunningChats};
use web_time::Instant;

/// The rate is that of the last tokens, over so much time.
const WINDOW: Duration = Duration::from_secs(2);

/// The conversations that the worker has.
#[derive(Debug, Default)]
pub(crate) struct Activity(RefCell<Vec<Weak<Answering>>>);

impl Activity {
    /// A conversation of this origin, which is listed until it is dropped.
    pub(crate) fn begin(&self, origin: &str) -> Rc<Answering> {
        let answering = Rc::new(Answering { origin: origin.to_owned(), ..Answering::default() });
        let mut all = self.0.borrow_mut();
        all.retain(|answering| answering.strong_count() > 0);
        all.push(Rc::downgrade(&answering));
        answering
    }

    /// What is known about each at this time.
    pub(crate) fn list(&self, now: Instant) -> RunningChats {
        RunningChats { chats: self.0.borrow().iter().filter_map(Weak::upgrade).map(|answering| answering.describe(now)).collect() }
    }
}

/// A conversation.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    origin: String,
    model: RefCell<Option<String>>,
    /// Tokens of the prompt; `None`: it waits.
    prompt: Cell<Option<u32>>,
    answer: RefCell<Rate>,
}

impl Answering {
    /// The model is loaded; its name for people.
    pub(crate) fn set_model(&self, name: &str) {
        *self.model.borrow_mut() = Some(name.to_owned());
    }

    /// The engine computes it, with so many tokens in the prompt.
    pub(crate) fn set_running(&self, prompt_tokens: u32) {
        self.prompt.set(Some(prompt_tokens));
    }

    /// The answer has so many tokens now.
    pub(crate) fn set_answered(&self, tokens: u32, now: Instant) {
        self.answer.borrow_mut().add(tokens, now);
    }

    fn describe(&self, now: Instant) -> RunningChat {
        let (prompt, answer) = (self.prompt.get(), self.answer.borrow());
        RunningChat {
            origin: self.origin.clone(),
            model: self.model.borrow().clone(),
            running: prompt.is_some(),
            tokens: prompt.unwrap_or(0) + answer.total(),
            tokens_per_second: answer.per_second(now),
        }
    }
}

/// A count that grows in bursts, and its rate.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u32)>);

impl Rate {
    fn add(&mut self, total: u32, now: Instant) {
        self.0.push_back((now, total));
        while self.0.get(1).is_some_and(|(time, _)| now.duration_since(*time) >= WINDOW) {
            self.0.pop_front();
        }
    }

    fn total(&self) -> u32 {
        self.0.back().map_or(0, |(_, total)| *total)
    }

    /// Growth in a second, since the last burst before the window: the first burst begins it.
    fn per_second(&self, now: Instant) -> f64 {
        let before = self.0.iter().rfind(|(time, _)| now.duration_since(*time) >= WINDOW);
        let Some((since, base)) = before.or(self.0.front()) else { return 0.0 };
        f64::from(self.total() - base) / now.duration_since(*since).as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let rate_at = |rate: &Rate, ms| rate.per_second(at(ms)).round() as u32;
        let mut rate = Rate::default();
        assert_eq!(rate_at(&rate, 0), 0);
        rate.add(16, at(1_000));
        assert_eq!(rate_at(&rate, 1_000), 0, "one burst says nothing");
        for burst in 1..=100 {
            rate.add(16 + 4 * burst as u32, at(1_000 + 100 * burst));
        }
        assert_eq!(rate_at(&rate, 11_000), 40);
        assert!(rate.0.len() <= 22, "{} bursts are kept", rate.0.len());
        assert_eq!(rate_at(&rate, 12_000), 20, "half of the window is silent");
        assert_eq!(rate_at(&rate, 13_500), 0);
        assert_eq!(rate.total(), 416);
    }

    #[test]
    fn ended_conversations_take_no_memory_though_nobody_asks() {
        let activity = Activity::default();
        (0..100).for_each(|_| drop(activity.begin("https://a.test")));
        assert_eq!(activity.0.borrow().len(), 1);
    }

    #[test]
    fn conversation_is_listed_until_it_ends() {
        let activity = Activity::default();
        let now = Instant::now();
        let [first, second] = ["https://a.test", "https://b.test"].map(|origin| activity.begin(origin));
        first.set_model("Spark 28M");
        first.set_running(100);
        first.set_answered(5, now);
        let waits = RunningChat { origin: "https://b.test".to_owned(), model: None, running: false, tokens: 0, tokens_per_second: 0.0 };
        let answered = RunningChat {
            origin: "https://a.test".to_owned(),
            model: Some("Spark 28M".to_owned()),
            running: true,
            tokens: 105,
            ..waits.clone()
        };
        assert_eq!(activity.list(now).chats, [answered, waits.clone()]);
        drop(first);
        assert_eq!(activity.list(now).chats, [waits]);
        drop(second);
        assert!(activity.list(now).chats.is_empty());
    }
}
