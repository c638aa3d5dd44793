//! Whole models against Hugging Face transformers, and what must happen when a file or a request is bad.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use doppler_engine::engine::{Client, Completion, Engine, Piece};
use doppler_engine::error::EngineError;
use doppler_engine::exec::{Cpu, Executor, gpu::GpuOptions};
use doppler_engine::formats::DType;
use doppler_engine::kernels::{AttentionTier, Capabilities, KvFormat, Sampler, Tuning};
use doppler_engine::model::{ModelOptions, read_checkpoint};
use doppler_engine::serve::FinishReason;
use doppler_engine::source::{FileSource, MemorySource};
use doppler_engine::verify::{Comparison, Reference, References, compare};
use doppler_tests::{beside, devices, exact, gpu, load, serve};
use futures::future::join_all;
use half::f16;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn spark_file() -> PathBuf {
    root().join("extension/models/spark-28m-q8_0.gguf")
}

fn spark_references() -> Vec<Reference> {
    references("spark/goldens-q8_0.json")
}

fn references(name: &str) -> Vec<Reference> {
    let path = root().join("tests/fixtures").join(name);
    let references: References = serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("references");
    references.prompts
}

async fn text_of(mut completion: Completion) -> Result<(String, FinishReason), Rc<EngineError>> {
    let mut text = String::new();
    loop {
        match completion.next().await.expect("an end")? {
            Piece::Text(more) => text.push_str(&more),
            Piece::End(reason, _) => return Ok((text, reason)),
        }
    }
}

async fn compare_all(client: &Client, references: &[Reference]) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for reference in references {
        comparisons.push(compare(client, reference).await.expect("an answer"));
    }
    comparisons
}

/// Text and ids equal; greedy equal but for near-ties; logits within `bound`.
fn check(what: &str, comparisons: &[Comparison], bound: f32) {
    let mut near_ties = 0;
    for c in comparisons {
        assert!(c.text_equal, "{what}: the template's text of {} differs", c.name);
        assert!(c.prompt_equal, "{what}: the prompt ids of {} differ", c.name);
        if !c.greedy_equal {
            println!("{what}: {} differs after {} of {} tokens, margin {}", c.name, c.matching, c.expected, c.min_margin);
            assert!(c.min_margin < 1e-3, "{what}: {} differs and is no near-tie", c.name);
            near_ties += 1;
        }
        if let Some(error) = c.logit_error {
            assert!(error <= bound, "{what}: logits of {} are off by {error:.1e}", c.name);
        }
    }
    assert!(near_ties <= 2, "{what}: {near_ties} near-ties");
}

/// Single precision, no features: transformers' logits within 2e-3. A third of the prompts; a browser with a GPU runs all of them so.
#[test]
fn spark_equals_transformers_in_f32() {
    let (_, plain) = devices().swap_remove(1);
    let options = ModelOptions { sequences: 1, kv: KvFormat::F32, ..ModelOptions::default() };
    let some: Vec<Reference> = spark_references().into_iter().step_by(3).collect();
    let comparisons = serve(&plain, &spark_file(), options, async |client| compare_all(&client, &some).await);
    check("f32", &comparisons, 2e-3);
}

/// The prefill kernels of a discrete GPU: int8 activations, split attention, steps of 512 rows; with half precision and subgroups.
fn capable() -> GpuOptions {
    let tuning = Tuning { matmul_int8: true, prefill_workgroups: 1024, prefill_rows: 512, ..Tuning::of(None, false) };
    GpuOptions { tuning: Some(tuning), ..GpuOptions::default() }
}

#[test]
fn spark_equals_transformers_with_all_features() {
    let comparisons =
        serve(&capable(), &spark_file(), ModelOptions::default(), async |client| compare_all(&client, &spark_references()).await);
    check("all features", &comparisons, 2e-2);
}

/// WebGPU's default limits, and bindings so small that matrices come in slabs.
#[test]
fn spark_fits_small_limits() {
    let (_, baseline) = devices().swap_remove(2);
    for max_binding in [128 << 20, 2 << 20] {
        let limits = GpuOptions { max_binding: Some(max_binding), ..baseline.clone() };
        let options = ModelOptions { sequences: 1, context: 512, prefill_rows: 64, ..ModelOptions::default() };
        let some: Vec<Reference> = spark_references().into_iter().filter(|r| r.prompt_ids.len() < 160).step_by(4).collect();
        let comparisons = serve(&limits, &spark_file(), options, async |client| compare_all(&client, &some).await);
        check(&format!("{max_binding} bytes a binding"), &comparisons, 2e-3);
    }
}

