//! Prompts on the thread that all requests share: refused by their length, given up, and in turns. What is counted are turns of the
//! thread, not time; the engine itself does not run.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use doppler_engine::api::ChatRequest;
use doppler_engine::engine::{Client, Completion, Engine};
use doppler_engine::error::EngineError;
use doppler_engine::exec::{DryRun, Executor};
use doppler_engine::kernels::Capabilities;
use doppler_engine::model::ModelOptions;
use doppler_engine::source;
use futures::FutureExt;
use serde_json::json;

/// Bytes of a text that might fit by its length, and takes some slices.
const LONG: usize = 30_000;

/// Turns that no test comes near unless something waits for ever.
const FOR_EVER: usize = 100_000;

/// A client of Spark with a context of so many tokens.
fn client(context: u32) -> Client {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../extension/models/spark-28m-q8_0.gguf");
    let source = source::open(&path).expect("a file");
    let options = ModelOptions { context, ..ModelOptions::default() };
    let executor = Executor::Dry(DryRun::new(Capabilities::BASELINE));
    let loaded = Engine::load(executor, "spark", &*source, options, &mut |_| {}).now_or_never().expect("no waiting");
    loaded.map_err(|(_, error)| error).expect("a model").1
}

fn ask(content: &str) -> ChatRequest {
    ChatRequest::parse(&json!({ "messages": [{ "role": "user", "content": content }] })).expect("a request")
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Completion, EngineError>> + 'a>>;

fn turn<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    future.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

/// Turns that a request takes alone.
fn turns(client: &Client, request: &ChatRequest) -> usize {
    let mut answer: Answer<'_> = Box::pin(client.chat(request));
    (1..FOR_EVER).find(|_| turn(&mut answer).is_ready()).expect("an end")
}

#[test]
fn encoding_text_beyond_context_is_refused_early() {
    let client = client(512);
    for part in ["x", " ", "é", "<|im_end|>", "a b\n"] {
        let request = ask(&part.repeat(1_000_000 / part.len()));
        let mut answer: Answer<'_> = Box::pin(client.chat(&request));
        // Only the rendering of the template is paid for by some turns.
        let (count, result) =
            (1..FOR_EVER).find_map(|n| if let Poll::Ready(result) = turn(&mut answer) { Some((n, result)) } else { None }).expect("an end");
        let error = result.expect_err("too long");
        let EngineError::ContextExceeded { requested, at_least: true, quota: 512 } = error else { panic!("{part:?}: {error}") };
        assert!(requested > 511 && error.to_string().contains("at least"), "{error}");
        assert!(count < 20, "{part:?}: {count} turns");
    }
}

#[test]
fn encoding_long_text_can_be_cancelled() {
    let client = client(2048);
    let long = ask(&"x".repeat(LONG));
    let whole = turns(&client, &long);
    assert!(whole >= 3, "{whole} turns");
    let mut given_up: Answer<'_> = Box::pin(client.chat(&long));
    assert!(turn(&mut given_up).is_pending() && turn(&mut given_up).is_pending());
    drop(given_up);
    // Its turn is free again.
    assert_eq!(turns(&client, &ask("hello")), 1);
    assert_eq!(turns(&client, &long), whole);
}

/// However many long texts one origin sends, each of another's slices waits for one of them.
#[test]
fn encoding_alternates_between_origins() {
    let client = client(2048);
    let long = ask(&"x".repeat(LONG));
    let short = ask(&"y".repeat(LONG / 2));
    let (attacker, other) = (client.clone().sharing("https://one.test"), client.clone().sharing("https://other.test"));
    let alone = turns(&other, &short);
    assert!(alone >= 2, "{alone} turns");
    let mut attacks: Vec<Answer<'_>> = (0..20).map(|_| Box::pin(attacker.chat(&long)) as Answer<'_>).collect();
    let mut answer: Answer<'_> = Box::pin(other.chat(&short));
    let mut slices = 0;
    for n in 1..FOR_EVER {
        // What a turn of the thread runs: whatever is awake, the attacks first.
        attacks.retain_mut(|attack| turn(attack).is_pending());
        slices += 1;
        if turn(&mut answer).is_ready() {
            assert!(n <= alone + 1, "{n} turns beside others, {alone} alone");
            assert!(attacks.len() >= 18, "{} of 20 left", attacks.len());
            return;
        }
    }
    panic!("no answer after {slices} turns");
}

/// Many short requests of one origin that came together do not make one long turn of the thread.
#[test]
fn encoding_of_one_origin_is_sequential() {
    let client = client(2048).sharing("https://one.test");
    let long = ask(&"x".repeat(LONG));
    let hello = ask("hello");
    let mut first: Answer<'_> = Box::pin(client.chat(&long));
    assert!(turn(&mut first).is_pending());
    let mut waiting: Vec<Answer<'_>> = (0..5).map(|_| Box::pin(client.chat(&hello)) as Answer<'_>).collect();
    for answer in &mut waiting {
        assert!(turn(answer).is_pending(), "it waits for its origin's turn");
    }
    while turn(&mut first).is_pending() {}
    let mut left = Vec::new();
    while !waiting.is_empty() {
        waiting.retain_mut(|answer| turn(answer).is_pending());
        left.push(waiting.len());
        assert!(left.len() < FOR_EVER);
    }
    assert!(left.len() >= 5, "{left:?}");
}
