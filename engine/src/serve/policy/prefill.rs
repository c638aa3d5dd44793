//! Which prompts a prefill pass computes, and when: chunks that are fair among prompts, in a share of the time while others decode.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::Ticket;

/// Fewest rows of a prompt in a pass, unless fewer are left.
const MIN_ROWS: u32 = 16;

/// Of the time while sequences decode, one part in so many is for prefill.
const TIME_SHARE: i64 = 4;

/// Time that prefill may save up, for short prompts to start at once.
const BURST: Duration = Duration::from_millis(500);

/// Target duration of a prefill pass while sequences decode: they wait for it.
const PASS_TIME: Duration = Duration::from_millis(50);

/// Most time beyond its share that prefill makes up for: in a very long pass the device may have slept or compiled.
const MAX_DEBT: Duration = Duration::from_secs(1);

/// Fewest rows that a pass is cut to.
const MIN_PASS_ROWS: u32 = 64;

/// A prompt is short if so many passes compute it.
const SHORT_PASSES: u32 = 2;

/// A sequence that prefills.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Prompt<'a> {
    pub(in crate::serve) ticket: &'a Ticket,
    /// Rows that were to be computed at its admission.
    pub(in crate::serve) total: u32,
    /// Of these, how many are left; not 0.
    pub(in crate::serve) remaining: u32,
}

#[derive(Debug)]
struct InFlight {
    rows: u32,
    /// Taken from the credit, in microseconds.
    charged: i64,
    /// Whether sequences decode meanwhile.
    delays: bool,
}

/// The time that prefill may take while sequences decode: a token bucket.
///
/// A long prompt is computed when the bucket is full, so it takes no more than its share of the time; the burst is for short ones.
#[derive(Debug)]
pub(in crate::serve) struct PrefillBudget {
    /// Microseconds; negative where passes took longer.
    credit: i64,
    refilled: Duration,
    /// Rows that are computed in [`PASS_TIME`], as far as measured.
    rows: u32,
    in_flight: VecDeque<InFlight>,
}

impl PrefillBudget {
    /// A full bucket at this time.
    pub(in crate::serve) fn new(now: Duration) -> Self {
        Self { credit: micros(BURST), refilled: now, rows: 4 * MIN_PASS_ROWS, in_flight: VecDeque::new() }
    }

    /// The rows of each prompt in a pass that is submitted now, at most `most` in all. `None`: no pass now. Without sequences that decode
    /// there is no limit on the time.
    pub(in crate::serve) fn compose(&mut self, now: Duration, decoding: bool, prompts: &[Prompt], most: u32) -> Option<Vec<u32>> {
        self.credit = (self.credit + micros(now.saturating_sub(self.refilled)) / TIME_SHARE).min(micros(BURST));
        self.refilled = now;
        let needed = if prompts.iter().any(|prompt| self.is_short(prompt)) { 1 } else { micros(BURST) };
        if prompts.is_empty() || decoding && self.credit < needed {
            return None;
        }
        let shares = share_rows(prompts, if decoding { most.min(self.rows) } else { most });
        let rows = shares.iter().sum();
        let charged = if decoding { micros(PASS_TIME) * i64::from(rows) / i64::from(self.rows) } else { 0 };
        self.credit -= charged;
        self.in_flight.push_back(InFlight { rows, charged, delays: decoding });
        Some(shares)
    }

    /// The oldest pass that was composed took so long on the device.
    pub(in crate::serve) fn completed(&mut self, duration: Duration) {
        let Some(InFlight { rows, charged, delays }) = self.in_flight.pop_front() else { return };
        if delays {
            self.credit = (self.credit + charged - micros(duration)).max(-micros(MAX_DEBT));
        }
        // Part of the duration does not depend on the rows: at least so many take the target.
        let fitting = i64::from(rows) * micros(PASS_TIME) / micros(duration).max(1);
        let fitting = u32::try_from(fitting).unwrap_or(u32::MAX).max(MIN_PASS_ROWS);
        let fitting = 1 << fitting.ilog2();
        self.rows = if duration > PASS_TIME { self.rows.min(fitting) } else { self.rows.max(fitting) };
    }

    fn is_short(&self, prompt: &Prompt) -> bool {
        !prompt.ticket.class.prefill_only && prompt.total <= self.rows.saturating_mul(SHORT_PASSES)
    }
}