/// Both executors, on every tier of attention.
#[test]
fn cpu_executor_equals_gpu() {
    let reference = spark_references().into_iter().min_by_key(|r| r.prompt_ids.len()).expect("one");
    let source = FileSource::open(&spark_file()).expect("a file");
    for tier in [AttentionTier::Small, AttentionTier::Streaming] {
        pollster::block_on(async {
            let options = ModelOptions { sequences: 1, context: 64, kv: KvFormat::F32, ..ModelOptions::default() };
            let gpu = load(Executor::Gpu(Box::new(gpu(&exact()))), &source, options).await;
            let cpu = load(Executor::Cpu(Cpu::new(Capabilities::BASELINE)), &source, options).await;
            let mut logits = Vec::new();
            for loaded in [gpu, cpu] {
                let (mut engine, client) = loaded.expect("a model");
                engine.parts().1.set_attention_tier(tier);
                let trace = beside(&mut engine, client.trace(reference.prompt_ids.clone(), 2, 2)).await.expect("a trace");
                logits.push(trace.logits.concat());
            }
            let error = doppler_tests::nmse(&logits[0], &logits[1]);
            assert!(error < 1e-5, "{tier:?}: normalized error {error:.1e}");
        });
    }
}

/// Sequences of different lengths in one batch give what each gives alone.
#[test]
fn sequences_in_one_batch_equal_single_answers() {
    let some: Vec<Reference> = spark_references().into_iter().filter(|r| r.prompt_ids.len() < 160 && r.stop == "eos").take(11).collect();
    // Eight places for eleven sequences: three wait.
    let options = ModelOptions { prefill_rows: 48, ..ModelOptions::default() };
    serve(&exact(), &spark_file(), options, async |client| {
        let all = some.iter().map(|r| client.trace(r.prompt_ids.clone(), r.continuation_ids.len() as u32, 0));
        for (trace, reference) in join_all(all).await.into_iter().zip(&some) {
            let tokens = trace.expect("an answer").tokens;
            assert_eq!(tokens, reference.continuation_ids[..reference.continuation_ids.len() - 1], "{}", reference.name);
        }
    });
}

/// A seed is the same tokens, alone or in a batch with other ways to sample; another seed is others.
#[test]
fn sampling_is_reproducible() {
    let hot = |seed, top_k| Sampler { temperature: 3.0, top_k, seed, ..Sampler::default() };
    serve(&GpuOptions::default(), &spark_file(), ModelOptions::default(), async |client| {
        let ask = |options| client.complete(vec![1, 2, 284, 204, 1469], Some(12), options, &[]).map(text_of).expect("accepted");
        let (greedy, _) = ask(Sampler::default()).await.expect("an answer");
        for (top_k, other) in [(50, 0), (0, 50)] {
            let (alone, _) = ask(hot(1, top_k)).await.expect("an answer");
            let batch = join_all([ask(hot(2, top_k)), ask(hot(1, top_k)), ask(Sampler::default()), ask(hot(3, other))]).await;
            let texts: Vec<String> = batch.into_iter().map(|r| r.expect("an answer").0).collect();
            assert_eq!((&texts[1], &texts[2]), (&alone, &greedy));
            assert!(texts[0] != alone && texts[3] != alone && texts[0] != texts[3], "{texts:?}");
        }
    });
}

/// Text that came while nobody read is one piece, and the end is not lost behind it.
#[test]
fn next_burst_joins_available_text() {
    serve(&GpuOptions::default(), &spark_file(), ModelOptions::default(), async |client| {
        let prompt = spark_references()[0].prompt_ids.clone();
        let ask = |tokens| client.complete(prompt.clone(), Some(tokens), Sampler::default(), &[]).expect("accepted");
        let mut short = ask(4);
        // It is in the same batch and longer.
        text_of(ask(9)).await.expect("text");
        assert!(matches!(short.next_burst().await, Some(Ok(Piece::Text(text))) if text == "I am Spark,"));
        assert!(matches!(short.next_burst().await, Some(Ok(Piece::End(FinishReason::Length, timings))) if timings.completion_tokens == 4));
        assert!(short.next_burst().await.is_none());
    });
}

