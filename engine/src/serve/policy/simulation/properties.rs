//! Guarantees of the policy, in simulation.

use std::time::Duration;

use super::{BACKGROUND, CHAT, Counts, EMBEDDING, End, Random, Request, STEPS, Simulation};
use crate::serve::policy::queue::MAX_PASSED_OVER;

impl Random {
    /// A request of at most `context` tokens with its answer.
    fn request(&mut self, origin: &str, context: u32, now: Duration) -> Request {
        let class = match origin {
            "hidden" => BACKGROUND,
            "index" => EMBEDDING,
            _ => CHAT,
        };
        let longest = if self.one_in(8) { context - 1 } else { context / 8 };
        let prompt = 1 + self.below(longest);
        let limit = if class.prefill_only { 0 } else { (1 + self.below(context / 2)).min(context - prompt) };
        let answer = if self.one_in(2) { limit } else { limit.min(1 + self.below(100)) };
        let mut request = Request { limit, ..Request::new(origin, class, prompt, answer) };
        // A few beginnings are common.
        let beginning = self.below(4);
        request.text.iter_mut().for_each(|token| *token = *token << 2 | beginning);
        if self.one_in(10) {
            request.cancelled = Some(now + Duration::from_millis(u64::from(self.below(3_000))));
        }
        if self.one_in(10) {
            request.reads = self.below(40);
            // Who never reads goes away.
            request.cancelled.get_or_insert(now + Duration::from_millis(u64::from(self.below(30_000))));
        }
        request
    }
}

/// Thousands of requests of five origins, one of them greedy, in pools from tiny to ample. The simulation checks each step.
#[test]
fn every_request_ends_in_order_and_no_page_leaks() {
    let mut all = Counts::default();
    let mut ends = [0; 3];
    for (seed, (pages, slots, context, pace)) in
        [(12, 4, 384, 40), (12, 8, 384, 15), (40, 8, 600, 15), (300, 32, 2_000, 10), (4_000, 16, 4_000, 10)].into_iter().enumerate()
    {
        let mut random = Random::new(seed as u64);
        let mut simulation = Simulation::new(pages, slots);
        for _ in 0..800 {
            let (origin, burst) = match random.below(8) {
                0 => ("greedy", 1 + random.below(30)),
                1 => ("index", 1 + random.below(8)),
                2 => ("hidden", 1),
                3..6 => ("popup", 1),
                _ => ("tab", 1),
            };
            for _ in 0..burst {
                let request = random.request(origin, context, simulation.now);
                simulation.push(request);
            }
            for _ in 0..random.below(pace) {
                simulation.step();
            }
        }
        simulation.finish();
        let Simulation { counts, longest_wait, .. } = &simulation;
        // The running end, and few are admitted before it.
        let most = u64::from(MAX_PASSED_OVER + slots as u32) * 2 * u64::from(context);
        assert!(*longest_wait <= most, "{longest_wait} of {most} tokens with {pages} pages and {slots} slots");
        all.preempted += counts.preempted;
        all.yielded += counts.yielded;
        all.paused += counts.paused;
        all.cached += counts.cached;
        for (sum, end) in ends.iter_mut().zip([End::Done, End::Cancelled, End::Refused]) {
            *sum += simulation.ended(end);
        }
    }
    println!("{all:?}, {ends:?} done, cancelled and refused");
    assert!(ends.iter().all(|count| *count > 500));
    assert!(all.preempted > 100 && all.yielded > 100 && all.paused > 50 && all.cached > 100_000);
}

/// Service of each origin while all of these keep a backlog.
fn shares(pages: u32, slots: usize, requests: &[&dyn Fn() -> Request]) -> Vec<u64> {
    let mut simulation = Simulation::new(pages, slots);
    simulation.step_until(|simulation| {
        for request in requests {
            simulation.top_up(8, request);
        }
        simulation.total_service > 400_000
    });
    requests.iter().map(|request| simulation.service[&request().origin]).collect()
}

#[test]
fn backlogged_origins_are_served_alike_whatever_they_ask() {
    for (pages, slots) in [(400, 4), (400, 16), (80, 16)] {
        let shares = shares(
            pages,
            slots,
            &[
                &|| Request::new("long prompts", CHAT, 1_500, 5),
                &|| Request::new("long answers", CHAT, 10, 400),
                &|| Request::new("short", CHAT, 20, 20),
                &|| Request::new("chat", CHAT, 200, 100),
            ],
        );
        let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
        assert!(most <= least.map(|least| least * 11 / 10), "{pages} pages, {slots} slots: {shares:?}");
    }
}

#[test]
fn background_and_embeddings_are_served_by_their_priority() {
    let [visible, hidden] = [("visible", CHAT), ("hidden", BACKGROUND)].map(|(name, class)| move || Request::new(name, class, 100, 100));
    let embeddings = || Request::new("embeddings", EMBEDDING, 300, 0);
    let shares = shares(400, 8, &[&visible, &hidden, &embeddings]);
    let [visible, hidden, embeddings] = [shares[0], 4 * shares[1], 2 * shares[2]];
    for other in [hidden, embeddings] {
        assert!(visible.abs_diff(other) * 10 < visible, "{shares:?}");
    }
}

