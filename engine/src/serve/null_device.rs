//! The scheduler on a device that computes nothing, whose every token is 0: thousands of requests in pools from tiny to ample.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::task::Context;

use futures::task::noop_waker;
use futures::{FutureExt, StreamExt};

use super::events::{EventReceiver, events};
use super::policy::{MAX_WAITING, Priority, Random};
use super::{Event, FinishReason, Job, Scheduler, Task};
use crate::device::Capabilities;
use crate::error::EngineError;
use crate::exec::{DryRun, Executor, Scope};
use crate::kernels::{PAGE, Sampler};
use crate::model::{Model, ModelOptions, families, read_checkpoint};
use crate::source;

/// A request and what came of it.
struct Asked {
    job: Expected,
    receiver: Option<EventReceiver>,
    /// Events that are read after a step.
    reads: usize,
    admitted: Option<usize>,
    tokens: u32,
    scores: usize,
    end: Option<FinishReason>,
    refused: bool,
}

/// The answer that is due.
struct Expected {
    origin: Rc<str>,
    task: Task,
    priority: Priority,
    prompt: u32,
    tokens: u32,
    reason: FinishReason,
}

struct Server {
    executor: Executor,
    model: Model,
    scheduler: Scheduler,
    asked: Vec<Asked>,
    admissions: usize,
    random: Random,
}

impl Server {
    fn new(seed: u64, pages: u32, sequences: u32, context: u32) -> Self {
        let server = Self::of("llama-3", seed, pages, sequences, context);
        assert_eq!((server.model.pages.pages, server.model.pages.windows), (pages, None));
        server
    }

    /// With cache for so many pages in all layers.
    fn of(model: &str, seed: u64, pages: u32, sequences: u32, context: u32) -> Self {
        let executor = Executor::Dry(DryRun::new(Capabilities::BASELINE));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/architectures");
        let source = source::open(&Path::new(folder).join(model).with_extension("gguf")).expect("a file");
        let checkpoint = read_checkpoint(&*source).now_or_never().expect("a file is read at once").expect("a header");
        let usual = ModelOptions { context, sequences, prefill_rows: 96, ..ModelOptions::default() };
        let spec = families::spec(&checkpoint).expect("a spec");
        let options = ModelOptions { kv_bytes: spec.kv_bytes_per_position(usual.kv) * u64::from(PAGE * pages), ..usual };
        let mut scope = Scope::default();
        let (model, _) = Model::plan(&executor, &mut scope, &checkpoint, options).expect("a model");
        let scheduler = Scheduler::new(&executor, &mut scope, &model).expect("a scheduler");
        Self { executor, model, scheduler, asked: Vec::new(), admissions: 0, random: Random::new(seed) }
    }

    /// A request of an origin at random. Some readers are slow.
    fn ask(&mut self) {
        let random = &mut self.random;
        let context = self.model.options.context;
        let origin: Rc<str> = ["a", "b", "c", "greedy"][random.below(4) as usize].into();
        let task = if random.one_in(12) { Task::Score } else { Task::Continue };
        let priority = if random.one_in(3) { Priority::Background } else { Priority::Foreground };
        let longest = if random.one_in(6) { context - 2 } else { context / 6 };
        let prompt = 2 + random.below(longest - 1);
        // Beginnings are common.
        let beginning = random.below(3);
        let text: Vec<u32> = (0..prompt).map(|i| if i < 48 { beginning } else { 1 + random.below(250) }).collect();
        let continues = task == Task::Continue;
        let max_tokens = if continues { 1 + random.below(context - prompt).min(120) } else { 0 };
        // The device's token ends it at once.
        let stops = continues && random.one_in(8);
        let stop_tokens: Rc<[u32]> = if stops { [0].into() } else { [].into() };
        let namespace = Some(Rc::clone(&origin)).filter(|_| continues);
        let (events, receiver) = events();
        let sampling = Sampler::default();
        let job = Job {
            task,
            prompt: text,
            answered: Vec::new(),
            namespace,
            origin: Rc::clone(&origin),
            priority,
            max_tokens,
            stop_tokens,
            sampling,
            logits: 0,
            events,
        };
        let (tokens, reason) = if stops { (0, FinishReason::Stop) } else { (max_tokens, FinishReason::Length) };
        self.scheduler.push(job);
        let reads = if random.one_in(8) { 1 } else { usize::MAX };
        let job = Expected { origin, task, priority, prompt, tokens, reason };
        self.asked.push(Asked { job, receiver: Some(receiver), reads, admitted: None, tokens: 0, scores: 0, end: None, refused: false });
    }