/// Penalties reach tokens of the prompt and of the answer.
#[test]
fn penalties_prevent_repetition() {
    let options = Sampler { frequency_penalty: 2.0, presence_penalty: 2.0, repetition_penalty: 5.0, ..Sampler::default() };
    serve(&GpuOptions::default(), &spark_file(), ModelOptions::default(), async |client| {
        let prompt = spark_references()[0].prompt_ids.clone();
        let (plain, _) =
            text_of(client.complete(prompt.clone(), Some(40), Sampler::default(), &[]).expect("accepted")).await.expect("text");
        let (penalized, _) = text_of(client.complete(prompt.clone(), Some(40), options, &[]).expect("accepted")).await.expect("text");
        // The place is used again: what was counted before is gone.
        let (again, _) = text_of(client.complete(prompt, Some(40), Sampler::default(), &[]).expect("accepted")).await.expect("text");
        assert_ne!(plain, penalized);
        assert_eq!(plain, again);
    });
}

#[test]
fn requests_end_at_limits_and_stop_strings() {
    serve(&GpuOptions::default(), &spark_file(), ModelOptions { context: 64, ..ModelOptions::default() }, async |client| {
        let prompt = spark_references()[0].prompt_ids.clone();
        let ask = |max_tokens, stop: &[&str]| {
            let stop: Vec<String> = stop.iter().map(|s| (*s).to_owned()).collect();
            text_of(client.complete(prompt.clone(), max_tokens, Sampler::default(), &stop).expect("accepted"))
        };
        assert_eq!(ask(Some(4), &[]).await.expect("text"), ("I am Spark,".to_owned(), FinishReason::Length));
        assert_eq!(ask(None, &[" tiny"]).await.expect("text"), ("I am Spark, a".to_owned(), FinishReason::Stop));
        assert_eq!(ask(None, &[]).await.expect("text").1, FinishReason::Stop);
        // One position is left: one token.
        let trace = client.trace(vec![300; 63], 1, 0).await.expect("a trace");
        assert!(trace.tokens.len() <= 1);
        let error = client.complete(vec![300; 64], None, Sampler::default(), &[]).expect_err("too long");
        assert!(matches!(error, EngineError::ContextExceeded { requested: 64, at_least: false, quota: 64 }), "{error}");
        assert_eq!(error.dom_name(), "QuotaExceededError");
    });
}

/// A dropped request frees its place, in prefill and in decode, and others go on.
#[test]
fn dropped_requests_free_their_slot() {
    let options = ModelOptions { sequences: 2, prefill_rows: 32, ..ModelOptions::default() };
    serve(&GpuOptions::default(), &spark_file(), options, async |client| {
        let greedy = Sampler::default;
        for round in 0..4 {
            let mut dropped = client.complete(vec![300; 100], Some(8), Sampler::default(), &[]).expect("accepted");
            let mut story = client.complete(spark_references()[0].prompt_ids.clone(), None, greedy(), &[]).expect("accepted");
            assert!(story.next().await.is_some());
            if round % 2 == 0 {
                let _ = dropped.next().await;
            }
            drop((dropped, story));
        }
        let (text, _) =
            text_of(client.complete(spark_references()[0].prompt_ids.clone(), None, greedy(), &[]).expect("accepted")).await.expect("text");
        assert!(text.starts_with("I am Spark"), "{text}");
    });
}

/// A usual request waits for no pipeline: all were made while the model was loaded.
#[test]
fn load_prepares_all_pipelines() {
    let source = FileSource::open(&spark_file()).expect("a file");
    pollster::block_on(async {
        let device = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
        let (mut engine, client) = load(device, &source, ModelOptions::default()).await.expect("a model");
        let pipelines = |engine: &Engine| if let Executor::Gpu(gpu) = engine.executor() { gpu.pipeline_count() } else { 0 };
        let before = pipelines(&engine);
        assert!(before > 0);
        beside(&mut engine, client.trace(vec![300; 40], 8, 0)).await.expect("tokens");
        assert_eq!(pipelines(&engine), before);
    });
}

