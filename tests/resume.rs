//! Answers go on from the tokens that they have when the device, or the whole engine, is lost.
#![allow(missing_docs)]

use std::path::Path;
use std::pin::pin;
use std::rc::Rc;

use doppler_engine::api::ChatRequest;
use doppler_engine::engine::{Client, Engine, Piece};
use doppler_engine::error::EngineError;
use doppler_engine::kernels::{KvFormat, PAGE, Sampler};
use doppler_engine::model::ModelOptions;
use doppler_engine::source;
use doppler_tests::{Random, beside, device, exact, load, serve};
use futures::future::{Either, join_all, select};
use futures::join;
use serde_json::json;

fn lost() -> EngineError {
    EngineError::DeviceLost { reason: "the test says so".to_owned() }
}

/// An engine and its client on a device of their own, of a tiny llama of random weights. A part of a prompt is a page.
async fn tiny() -> (Engine, Client) {
    let source = source::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures/llama-3.gguf")).expect("a file");
    let options = ModelOptions { sequences: 4, context: 512, prefill_rows: PAGE, kv: KvFormat::F32, ..ModelOptions::default() };
    load(device(&exact()), &*source, options).await.expect("a model")
}

/// Runs `work` beside an engine whose device is lost so many times, after some steps each.
async fn beside_losses<T>(mut engine: Engine, losses: u32, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    for loss in 0..losses {
        match select(work.as_mut(), select(pin!(steps(5 + 3 * loss)), pin!(engine.serve()))).await {
            Either::Left((value, _)) => return value,
            Either::Right((Either::Left(_), _)) => {}
            Either::Right((Either::Right((result, _)), _)) => panic!("the engine ended: {result:?}"),
        }
        let (mut next, _) = tiny().await;
        next.take_over(engine, lost()).expect("the same model");
        engine = next;
    }
    beside(&mut engine, work).await
}

/// Resolves when it was polled so often: the engine is polled as often.
async fn steps(count: u32) {
    let mut left = count;
    std::future::poll_fn(|context| {
        left = left.saturating_sub(1);
        context.waker().wake_by_ref();
        if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn prompt(seed: u64, tokens: u32) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..tokens).map(|_| 100 + random.below(150)).collect()
}

async fn answer(client: &Client, prompt: Vec<u32>, sampling: Sampler) -> Result<(String, u32), Rc<EngineError>> {
    let mut completion = client.complete(prompt, Some(60), sampling, &[]).expect("accepted");
    let mut text = String::new();
    loop {
        match completion.next().await.expect("an end")? {
            Piece::Text(more) => text += &more,
            Piece::End(_, timings) => return Ok((text, timings.completion_tokens)),
        }
    }
}

#[test]
fn lost_device_leaves_answers_and_scores_as_they_are() {
    pollster::block_on(async {
        let random = Sampler { temperature: 0.7, seed: 5, ..Sampler::default() };
        let work = async |client: Client| {
            let mine = client.clone().sharing("mine");
            // More than run at once: some wait. The last one's prompt takes many steps.
            let asked =
                [(1, 30, Sampler::default()), (2, 40, random), (3, 70, Sampler::default()), (4, 20, random), (5, 400, Sampler::default())];
            let answers = join_all(asked.map(|(seed, tokens, sampling)| answer(&mine, prompt(seed, tokens), sampling)));
            let (answers, scores) = join!(answers, client.score(prompt(6, 50)));
            (answers.into_iter().map(|answer| answer.expect("an answer")).collect::<Vec<_>>(), scores.expect("scores"))
        };
        let (mut engine, client) = tiny().await;
        let (want, scores) = beside(&mut engine, work(client)).await;
        let (engine, client) = tiny().await;
        let (got, got_scores) = beside_losses(engine, 2, work(client)).await;
        assert_eq!(got, want);
        assert_eq!(got_scores.len(), scores.len());
        assert!(got_scores.iter().zip(&scores).all(|(got, want)| (got - want).abs() < 1e-4), "{got_scores:?} {scores:?}");
    });
}

#[test]
fn third_loss_ends_the_requests_that_ran() {
    pollster::block_on(async {
        let (engine, client) = tiny().await;
        let error = beside_losses(engine, 3, answer(&client, prompt(1, 400), Sampler::default())).await.expect_err("an error");
        assert_eq!(error.code(), "device_lost");
    });
}

#[test]
fn resumed_chat_gives_the_rest() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extension/models/spark-28m-q8_0.gguf");
    serve(&exact(), &model, ModelOptions { sequences: 4, context: 512, ..ModelOptions::default() }, async |client| {
        for more in [json!({}), json!({ "stop": "tiny lang" }), json!({ "max_tokens": 5 })] {
            let mut request = json!({ "messages": [{ "role": "user", "content": "Who are you?" }], "temperature": 0, "max_tokens": 12 });
            request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let request = ChatRequest::parse(&request).expect("valid");
            // The text and the tokens up to each piece.
            let mut parts = vec![(String::new(), Vec::new())];
            let mut completion = client.chat(&request).await.expect("accepted");
            let (reason, count) = loop {
                match completion.next_burst().await.expect("an end").expect("no error") {
                    Piece::Text(more) => {
                        let (text, tokens) = parts.last().expect("one").clone();
                        parts.push((text + &more, [tokens, completion.take_tokens()].concat()));
                    }
                    Piece::End(reason, timings) => break (reason, timings.completion_tokens),
                }
            };
            let whole = parts.last().expect("one").0.clone();
            assert!(parts.len() > 2, "{whole:?} came at once");
            let every = parts.len().div_ceil(2);
            let last = parts.len() - 1;
            for (before, tokens) in parts.into_iter().enumerate().filter(|(i, _)| i % every == 1 || *i == last).map(|(_, part)| part) {
                let (mut completion, told) = client.resume_chat(&request, &tokens).await.expect("accepted");
                assert_eq!(told, before);
                let mut text = told;
                loop {
                    match completion.next_burst().await.expect("an end").expect("no error") {
                        Piece::Text(more) => text += &more,
                        Piece::End(why, timings) => {
                            assert_eq!((why, timings.completion_tokens), (reason, count), "{text:?}");
                            break;
                        }
                    }
                }
                assert_eq!(text, whole);
            }
        }
        let request = ChatRequest::parse(&json!({ "messages": [{ "role": "user", "content": "Hi" }] })).expect("valid");
        let error = client.resume_chat(&request, &[u32::MAX]).await.expect_err("no such token");
        assert_eq!(error.code(), "invalid_request");
    });
}
