//! Cached prefixes give the same answers as recomputing them, and only within their namespace.
#![allow(missing_docs)]

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use doppler_engine::engine::{Client, Piece, Trace};
use doppler_engine::exec::{Counters, Executor};
use doppler_engine::kernels::{KvFormat, PAGE, Sampler};
use doppler_engine::model::ModelOptions;
use doppler_engine::serve::FinishReason;
use doppler_engine::source;
use doppler_engine::verify::References;
use doppler_tests::{Random, beside, exact, gpu, load, nmse};
use futures::future::{join, join_all};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A tiny llama of random weights: what is cached does not depend on what a model knows.
fn tiny() -> PathBuf {
    fixtures().join("architectures/llama-3.gguf")
}

fn spark() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../extension/models/spark-28m-q8_0.gguf")
}

/// Loads a file and runs `work` beside the engine, with the counters of its device. A part of a prompt is a page.
fn serve<T>(path: &Path, options: ModelOptions, work: impl AsyncFnOnce(Client, Counters) -> T) -> T {
    let source = source::open(path).expect("a file");
    let options = ModelOptions { prefill_rows: PAGE, ..options };
    pollster::block_on(async {
        let executor = Executor::Gpu(Box::new(gpu(&exact())));
        let (mut engine, client) = load(executor, &*source, options).await.expect("a model");
        let counters = engine.executor().counters();
        beside(&mut engine, work(client, counters)).await
    })
}

/// Words at random, the same for the same seed.
fn prompt(seed: u64, tokens: u32) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..tokens).map(|_| 100 + random.below(150)).collect()
}

async fn ask(client: &Client, prompt: &[u32], tokens: u32) -> Trace {
    client.trace(prompt.to_vec(), tokens, 4).await.expect("an answer")
}

/// The same tokens, and logits that differ by rounding at most.
fn check(what: &str, got: &Trace, want: &Trace) {
    assert_eq!(got.tokens, want.tokens, "{what}");
    assert_eq!(got.logits.len(), want.logits.len(), "{what}");
    let error = nmse(&got.logits.concat(), &want.logits.concat());
    println!("{what}: {} of {} tokens were there, normalized error {error:.1e}", got.timings.cached_tokens, got.timings.prompt_tokens);
    assert!(error < 1e-6, "{what}: logits are off by {error:.1e}");
}

/// A conversation goes on: the second prompt is the first with its answer and more. All kinds of cache, a model whose layers see a window.
#[test]
fn prefix_cache_continued_chat_computes_only_new_tokens() {
    let window = fixtures().join("architectures/mistral-window.gguf");
    // An int8 cache changes random attention, which is sharp, by more than the bound: hence a trained model, on a text that it continues.
    let references = std::fs::read(fixtures().join("spark/goldens-q8_0.json")).expect("a fixture");
    let references: References = serde_json::from_slice(&references).expect("references");
    let story = references.prompts.into_iter().find(|r| r.name == "story").expect("a story").prompt_ids;
    let text = prompt(1, 60);
    for (path, kv, first) in
        [(tiny(), KvFormat::F32, &text), (tiny(), KvFormat::F16, &text), (spark(), KvFormat::Q8, &story), (window, KvFormat::F32, &text)]
    {
        let options = ModelOptions { sequences: 2, context: 512, kv, ..ModelOptions::default() };
        serve(&path, options, async |client, counters| {
            let what = format!("{kv:?} {}", client.info().name);
            let mine = client.clone().sharing("mine");
            let answer = ask(&mine, first, 60).await;
            assert!(
                answer.timings.cached_tokens == 0 && answer.tokens.len() >= PAGE as usize / 2,
                "{what}: {} tokens",
                answer.tokens.len()
            );
            let second = [first.as_slice(), &answer.tokens, &prompt(2, 40)].concat();
            // The keys and values of an answer's last token are not written, unless a token was sampled behind it.
            let written = answer.tokens.len() - usize::from(!answer.stopped);
            let there = (first.len() + written) as u32 / PAGE * PAGE;

            let want = ask(&client, &second, 20).await;
            assert_eq!(want.timings.cached_tokens, 0, "{what}: without a namespace");
            assert_eq!(ask(&client.clone().sharing("other"), &second, 1).await.timings.cached_tokens, 0, "{what}: in another namespace");

            let before = counters.get().submissions;
            ask_one(&client, &second).await;
            let whole = counters.get().submissions;
            ask_one(&mine, &second).await;
            let rest = counters.get().submissions;
            let parts = |tokens: u32| u64::from(tokens.div_ceil(PAGE));
            assert_eq!(whole - before, parts(second.len() as u32), "{what}");
            assert_eq!(rest - whole, parts(second.len() as u32 - there), "{what}");
            check(&what, &ask(&mine, &second, 20).await, &want);
        });
    }
}