/// Max–min fair shares of a pass, by the inverse cost of each class; the prompts of an origin share one part. Short prompts are complete
/// and long ones share the rest. The first admitted always proceeds, and no other gets fewer than [`MIN_ROWS`] unless fewer are left.
fn share_rows(prompts: &[Prompt], most: u32) -> Vec<u32> {
    let cost = |prompt: &Prompt| {
        let siblings = prompts.iter().filter(|other| Rc::ptr_eq(&other.ticket.account, &prompt.ticket.account)).count();
        prompt.ticket.class.cost() * siblings as u64
    };
    let mut order: Vec<_> = prompts.iter().map(|prompt| (cost(prompt), prompt)).enumerate().collect();
    order.sort_by_key(|(_, (cost, prompt))| (cost * u64::from(prompt.remaining), prompt.ticket.admitted));
    let first = order.iter().min_by_key(|(_, (_, prompt))| prompt.ticket.admitted).map(|(i, _)| *i);
    let mut kept = first.map_or(0, |i| prompts[i].remaining.min(MIN_ROWS).min(most));

    let mut rows = vec![0; prompts.len()];
    let (mut left, mut weights) = (most, order.iter().map(|(_, (cost, _))| weight(*cost)).sum::<u64>());
    for (i, (cost, prompt)) in order {
        if Some(i) == first {
            kept = 0;
        }
        let fair = (u64::from(left) * weight(cost) / weights) as u32;
        let share = prompt.remaining.min(fair.max(MIN_ROWS)).min(left - kept);
        weights -= weight(cost);
        if share >= MIN_ROWS.min(prompt.remaining) || Some(i) == first {
            rows[i] = share;
            left -= share;
        }
    }
    rows
}