/// Every kind of bad file is a named error, and the device serves on with all its memory.
#[test]
fn load_bad_file_fails_without_leaks() {
    let good = std::fs::read(spark_file()).expect("a file");
    let mut executor = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
    let patched = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).expect("present");
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("truncated", good[..good.len() / 2].to_vec(), "DataError"),
        ("truncated in the header", good[..5000].to_vec(), "DataError"),
        ("not a model", b"<!doctype html><title>404</title>".to_vec(), "DataError"),
        ("empty", Vec::new(), "DataError"),
        (
            "another architecture",
            patched(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama", b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba"),
            "NotSupportedError",
        ),
        ("a missing tensor", patched(b"blk.3.ffn_down.weight", b"blk.3.ffn_gown.weight"), "DataError"),
    ];
    for (what, bytes, name) in cases {
        let source = MemorySource::new("bad.gguf", bytes);
        let loaded = pollster::block_on(Engine::load(executor, "bad", &source, ModelOptions::default(), &mut |_| {}));
        let Err((returned, error)) = loaded else { panic!("{what}: accepted") };
        println!("{what}: {error}");
        assert_eq!(error.dom_name(), name, "{what}: {error}");
        assert_eq!(returned.allocated_bytes(), 0, "{what}");
        executor = returned;
    }
    let source = MemorySource::new("good.gguf", good);
    let (engine, _client) = pollster::block_on(load(executor, &source, ModelOptions::default())).expect("the good file still loads");
    assert_eq!(engine.unload().allocated_bytes(), 0);
}

/// A base model has no template: it loads and continues text, and says why it cannot chat.
#[test]
fn model_without_template_continues_text() {
    let good = std::fs::read(spark_file()).expect("a file");
    let mut executor = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
    for (from, to, message) in [
        ("tokenizer.chat_template", "tokenizer.chat_template".replace('t', "T"), "no chat template"),
        ("{%", "{{".to_owned(), "template cannot be used"),
    ] {
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).expect("present");
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        let source = MemorySource::new("base.gguf", bytes);
        executor = pollster::block_on(async {
            let (mut engine, client) = load(executor, &source, ModelOptions::default()).await.expect("it loads");
            let messages = serde_json::json!([{ "role": "user", "content": "hi" }]);
            let error = client.encode_chat(&messages, None).expect_err("no chat").to_string();
            assert!(error.contains(message), "{error}");
            let completion = client.complete(spark_references()[0].prompt_ids.clone(), Some(8), Sampler::default(), &[]).expect("accepted");
            let (text, _) = beside(&mut engine, text_of(completion)).await.expect("text");
            assert!(text.starts_with("I am Spark"), "{text}");
            engine.unload()
        });
    }
}

/// Small random models in the other weight formats: `tests/fixtures/tiny/make_tiny.py`.
#[test]
fn weight_formats_equal_transformers() {
    for name in ["f32", "f16", "bf16", "q4_0", "q4_k", "q6_k"] {
        let path = root().join(format!("tests/fixtures/tiny/tiny-{name}.gguf"));
        let references = references(&format!("tiny/tiny-{name}.json"));
        let (_, plain) = devices().swap_remove(1);
        // Weights of bytes are multiplied with x in 15 bits of the largest of 32 elements.
        // A capable device reads prompts with x in bytes, whose rounding such random, sharp models multiply: 3.5e-4 normalized.
        let [exact, rounded] = if name.starts_with('q') { [3e-4, 5e-2] } else { [2e-5, 2e-2] };
        for (device, kv, bound, near_tie) in [(plain, KvFormat::F32, exact, 1e-3), (capable(), KvFormat::F16, rounded, rounded)] {
            let options = ModelOptions { sequences: 1, prefill_rows: 32, kv, ..ModelOptions::default() };
            serve(&device, &path, options, async |client| {
                for reference in &references {
                    let steps = reference.top20_logits.len() as u32;
                    let trace =
                        client.trace(reference.prompt_ids.clone(), reference.continuation_ids.len() as u32, steps).await.expect("a trace");
                    let stops = reference.stop == "eos";
                    let expected = &reference.continuation_ids[..reference.continuation_ids.len() - usize::from(stops)];
                    let same = trace.tokens.iter().zip(expected).take_while(|(a, b)| a == b).count();
                    let equal = same == expected.len() && trace.stopped == stops;
                    assert!(equal || reference.min_margin < near_tie, "{name}: {same} tokens equal");
                    for (got, want) in trace.logits.iter().zip(&reference.top20_logits).take(same + 1) {
                        let scale = want.iter().map(|(_, l)| l.abs()).fold(0.0, f32::max);
                        for (token, logit) in want {
                            let error = (got[*token as usize] - logit).abs() / scale;
                            assert!(error <= bound, "{name}: logit {token} is {} instead of {logit}", got[*token as usize]);
                        }
                    }
                }
            });
        }
    }
}