/// Layers that see a window have fewer pages: a conversation goes on where they still have what its next token sees, and is computed anew
/// where another took it.
#[test]
fn prefix_cache_of_window_layers_ends_where_their_pages_are_gone() {
    // Bytes for all positions of the other layers, and so many pages of the window layers, of which a sequence needs four.
    let mistral = |pages: u64| ("mistral-window", pages * 12_288);
    let gemma = |pages: u64| ("gemma3", 16 * 6_144 + pages * 43_008);
    for ((name, kv_bytes), kept) in [(mistral(10), true), (mistral(4), false), (gemma(10), true), (gemma(4), false)] {
        let path = fixtures().join("architectures").join(name).with_extension("gguf");
        let options = ModelOptions { sequences: 2, context: 512, kv: KvFormat::F32, kv_bytes, ..ModelOptions::default() };
        serve(&path, options, async |client, _| {
            let mine = client.clone().sharing("mine");
            let first = prompt(1, 200);
            let answer = ask(&mine, &first, 60).await;
            let second = [first.as_slice(), &answer.tokens, &prompt(2, 40)].concat();
            // The last token's keys and values are not written.
            let there = (first.len() + answer.tokens.len() - 1) as u32 / PAGE * PAGE;
            assert_eq!(ask(&mine, &second, 20).await.timings.cached_tokens, there, "{name}");
            // Another text takes three pages.
            ask(&client, &prompt(5, 70), 1).await;
            let third = [second.as_slice(), &prompt(3, 70)].concat();
            let got = ask(&mine, &third, 20).await;
            assert_eq!(got.timings.cached_tokens > 0, kept, "{name}: {} tokens", got.timings.cached_tokens);
            check(name, &got, &ask(&client, &third, 20).await);
            // Another beginning of the same conversation, whose positions the first has left behind.
            let branch = [&first[..100], &prompt(4, 60)].concat();
            check(name, &ask(&mine, &branch, 20).await, &ask(&client, &branch, 20).await);
        });
    }
}

/// One token, without its logits: a submission for each prefill chunk.
async fn ask_one(client: &Client, prompt: &[u32]) {
    client.trace(prompt.to_vec(), 1, 0).await.expect("an answer");
}

/// The same kernels on the same values give the same bits.
#[test]
fn prefix_cache_same_prompt_gives_same_bits() {
    serve(&tiny(), ModelOptions { sequences: 2, context: 512, ..ModelOptions::default() }, async |client, _| {
        let mine = client.sharing("mine");
        for tokens in [1, PAGE - 1, PAGE, PAGE + 1, 200, 7 * PAGE] {
            let prompt = prompt(u64::from(tokens), tokens);
            let [first, second] = [ask(&mine, &prompt, 4).await, ask(&mine, &prompt, 4).await];
            assert_eq!((first.timings.cached_tokens, second.timings.cached_tokens), (0, (tokens - 1) / PAGE * PAGE));
            assert!(first.tokens == second.tokens && first.logits == second.logits, "{tokens} tokens");
        }
    });
}

/// Live sequences share the prefix that another left and the one that they compute at the same time, and differ behind it.
#[test]
fn prefix_cache_shares_pages_of_live_sequences() {
    serve(&tiny(), ModelOptions { sequences: 4, context: 512, ..ModelOptions::default() }, async |client, _| {
        let texts: Vec<Vec<u32>> = (0..4).map(|i| [prompt(1, 100), prompt(10 + i, 30 + i as u32)].concat()).collect();
        let mut want = Vec::new();
        for text in &texts {
            want.push(ask(&client, text, 12).await);
        }
        let [left, at_once] = ["left", "at once"].map(|namespace| client.clone().sharing(namespace));
        ask_one(&left, &texts[0][..100]).await;
        for (mine, cached) in [(left, 96), (at_once.clone(), 0), (at_once, 128)] {
            let got = join_all(texts.iter().map(|text| ask(&mine, text, 12))).await;
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                check(&format!("sequence {i}"), got, want);
                assert_eq!(got.timings.cached_tokens, cached, "sequence {i}");
            }
        }
    });
}

/// Pages that a request had computed before it was cancelled are shared.
#[test]
fn prefix_cache_shares_pages_of_cancelled_request() {
    serve(&tiny(), ModelOptions { sequences: 2, ..ModelOptions::default() }, async |client, _| {
        let mine = client.clone().sharing("mine");
        let (short, long) = (prompt(1, 70), prompt(2, 300));
        let greedy = Sampler::default;
        // The other sequence decodes between the chunks of the long prompt: after some of its tokens some chunks are computed.
        let mut other = mine.complete(short.clone(), Some(300), greedy(), &[]).expect("accepted");
        let dropped = mine.complete(long.clone(), Some(50), greedy(), &[]).expect("accepted");
        for _ in 0..2 {
            let piece = other.next().await.expect("text").expect("no error");
            assert!(matches!(piece, Piece::Text(_)), "the answer is too short for the test");
        }
        drop((dropped, other));
        let (got, want) = (ask(&mine, &long, 8).await, ask(&client, &long, 8).await);
        check("in prefill", &got, &want);
        assert!((PAGE..300 / PAGE * PAGE).contains(&got.timings.cached_tokens), "{}", got.timings.cached_tokens);
        let (got, want) = (ask(&mine, &short, 8).await, ask(&client, &short, 8).await);
        check("in decode", &got, &want);
        assert_eq!(got.timings.cached_tokens, 64);
    });
}

