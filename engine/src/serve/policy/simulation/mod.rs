//! A scheduler without a device: the policy and the real page pool under random requests, in simulated time.

mod properties;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::{Class, Fit, Next, PrefillBudget, Priority, Prompt, Queue, Running, Ticket, is_paused, victim, yields};
use crate::kernels::PAGE;
use crate::serve::pages::{BlockTable, PagePool};

const CHAT: Class = Class { priority: Priority::Foreground, prefill_only: false };
const BACKGROUND: Class = Class { priority: Priority::Background, prefill_only: false };
const EMBEDDING: Class = Class { priority: Priority::Foreground, prefill_only: true };

/// Rows of a prefill pass.
const MOST_ROWS: u32 = 512;
/// Decode steps of a submission.
const STEPS: u32 = 6;

/// Numbers that are the same in every run (Knuth's MMIX generator).
pub(in crate::serve) struct Random(u64);

impl Random {
    pub(in crate::serve) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::serve) fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    pub(in crate::serve) fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Cancelled,
    Refused,
}

struct Request {
    origin: Rc<str>,
    class: Class,
    text: Vec<u32>,
    prompt: u32,
    /// Tokens of its answer, which the scheduler does not know, and their limit, which it knows.
    answer: u32,
    limit: u32,
    cancelled: Option<Duration>,
    /// Tokens that its reader takes in a second.
    reads: u32,
    /// Millionths of a token that were read.
    read: u64,
    paused: bool,
    first_token: Option<Duration>,
    end: Option<End>,
    /// Service of all when it arrived, and while it was the next of its origin.
    arrived: u64,
    waited: u64,
    admissions: u32,
}

impl Request {
    fn new(origin: &str, class: Class, prompt: u32, answer: u32) -> Self {
        Self {
            origin: origin.into(),
            class,
            text: (0..prompt).collect(),
            prompt,
            answer,
            limit: answer,
            cancelled: None,
            reads: 1_000_000,
            read: 0,
            paused: false,
            first_token: None,
            end: None,
            arrived: 0,
            waited: 0,
            admissions: 0,
        }
    }

    fn generated(&self) -> u32 {
        self.text.len() as u32 - self.prompt
    }

    fn read(&mut self, elapsed: Duration) {
        self.read = (self.read + elapsed.as_micros() as u64 * u64::from(self.reads)).min(u64::from(self.generated()) * 1_000_000);
        self.paused = is_paused(self.paused, (u64::from(self.generated()) - self.read / 1_000_000) as usize);
    }
}

struct Live {
    id: usize,
    ticket: Ticket,
    block_table: BlockTable,
    /// Rows to prefill, and of these how many are computed.
    total: u32,
    computed: u32,
    cached: u32,
    /// No page for its next token.
    stalled: bool,
}

impl Live {
    fn prefills(&self) -> bool {
        self.computed < self.total
    }
}

/// How often the rare happened: a test asserts that it covers it.
#[derive(Debug, Default)]
struct Counts {
    preempted: u32,
    yielded: u32,
    stalled: u32,
    paused: u32,
    cached: u64,
}

struct Simulation {
    queue: Queue<usize>,
    requests: Vec<Request>,
    pool: PagePool,
    page_count: u32,
    slots: usize,
    running: Vec<Live>,
    budget: PrefillBudget,
    now: Duration,
    /// Time of prefill passes while sequences decoded.
    delays: Duration,
    counts: Counts,
    /// Tokens served, by origin: prompts, and answers twice.
    service: BTreeMap<Rc<str>, u64>,
    total_service: u64,
    /// Service of all at the last admission of an origin.
    last_admission: BTreeMap<Rc<str>, u64>,
    /// Most service of all while a request was the next of its origin.
    longest_wait: u64,
}

impl Simulation {
    fn new(page_count: u32, slots: usize) -> Self {
        Self {
            queue: Queue::default(),
            requests: Vec::new(),
            pool: PagePool::new(page_count, None),
            page_count,
            slots,
            running: Vec::new(),
            budget: PrefillBudget::new(Duration::ZERO),
            now: Duration::ZERO,
            delays: Duration::ZERO,
            counts: Counts::default(),
            service: BTreeMap::new(),
            total_service: 0,
            last_admission: BTreeMap::new(),
            longest_wait: 0,
        }
    }

    fn push(&mut self, mut request: Request) -> usize {
        let id = self.requests.len();
        request.arrived = self.total_service;
        if self.queue.push(&request.origin, request.class, id).is_err() {
            request.end = Some(End::Refused);
        }
        self.requests.push(request);
        id
    }