/// The plan is what the device then gives, to the byte; too little memory is refused with a context that does fit.
#[test]
fn memory_plan_equals_allocation() {
    use doppler_engine::plan::{largest_context, plan};
    let source = FileSource::open(&spark_file()).expect("a file");
    let checkpoint = pollster::block_on(read_checkpoint(&source)).expect("a model");
    let options = ModelOptions { sequences: 2, ..ModelOptions::default() };
    let device = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
    let planned = plan(&checkpoint, device.capabilities(), options).expect("a plan");
    let (engine, client) = pollster::block_on(load(device, &source, options)).expect("a model");
    assert_eq!(planned.memory.total(), engine.executor().allocated_bytes());
    assert_eq!(planned.memory, client.info().memory);
    assert_eq!((planned.context, planned.sequences), (2048, 2));

    let memory = planned.memory.weights + 10_000_000;
    let small = GpuOptions { memory: Some(memory), ..GpuOptions::default() };
    let device = Executor::Gpu(Box::new(gpu(&small)));
    let fitting = largest_context(&checkpoint, device.capabilities(), options, memory).expect("a plan").expect("a context");
    let Err(error) = pollster::block_on(load(device, &source, options)) else { panic!("it cannot fit") };
    println!("{error}");
    let EngineError::OutOfMemory { memory: needed, fitting: Some(offered), available: Some(available), .. } = error else {
        panic!("{error}")
    };
    assert_eq!((needed, offered, available), (planned.memory, fitting, memory));
    for (context, fits) in [(fitting, true), (fitting + 32, false)] {
        let options = ModelOptions { context, kv_bytes: 0, ..options };
        let loaded = pollster::block_on(load(Executor::Gpu(Box::new(gpu(&small))), &source, options));
        assert_eq!(loaded.is_ok(), fits, "{context}");
    }
    let none = largest_context(&checkpoint, &Capabilities::BASELINE, options, planned.memory.weights).expect("a plan");
    assert_eq!(none, None);
}

/// Scores are the logarithms of the probabilities that greedy decoding maximizes, however the prompt is cut.
#[test]
fn scores_follow_the_logits() {
    let reference = spark_references().into_iter().find(|r| r.stop == "eos").expect("one");
    let tokens = [reference.prompt_ids.clone(), reference.continuation_ids.clone()].concat();
    let mut all = Vec::new();
    for (sequences, prefill_rows) in [(1, 512), (5, 512), (5, 2)] {
        let options = ModelOptions { sequences, prefill_rows, ..ModelOptions::default() };
        all.push(serve(&GpuOptions::default(), &spark_file(), options, async |client| {
            let scores = client.score(tokens.clone()).await.expect("scores");
            let trace = client.trace(reference.prompt_ids.clone(), 1, 1).await.expect("a trace");
            let logits = &trace.logits[0];
            let maximum = logits.iter().copied().fold(f32::MIN, f32::max);
            let want = -logits.iter().map(|l| (l - maximum).exp()).sum::<f32>().ln();
            let first = scores[reference.prompt_ids.len() - 1];
            assert!((first - want).abs() < 1e-2, "{first} instead of {want}");
            assert!(client.embed(tokens.clone()).await.is_err(), "Spark makes no embeddings");
            scores
        }));
    }
    assert_eq!(all[0].len(), tokens.len() - 1);
    for other in &all[1..] {
        assert!(all[0].iter().zip(other).all(|(a, b)| *a <= 0.0 && (a - b).abs() < 1e-2));
    }
}

/// The logits of whole prompts with a cache of bytes against one of 4-byte floats, read by both kinds of attention.
#[test]
fn int8_cache_of_trained_model_stays_close() {
    let some: Vec<Reference> = spark_references().into_iter().filter(|r| r.prompt_ids.len() > 150).take(3).collect();
    let [exact, rounded] = [KvFormat::F32, KvFormat::Q8].map(|kv| {
        let options = ModelOptions { sequences: 1, kv, ..ModelOptions::default() };
        serve(&GpuOptions::default(), &spark_file(), options, async |client| {
            let mut logits = Vec::new();
            for reference in &some {
                logits.push(client.trace(reference.prompt_ids.clone(), 4, 4).await.expect("a trace").logits);
            }
            logits
        })
    });
    for (reference, (exact, rounded)) in some.iter().zip(exact.iter().zip(&rounded)) {
        let error = doppler_tests::nmse(&rounded.concat(), &exact.concat());
        println!("{}: {error:.1e}", reference.name);
        assert!(error > 0.0 && error < 1e-4, "{}: normalized error {error:.1e}", reference.name);
    }
}