/// The part of a pass that goes to a prompt of this cost.
fn weight(cost: u64) -> u64 {
    (1 << 32) / cost
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::policy::{Account, Class, Priority};

    const CHAT: Class = Class { priority: Priority::Foreground, prefill_only: false };
    const BACKGROUND: Class = Class { priority: Priority::Background, prefill_only: false };
    const EMBEDDING: Class = Class { priority: Priority::Foreground, prefill_only: true };

    fn prompts<'a>(tickets: &'a [Ticket], rows: &[u32]) -> Vec<Prompt<'a>> {
        tickets.iter().zip(rows).map(|(ticket, rows)| Prompt { ticket, total: *rows, remaining: *rows }).collect()
    }

    /// Shares of prompts of one class and different origins.
    fn shares(rows: &[u32], most: u32) -> Vec<u32> {
        let tickets: Vec<_> = (0..rows.len() as u64).map(|i| Ticket::of(&Account::new(&i.to_string(), 0), CHAT, i)).collect();
        share_rows(&prompts(&tickets, rows), most)
    }

    #[test]
    fn short_prompts_are_complete_and_long_ones_share_the_rest() {
        assert_eq!(shares(&[4096], 512), [512]);
        assert_eq!(shares(&[100], 512), [100]);
        assert_eq!(shares(&[4096, 40, 900, 3], 512), [235, 40, 234, 3]);
        assert_eq!(shares(&[200, 200, 200], 512), [170, 171, 171]);
    }

    #[test]
    fn no_prompt_gets_a_sliver_and_the_first_always_proceeds() {
        assert_eq!(shares(&[900, 100, 100, 100], 48), [16, 16, 16, 0]);
        assert_eq!(shares(&[900, 5, 5, 100], 40), [30, 5, 5, 0]);
        assert_eq!(shares(&[900, 5, 5, 100], 8), [8, 0, 0, 0]);
        let rows: Vec<u32> = (0..32).map(|i| 20 + i).collect();
        assert_eq!(shares(&rows, 512), [16; 32]);
    }

    #[test]
    fn an_origin_gets_no_more_for_many_prompts_and_the_background_gets_less() {
        let [one, many] = [Account::new("one", 0), Account::new("many", 0)];
        let mut tickets = vec![Ticket::of(&one, CHAT, 0)];
        tickets.extend((1..5).map(|i| Ticket::of(&many, CHAT, i)));
        assert_eq!(share_rows(&prompts(&tickets, &[4096; 5]), 512), [256, 64, 64, 64, 64]);
        let tickets = [Ticket::of(&one, CHAT, 0), Ticket::of(&many, BACKGROUND, 1)];
        assert_eq!(share_rows(&prompts(&tickets, &[4096; 2]), 500), [400, 100]);
    }

    #[test]
    fn random_shares_are_max_min_fair_and_use_the_pass() {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % n) as u32
        };
        for _ in 0..2_000 {
            let rows: Vec<u32> = (0..=below(20)).map(|i| 1 + below([30, 3_000][i as usize % 2])).collect();
            let most = 1 + below(1024);
            let shares = shares(&rows, most);
            let (sum, wanted) = (shares.iter().sum::<u32>(), rows.iter().sum::<u32>());
            assert!(sum <= most && sum + MIN_ROWS > most.min(wanted), "{rows:?} of {most}: {shares:?}");
            assert!(shares[0] >= MIN_ROWS.min(rows[0]).min(most));
            let largest = *shares.iter().max().unwrap_or(&0);
            for (share, rows) in shares.iter().zip(&rows) {
                assert!(share <= rows && (*share >= MIN_ROWS.min(*rows) || *share == 0 || most < MIN_ROWS));
                assert!(share == rows || largest <= share.max(&MIN_ROWS) + 1, "{rows:?} of {most}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_long_prompt_waits_for_a_full_bucket_and_a_short_one_takes_the_burst() {
        let account = Account::new("a", 0);
        let tickets = [Ticket::of(&account, CHAT, 0), Ticket::of(&account, CHAT, 1)];
        let (long, short) = (prompts(&tickets[..1], &[4096]), prompts(&tickets, &[4096, 100]));
        let ms = Duration::from_millis;
        let mut budget = PrefillBudget::new(ms(0));
        assert_eq!(budget.compose(ms(0), false, &[], 512), None);
        assert_eq!(budget.compose(ms(0), true, &long, 512), Some(vec![256]));
        budget.completed(ms(40));
        assert_eq!(budget.compose(ms(0), true, &long, 512), None);
        assert_eq!(budget.compose(ms(159), true, &long, 512), None);
        // The credit is 500 ms again, then 450, 400…: ten passes.
        for _ in 0..10 {
            assert_eq!(budget.compose(ms(160), true, &short, 512), Some(vec![156, 100]));
            budget.completed(ms(50));
        }
        assert_eq!(budget.compose(ms(160), true, &short, 512), None);
        assert_eq!(budget.compose(ms(160), false, &short, 512), Some(vec![412, 100]), "nobody waits for it");
        budget.completed(ms(100));
        assert_eq!(budget.compose(ms(161), true, &short, 512), Some(vec![156, 100]));
        // A pass in flight counts as long as it is expected to take.
        assert_eq!(budget.compose(ms(162), true, &short, 512), None);
        budget.completed(ms(60_000));
        assert_eq!(budget.compose(ms(4_161), true, &short, 512), None);
        assert!(budget.compose(ms(4_170), true, &short, 512).is_some(), "after one very long pass prefill goes on within seconds");
    }

    #[test]
    fn embeddings_take_no_burst() {
        let tickets = [Ticket::of(&Account::new("a", 0), EMBEDDING, 0)];
        let mut budget = PrefillBudget::new(Duration::ZERO);
        assert!(budget.compose(Duration::ZERO, true, &prompts(&tickets, &[10]), 512).is_some());
        assert!(budget.compose(Duration::ZERO, true, &prompts(&tickets, &[10]), 512).is_none());
    }

    #[test]
    fn passes_take_no_longer_than_decoding_may_wait() {
        let tickets = [Ticket::of(&Account::new("a", 0), CHAT, 0)];
        let long = prompts(&tickets, &[100_000]);
        let mut budget = PrefillBudget::new(Duration::ZERO);
        let mut pass = |second: u64, most: u32, milliseconds: u64| {
            let rows = budget.compose(Duration::from_secs(100 * second), true, &long, most).map(|rows| rows[0]);
            budget.completed(Duration::from_millis(milliseconds));
            rows
        };
        assert_eq!(pass(0, 4096, 100), Some(256));
        assert_eq!(pass(1, 4096, 10), Some(128));
        assert_eq!(pass(2, 4096, 50), Some(512));
        assert_eq!(pass(3, 16, 50), Some(16), "few rows in the time say nothing against more");
        assert_eq!(pass(4, 4096, 10_000), Some(512));
        assert_eq!(pass(5, 4096, 50), Some(MIN_PASS_ROWS));
    }
}