/// A cache with room for one sequence: the least recently used pages are evicted, leaves first.
#[test]
fn prefix_cache_small_evicts_least_recently_used() {
    let options = ModelOptions { sequences: 3, context: 256, kv_bytes: 0, ..ModelOptions::default() };
    serve(&tiny(), options, async |client, _| {
        let mine = client.clone().sharing("mine");
        let texts: Vec<Vec<u32>> = (0..3).map(|i| prompt(i, 150)).collect();
        let mut want = Vec::new();
        for text in &texts {
            want.push(ask(&client, text, 4).await);
        }
        // Each uses five of eight pages and leaves four.
        for (text, cached) in [(0, 0), (1, 0), (1, 128), (0, 96), (1, 96), (2, 0), (0, 0)] {
            let got = ask(&mine, &texts[text], 4).await;
            check(&format!("text {text}"), &got, &want[text]);
            assert_eq!(got.timings.cached_tokens, cached, "text {text}");
        }
        // Sequences that do not fit together wait.
        for (i, got) in join_all(texts.iter().map(|text| ask(&mine, text, 4))).await.iter().enumerate() {
            check(&format!("text {i}, all at once"), got, &want[i]);
        }
    });
}

/// A cache with room for one long answer, and three requests: two are admitted, the more recent one is preempted and recomputed later, and
/// each answer is the same as alone.
#[test]
fn answers_outgrowing_cache_are_preempted_and_recomputed() {
    const TOKENS: u32 = 300;
    let options = ModelOptions { sequences: 3, context: 384, kv_bytes: 0, ..ModelOptions::default() };
    serve(&fixtures().join("architectures/gpt2.gguf"), options, async |client, counters| {
        let penalties = Sampler { presence_penalty: 0.5, frequency_penalty: 0.2, repetition_penalty: 1.1, ..Default::default() };
        let log = RefCell::new(Vec::new());
        let answer = async |client: &Client, i: u32| {
            let mut completion = client.complete(prompt(u64::from(i), 10), Some(TOKENS), penalties, &[]).expect("accepted");
            let mut text = String::new();
            loop {
                let piece = completion.next().await.expect("an end").expect("no error");
                log.borrow_mut().push((i, matches!(piece, Piece::End(..))));
                match piece {
                    Piece::Text(more) => text += &more,
                    Piece::End(reason, timings) => return (text, reason, timings.completion_tokens),
                }
            }
        };
        let mut alone = Vec::new();
        for i in 0..3 {
            alone.push(answer(&client, i).await);
            assert_eq!(alone[i as usize].2, TOKENS, "the text is too short for the test: {alone:?}");
        }
        for client in [client.clone(), client.sharing("mine")] {
            let before = counters.get().submissions;
            log.borrow_mut().clear();
            assert_eq!(join_all((0..3).map(|i| answer(&client, i))).await, alone);
            println!("{} submissions", counters.get().submissions - before);
            let log = log.borrow();
            let first_end = log.iter().position(|(_, end)| *end).expect("an end");
            assert_eq!(log[first_end].0, 0, "who came first is through first");
            assert_eq!([1, 2].map(|i| log[..first_end].contains(&(i, false))), [true, false], "what has begun by then");
        }
    });
}

/// An answer that ends at a stop string reports its cached tokens too.
#[test]
fn stopped_answer_reports_cached_tokens() {
    serve(&spark(), ModelOptions { sequences: 2, context: 512, ..ModelOptions::default() }, async |client, _| {
        let mine = client.sharing("mine");
        let messages = serde_json::json!([{ "role": "user", "content": "Who are you? ".repeat(20) }]);
        let prompt = mine.encode_chat(&messages, None).expect("a prompt");
        let answer = async || {
            let mut completion = mine.complete(prompt.clone(), None, Sampler::default(), &["a".to_owned()]).expect("accepted");
            loop {
                if let Piece::End(reason, timings) = completion.next().await.expect("an end").expect("no error") {
                    return (reason, timings.cached_tokens);
                }
            }
        };
        assert_eq!(answer().await, (FinishReason::Stop, 0));
        assert_eq!(answer().await, (FinishReason::Stop, (prompt.len() as u32 - 1) / PAGE * PAGE));
        let (a, b) = join(answer(), answer()).await;
        assert_eq!(a, b);
    });
}