#[test]
fn a_flood_delays_others_by_what_is_running_at_most() {
    const SLOTS: usize = 4;
    let flood = || Request::new("greedy", CHAT, 50, 100);
    let mut simulation = Simulation::new(400, SLOTS);
    let mut asked = Vec::new();
    simulation.step_until(|simulation| {
        simulation.top_up(64, flood);
        if asked.last().is_none_or(|id: &usize| simulation.requests[*id].end.is_some()) {
            asked.push(simulation.push(Request::new("polite", CHAT, 50, 20)));
        }
        asked.len() == 50
    });
    let most = asked.iter().map(|id| simulation.requests[*id].waited).max();
    let running = SLOTS as u64 * (50 + 2 * 100);
    assert!(most <= Some(running), "{most:?} of {running}");
}

#[test]
fn a_request_that_needs_all_pages_is_waited_for() {
    let mut simulation = Simulation::new(40, 8);
    let mut answer = 0;
    let mut small = || {
        // They do not end together.
        answer = (answer + 17) % 60;
        Request::new("small", CHAT, 100, 1 + answer)
    };
    simulation.step_until(|simulation| {
        simulation.top_up(8, &mut small);
        simulation.total_service > 10_000
    });
    let large = simulation.push(Request::new("large", CHAT, 39 * 32, 30));
    simulation.step_until(|simulation| {
        simulation.top_up(8, &mut small);
        simulation.requests[large].admissions > 0
    });
    let most = u64::from(MAX_PASSED_OVER + 8) * (100 + 2 * 60);
    assert!(simulation.requests[large].waited <= most, "{} of {most}", simulation.requests[large].waited);
}

#[test]
fn an_answer_is_not_starved_by_embeddings_that_keep_their_pages() {
    let mut simulation = Simulation::new(12, 4);
    let answer = simulation.push(Request::new("chat", CHAT, 20, 300));
    simulation.step_until(|simulation| {
        simulation.top_up(8, || Request::new("index", EMBEDDING, 200, 0));
        simulation.requests[answer].end.is_some()
    });
    assert!(simulation.now < Duration::from_secs(20));
    assert!(simulation.counts.stalled > 0);
}

/// Four answers that go on for long, after a second.
fn streams() -> (Simulation, Vec<usize>) {
    let mut simulation = Simulation::new(4_000, 16);
    let streams = (0..4).map(|_| simulation.push(Request::new("streams", CHAT, 100, 20_000))).collect();
    simulation.step_until(|simulation| simulation.now > Duration::from_secs(1));
    (simulation, streams)
}

/// Tokens of the streams in a second, until `end`.
fn speed(simulation: &mut Simulation, streams: &[usize], end: impl FnMut(&mut Simulation) -> bool) -> f64 {
    let tokens = |simulation: &Simulation| streams.iter().map(|id| simulation.requests[*id].generated()).sum::<u32>();
    let (begin, before) = (simulation.now, tokens(simulation));
    simulation.step_until(end);
    f64::from(tokens(simulation) - before) / simulation.now.saturating_sub(begin).as_secs_f64()
}

#[test]
fn a_long_prompt_slows_streams_by_less_than_a_third_and_short_ones_start_at_once() {
    let (mut simulation, streams) = streams();
    let alone = speed(&mut simulation, &streams, |simulation| simulation.now > Duration::from_secs(2));
    let long = simulation.push(Request::new("long", CHAT, 4_096, 1));
    let mut short = None;
    let together = speed(&mut simulation, &streams, |simulation| {
        if short.is_none() && simulation.now > Duration::from_millis(2_500) {
            short = Some((simulation.now, simulation.push(Request::new("short", CHAT, 64, 1))));
        }
        simulation.requests[long].end.is_some()
    });
    assert!(together > 0.7 * alone, "{together} instead of {alone} tokens/s");
    let (asked, short) = short.expect("the long prompt takes longer");
    let waited = simulation.requests[short].first_token.map(|first| first.saturating_sub(asked));
    assert!(waited.is_some_and(|waited| waited < Duration::from_millis(60)), "{waited:?}");
}

#[test]
fn embeddings_take_a_quarter_of_the_time_while_others_stream() {
    let (mut simulation, streams) = streams();
    let before = simulation.delays;
    speed(&mut simulation, &streams, |simulation| {
        simulation.top_up(64, || Request::new("index", EMBEDDING, 500, 0));
        simulation.now > Duration::from_secs(11)
    });
    let delays = simulation.delays.saturating_sub(before).as_secs_f64();
    assert!((2.2..2.6).contains(&delays), "{delays} of 10 s");
}

#[test]
fn a_slow_reader_is_paused_and_leaves_when_pages_are_needed() {
    let mut simulation = Simulation::new(40, 4);
    let slow = simulation.push(Request { reads: 0, ..Request::new("slow", CHAT, 32, 1_000) });
    (0..200).for_each(|_| simulation.step());
    let generated = simulation.requests[slow].generated();
    assert!((256..=257 + STEPS).contains(&generated), "{generated} tokens for nobody");
    assert_eq!((simulation.running.len(), simulation.counts.yielded), (1, 0), "it keeps its pages");
    let large = simulation.push(Request::new("large", CHAT, 1_200, 10));
    simulation.step_until(|simulation| simulation.requests[large].end.is_some());
    assert_eq!(simulation.counts.yielded, 1);
    simulation.requests[slow].reads = 100;
    simulation.finish();
    assert_eq!((simulation.requests[slow].end, simulation.requests[slow].generated()), (Some(End::Done), 1_000));
}