    /// One step, after which all readers read.
    fn step(&mut self) {
        self.scheduler.step(&self.executor, &self.model).now_or_never().expect("nothing is waited for").expect("the device works");
        for asked in &mut self.asked {
            for _ in 0..asked.reads {
                let Some(receiver) = &mut asked.receiver else { break };
                let Some(Some(event)) = receiver.next().now_or_never() else { break };
                match event {
                    Ok(Event::Admitted(_)) => {
                        assert!(asked.admitted.is_none(), "told once, however often it is preempted");
                        asked.admitted = Some(self.admissions);
                        self.admissions += 1;
                    }
                    Ok(Event::Token(token)) => {
                        assert_eq!(token, 0);
                        asked.tokens += 1;
                    }
                    Ok(Event::Scores(scores)) => asked.scores += scores.len(),
                    Ok(Event::End(reason, timings)) => {
                        assert_eq!((timings.prompt_tokens, timings.completion_tokens), (asked.job.prompt, asked.tokens));
                        asked.end = Some(reason);
                        asked.receiver = None;
                    }
                    Ok(event) => panic!("{event:?}"),
                    Err(error) => {
                        assert!(matches!(*error, EngineError::TooManyRequests { waiting: MAX_WAITING }), "{error}");
                        asked.refused = true;
                        asked.receiver = None;
                    }
                }
            }
        }
    }

    fn cancel_one(&mut self) {
        let open: Vec<usize> = (0..self.asked.len()).filter(|i| self.asked[*i].receiver.is_some()).collect();
        if let Some(i) = open.get(self.random.below(open.len().max(1) as u32) as usize) {
            self.asked[*i].receiver = None;
        }
    }

    fn finish(&mut self) {
        for step in 0.. {
            if self.asked.iter().all(|asked| asked.receiver.is_none()) && self.scheduler.is_empty() {
                break;
            }
            assert!(step < 100_000, "{} requests never end", self.asked.iter().filter(|asked| asked.receiver.is_some()).count());
            self.step();
        }
    }

    /// Every request that nobody cancelled has its whole answer; nothing is left of any.
    fn check(&mut self) -> [usize; 3] {
        let (mut whole, mut refused, mut cancelled) = (0, 0, 0);
        for Asked { job, receiver, tokens, scores, end, refused: was_refused, .. } in &self.asked {
            assert!(receiver.is_none(), "a request of {} tokens never ended", job.prompt);
            match end {
                Some(reason) => {
                    assert_eq!((*reason, *tokens), (job.reason, job.tokens));
                    assert!(job.task == Task::Continue || *scores == job.prompt as usize - 1);
                    whole += 1;
                }
                None if *was_refused => refused += 1,
                None => cancelled += 1,
            }
        }
        let all = self.model.pages.pages * PAGE;
        let table = self.scheduler.pages.admit(None, &[0], all).expect("no page leaked");
        self.scheduler.pages.release(table, &[]);
        [whole, refused, cancelled]
    }

    /// Conversations of an origin and priority are admitted in the order in which they were asked.
    fn check_order(&self) {
        let mut last: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        for asked in &self.asked {
            if let Some(admitted) = asked.admitted.filter(|_| asked.job.task == Task::Continue) {
                let last = last.entry((&asked.job.origin, asked.job.priority == Priority::Background)).or_default();
                assert!(*last <= admitted, "{admitted} before {last} of {}", asked.job.origin);
                *last = admitted;
            }
        }
    }
}