/// A file with NaN or infinity as a weight of a tensor, or as the scale of its first weights; or as all of its weights.
fn damaged(file: &str, tensor: &str, value: f32, all: bool) -> MemorySource {
    let path = root().join("tests/fixtures/architectures").join(file);
    let source = FileSource::open(&path).expect("a file");
    let checkpoint = pollster::block_on(read_checkpoint(&source)).expect("a model");
    let info = checkpoint.tensors.iter().find(|info| info.name == tensor).expect("a tensor");
    let bad = if info.dtype == DType::Q8_0 { f16::from_f32(value).to_le_bytes().to_vec() } else { value.to_le_bytes().to_vec() };
    let mut bytes = std::fs::read(path).expect("a file");
    let values = &mut bytes[info.offset as usize..][..if all { info.bytes as usize } else { bad.len() }];
    values.chunks_exact_mut(bad.len()).for_each(|bytes| bytes.copy_from_slice(&bad));
    MemorySource::new(file, bytes)
}

/// Weights of NaN or infinity end answers, scores and embeddings with an error, however tokens are chosen, beside others too, and the
/// engine goes on.
#[test]
fn weights_not_finite_are_an_error() {
    let code = |error: Rc<EngineError>| error.code().to_owned();
    let penalties = Sampler { repetition_penalty: 1.1, presence_penalty: 0.5, frequency_penalty: 0.5, ..Sampler::default() };
    let warm = Sampler { temperature: 0.8, ..Sampler::default() };
    let filtered = Sampler { top_k: 40, top_p: 0.9, min_p: 0.05, ..warm };
    let ways = [Sampler::default(), penalties, warm, filtered];
    let cases = [
        ("llama-2.gguf", "output_norm.weight", f32::NAN, true),
        ("llama-2.gguf", "output_norm.weight", f32::INFINITY, true),
        ("llama-2.gguf", "output_norm.weight", f32::NAN, false),
        ("llama-2.gguf", "blk.0.attn_norm.weight", f32::INFINITY, false),
        ("llama-2.gguf", "blk.0.attn_v.weight", f32::NAN, false),
        ("llama-2.gguf", "blk.1.ffn_down.weight", f32::INFINITY, false),
        ("llama-2.gguf", "output.weight", f32::NAN, false),
        ("gemma2.gguf", "output_norm.weight", f32::NAN, false),
        ("gemma2.gguf", "blk.1.ffn_norm.weight", f32::NAN, false),
    ];
    for (device, kv) in [(exact(), KvFormat::F16), (capable(), KvFormat::Q8)] {
        // One device for all: its pipelines are made once.
        let mut executor = Executor::Gpu(Box::new(gpu(&device)));
        for (file, tensor, value, all) in cases {
            let what = format!("{value} in {tensor} of {file}, in all: {all}, cache {kv:?}");
            let source = damaged(file, tensor, value, all);
            executor = pollster::block_on(async {
                let (mut engine, client) = load(executor, &source, ModelOptions { kv, ..ModelOptions::default() }).await.expect("a model");
                let ask = |way: &Sampler| text_of(client.complete((5..25).collect(), Some(9), *way, &[]).expect("accepted"));
                let work = async {
                    for answer in join_all(ways.iter().map(ask)).await {
                        assert_eq!(answer.map_err(code), Err("not_finite".to_owned()), "{what}");
                    }
                    assert_eq!(client.score((5..25).collect()).await.map_err(code), Err("not_finite".to_owned()), "{what}");
                };
                beside(&mut engine, work).await;
                engine.unload()
            });
        }
    }
    for (tensor, value) in [("blk.1.layer_output_norm.weight", f32::NAN), ("blk.0.attn_output_norm.weight", f32::INFINITY)] {
        let source = damaged("bert-mean.gguf", tensor, value, false);
        pollster::block_on(async {
            let (mut engine, client) =
                load(Executor::Gpu(Box::new(gpu(&exact()))), &source, ModelOptions::default()).await.expect("a model");
            let embedding = beside(&mut engine, client.embed((5..25).collect())).await;
            assert_eq!(embedding.map_err(code), Err("not_finite".to_owned()), "{tensor} {value}");
        });
    }
}