    /// Keeps `backlog` requests of an origin waiting.
    fn top_up(&mut self, backlog: usize, mut request: impl FnMut() -> Request) {
        let origin = request().origin;
        let waits = |request: &&Request| request.origin == origin && request.end.is_none() && request.admissions == 0;
        for _ in self.requests.iter().filter(waits).count()..backlog {
            self.push(request());
        }
    }

    fn step_until(&mut self, mut reached: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + Duration::from_secs(300);
        while !reached(self) {
            self.step();
            assert!(self.now < deadline, "{} requests never end", self.requests.iter().filter(|request| request.end.is_none()).count());
        }
    }

    fn finish(&mut self) {
        self.step_until(|simulation| simulation.running.is_empty() && simulation.queue.waiting().next().is_none());
        assert!(self.requests.iter().all(|request| request.end.is_some()));
        let whole = self.pool.admit(None, &[0], self.page_count * PAGE).expect("no page leaked");
        self.pool.release(whole, &[]);
    }

    fn step(&mut self) {
        self.cancel();
        self.reserve();
        self.admit();
        let elapsed = self.prefill() + self.decode();
        let elapsed = elapsed.max(Duration::from_millis(1));
        self.now += elapsed;
        for request in self.requests.iter_mut().filter(|request| request.end.is_none()) {
            let before = request.paused;
            request.read(elapsed);
            self.counts.paused += u32::from(!before && request.paused);
        }
        assert!(self.running.len() <= self.slots);
    }

    fn cancel(&mut self) {
        let (requests, now) = (&mut self.requests, self.now);
        let cancelled = |request: &Request| request.cancelled.is_some_and(|at| at <= now);
        for id in self.queue.remove(|id| cancelled(&requests[*id])) {
            requests[id].end = Some(End::Cancelled);
            self.last_admission.insert(Rc::clone(&requests[id].origin), self.total_service);
        }
        while let Some(i) = self.running.iter().position(|live| cancelled(&self.requests[live.id])) {
            self.end(i, End::Cancelled);
        }
    }

    fn end(&mut self, i: usize, end: End) {
        let (id, _) = self.release(i);
        assert_eq!(self.requests[id].end.replace(end), None);
    }

    fn release(&mut self, i: usize) -> (usize, Ticket) {
        let Live { id, ticket, block_table, computed, .. } = self.running.remove(i);
        self.pool.release(block_table, &self.requests[id].text[..computed as usize]);
        (id, ticket)
    }

    fn preempt(&mut self, i: usize) {
        let paused = |live: &Live| self.requests[live.id].paused;
        assert!(!self.running[i].ticket.class.prefill_only);
        let admitted = self.running[i].ticket.admitted;
        let first = self.running.iter().filter(|live| !paused(live)).all(|live| live.ticket.admitted >= admitted);
        assert!(paused(&self.running[i]) || !first, "the first admitted always proceeds");
        let any_paused = self.running.iter().any(paused);
        assert!(paused(&self.running[i]) || !any_paused, "those who do not go on leave first");
        let (id, ticket) = self.release(i);
        self.queue.requeue(ticket, id);
    }