#[test]
fn random_requests_get_their_answers_and_leave_nothing() {
    let mut ends = [0; 3];
    let whole = [(8, 4, 128, 6), (8, 8, 128, 3), (20, 8, 300, 3), (60, 32, 300, 0), (400, 32, 500, 1)];
    let mut servers: Vec<_> =
        (1..).zip(whole).map(|(seed, (pages, n, context, pace))| (Server::new(seed, pages, n, context), pace)).collect();
    // Layers with windows, in fewer pages than the others.
    for (seed, pages) in [(6, 1), (7, 14)] {
        let server = Server::of("olmo3", seed, pages, 8, 500);
        assert!(server.model.pages.windows.is_some_and(|windows| windows.count < server.model.pages.pages));
        servers.push((server, 6));
    }
    for (mut server, pace) in servers {
        for _ in 0..700 {
            server.ask();
            for _ in 0..server.random.below(2 * pace + 1) {
                server.step();
            }
            if server.random.one_in(9) {
                server.cancel_one();
            }
        }
        server.finish();
        for (sum, count) in ends.iter_mut().zip(server.check()) {
            *sum += count;
        }
        server.check_order();
    }
    let [whole, refused, cancelled] = ends;
    assert!(whole > 1_500 && refused > 50 && cancelled > 50, "{ends:?}: the test covers too little");
}

/// A reader that is far behind is waited for, while others get their answers.
#[test]
fn slow_readers_are_waited_for() {
    let mut server = Server::new(1, 32, 2, 512);
    let job = |origin: &str, tokens| {
        let (events, receiver) = events();
        let job = Job {
            task: Task::Continue,
            prompt: vec![1; 40],
            answered: Vec::new(),
            namespace: Some(origin.into()),
            origin: origin.into(),
            priority: Priority::Foreground,
            max_tokens: tokens,
            stop_tokens: [].into(),
            sampling: Sampler::default(),
            logits: 0,
            events,
        };
        (job, receiver)
    };
    let read = |receiver: &mut EventReceiver| {
        let events = std::iter::from_fn(|| receiver.next().now_or_never().flatten());
        events.filter(|event| matches!(event, Ok(Event::Token(_)))).count()
    };
    let (slow, mut unread) = job("slow", 460);
    server.scheduler.push(slow);
    let idle = |server: &mut Server| {
        while server.scheduler.busy() {
            server.step();
        }
    };
    idle(&mut server);
    let waits = |server: &Server| server.scheduler.poll_readers(&Context::from_waker(&noop_waker())).is_pending();
    assert!(waits(&server) && !server.scheduler.is_empty());
    let (quick, mut receiver) = job("quick", 100);
    server.scheduler.push(quick);
    idle(&mut server);
    assert_eq!(read(&mut receiver), 100);
    assert!(waits(&server));
    let tokens = read(&mut unread);
    assert!((200..=300).contains(&tokens), "{tokens} tokens were sent to a reader that did not read");
    assert!(!waits(&server));
    idle(&mut server);
    assert_eq!(tokens + read(&mut unread), 460);
    assert!(server.scheduler.is_empty());
}

/// A device that fails while all kinds of requests run: the next one goes on with them.
#[test]
fn requests_outlive_their_device() {
    let mut server = Server::new(7, 20, 8, 300);
    for number in 0..200 {
        server.ask();
        server.step();
        if number % 40 == 39 {
            let mut next = Server::new(0, 20, 8, 300);
            server.scheduler.hand_over(&mut next.scheduler, EngineError::DeviceLost { reason: "test".to_owned() });
            next.asked = std::mem::take(&mut server.asked);
            (next.admissions, next.random) = (server.admissions, server.random);
            server = next;
        }
    }
    server.finish();
    let [whole, ..] = server.check();
    assert!(whole > 100, "{whole}");
}