    fn view(&self) -> Vec<Running<'_>> {
        self.running.iter().map(|live| Running { ticket: &live.ticket, paused: self.requests[live.id].paused }).collect()
    }

    /// Pages for the next submission; before admission, so that newcomers do not take them.
    fn reserve(&mut self) {
        let mut i = 0;
        while let Some(live) = self.running.get_mut(i) {
            let request = &self.requests[live.id];
            let positions = (request.text.len() as u32 + STEPS).min(request.prompt + request.limit);
            live.stalled = !live.prefills() && !request.paused && !self.pool.reserve(&mut live.block_table, positions);
            match victim(&self.view()) {
                Some(victim) if self.running[i].stalled => {
                    self.counts.preempted += 1;
                    self.preempt(victim);
                    i = 0;
                }
                _ => {
                    self.counts.stalled += u32::from(self.running[i].stalled);
                    i += 1;
                }
            }
        }
    }

    fn admit(&mut self) {
        loop {
            let Self { queue, requests, pool, running, slots, .. } = self;
            let next = queue.next(|id| {
                let Request { origin, class, text, prompt, limit, paused, admissions, .. } = &requests[*id];
                if *paused {
                    return Fit::Paused;
                }
                let output = if *admissions == 0 { 128 } else { 512 };
                let positions = (prompt + limit).min(text.len() as u32 + output);
                let namespace = (!class.prefill_only).then(|| Rc::clone(origin));
                match (running.len() < *slots).then(|| pool.admit(namespace, text, positions)).flatten() {
                    Some(block_table) => {
                        let uncached = text.len() as u32 - block_table.pages().len() as u32 * PAGE;
                        Fit::Room { reservation: block_table, uncached }
                    }
                    None => Fit::NoRoom,
                }
            });
            match next {
                Next::Admitted { ticket, request, reservation } => self.admitted(ticket, request, reservation),
                Next::Blocked(blocked) => match yields(blocked, &self.view()) {
                    Some(i) => {
                        self.counts.yielded += 1;
                        self.preempt(i);
                    }
                    None => return,
                },
                Next::Nothing => return,
            }
        }
    }

    fn admitted(&mut self, ticket: Ticket, id: usize, block_table: BlockTable) {
        let request = &self.requests[id];
        let ahead = |other: &Request| other.origin == request.origin && other.end.is_none() && !other.paused;
        let running = |id| self.running.iter().any(|live| live.id == id);
        let overtaken = (0..id).find(|other| ahead(&self.requests[*other]) && !running(*other));
        assert_eq!(overtaken, None, "request {id} was admitted before one of its origin that waits longer");

        let cached = block_table.pages().len() as u32 * PAGE;
        let total = request.text.len() as u32;
        let since = self.last_admission.insert(Rc::clone(&request.origin), self.total_service).unwrap_or(0);
        if request.admissions == 0 {
            let waited = self.total_service - since.max(request.arrived);
            self.longest_wait = self.longest_wait.max(waited);
            self.requests[id].waited = waited;
            self.serve(id, total - cached);
        }
        self.counts.cached += u64::from(cached);
        self.requests[id].admissions += 1;
        self.running.push(Live { id, ticket, block_table, total, computed: cached, cached, stalled: false });
    }

    fn serve(&mut self, id: usize, tokens: u32) {
        *self.service.entry(Rc::clone(&self.requests[id].origin)).or_default() += u64::from(tokens);
        self.total_service += u64::from(tokens);
    }

    fn prefill(&mut self) -> Duration {
        let decoding = self.running.iter().any(|live| self.decodes(live));
        let prefilling: Vec<usize> = (0..self.running.len()).filter(|i| self.running[*i].prefills()).collect();
        let prompt = |i: &usize| {
            let Live { ticket, total, computed, cached, .. } = &self.running[*i];
            Prompt { ticket, total: total - cached, remaining: total - computed }
        };
        let prompts: Vec<Prompt> = prefilling.iter().map(prompt).collect();
        let Some(rows) = self.budget.compose(self.now, decoding, &prompts, MOST_ROWS) else { return Duration::ZERO };
        assert!(rows.iter().sum::<u32>() <= MOST_ROWS);
        for (i, rows) in prefilling.into_iter().zip(&rows) {
            let live = &mut self.running[i];
            live.computed += rows;
            self.pool.allocate(&mut live.block_table, live.computed);
            self.pool.insert(&mut live.block_table, &self.requests[live.id].text[..live.computed as usize]);
            if !live.prefills() && !live.ticket.class.prefill_only {
                self.accept(i);
            }
        }
        let duration = Duration::from_micros(2_000 + 60 * u64::from(rows.iter().sum::<u32>()));
        self.budget.completed(duration);
        self.delays += if decoding { duration } else { Duration::ZERO };
        self.end_complete();
        duration
    }

    fn decodes(&self, live: &Live) -> bool {
        !live.prefills() && !live.stalled && !self.requests[live.id].paused
    }

    fn decode(&mut self) -> Duration {
        let rows: Vec<usize> = (0..self.running.len()).filter(|i| self.decodes(&self.running[*i])).collect();
        if rows.is_empty() {
            return Duration::ZERO;
        }
        for i in &rows {
            for _ in 0..STEPS {
                let live = &mut self.running[*i];
                let request = &self.requests[live.id];
                if request.generated() < request.answer {
                    live.computed = request.text.len() as u32;
                    live.total = live.computed;
                    self.pool.allocate(&mut live.block_table, live.computed);
                    assert!(live.block_table.pages().len() as u32 * PAGE >= live.computed, "a token without a page");
                    self.accept(*i);
                }
            }
        }
        self.end_complete();
        Duration::from_micros(u64::from(STEPS) * (4_000 + 100 * rows.len() as u64))
    }

    /// The next token of an answer.
    fn accept(&mut self, i: usize) {
        let Live { id, ticket, .. } = &self.running[i];
        ticket.charge_output(1);
        let (id, request) = (*id, &mut self.requests[*id]);
        request.text.push(request.text.len() as u32);
        request.first_token.get_or_insert(self.now);
        self.serve(id, 2);
    }

    fn end_complete(&mut self) {
        let complete = |live: &Live, request: &Request| !live.prefills() && request.generated() == request.answer;
        while let Some(i) = self.running.iter().position(|live| complete(live, &self.requests[live.id])) {
            self.end(i, End::Done);
        }
    }

    fn ended(&self, end: End) -> usize {
        self.requests.iter().filter(|request| request.end == Some(end)).count()
    }
}
