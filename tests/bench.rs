//! The bench: its report has the fields that `bench/report.schema.json` describes. How fast anything is, is no test's matter.
#![allow(missing_docs)]

use std::path::Path;
use std::time::Duration;

use doppler_engine::bench::{BenchOptions, SHAPES, Shape, Synthetic, run};
use doppler_engine::exec::{Executor, gpu::GpuOptions};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::ModelOptions;
use doppler_tests::{devices, gpu, load};
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// Where `value` is not what `schema` says, as far as this schema says it: types, enumerations, fields and elements.
fn mismatch(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let one_of = |wanted: &Value, is: &dyn Fn(&Value) -> bool| wanted.as_array().map_or_else(|| is(wanted), |all| all.iter().any(is));
    let has_type = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        other => panic!("{at}: the schema has the type {other:?}"),
    };
    if schema.get("type").is_some_and(|wanted| !one_of(wanted, &has_type))
        || schema.get("enum").is_some_and(|e| !one_of(e, &|v| v == value))
    {
        return Some(format!("{at} is {value}"));
    }
    if let Some(elements) = value.as_array() {
        return elements.iter().enumerate().find_map(|(i, element)| mismatch(&schema["items"], element, &format!("{at}[{i}]")));
    }
    let fields = value.as_object()?;
    let required = schema["required"].as_array().expect("required fields").iter().filter_map(Value::as_str);
    let missing = required.into_iter().find(|name| !fields.contains_key(*name)).map(|name| format!("{at}.{name} is missing"));
    missing.or_else(|| {
        fields.iter().find_map(|(name, value)| match schema["properties"].get(name) {
            Some(schema) => mismatch(schema, value, &format!("{at}.{name}")),
            None => Some(format!("{at}.{name} is not described")),
        })
    })
}

/// Measures the tiny shape.
fn report(options: &BenchOptions) -> Result<Value, String> {
    let source = Synthetic::new(Shape::find("tiny").expect("a shape"), Recipe::Q4_K_M).expect("weights");
    let report = pollster::block_on(async {
        let executor = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
        let (mut engine, client) = load(executor, &source, options.model_options()).await.expect("a model");
        run(&mut engine, &client, options, Duration::from_millis(1)).await.map_err(|e| e.to_string())
    })?;
    Ok(serde_json::to_value(report).expect("JSON"))
}

#[test]
fn bench_report_matches_schema() {
    let schema: Value = serde_json::from_str(&read("bench/report.schema.json")).expect("JSON");
    let options = BenchOptions {
        prompts: vec![3, 70, 5000],
        tokens: 4,
        runs: 1,
        streams: vec![2, 33],
        arrival: Some(80),
        cached: Some(100),
        kernels: true,
        context: Some(128),
        kv: KvFormat::Q8,
    };
    let mut report = report(&options).expect("a report");
    assert_eq!(mismatch(&schema, &report, "report"), None);
    let prompts: Vec<_> = report["lengths"].as_array().expect("lengths").iter().map(|length| &length["prompt_tokens"]).collect();
    assert_eq!(prompts, [3, 70], "5000 tokens do not fit");
    assert!(report["lengths"][0]["decode_tokens_per_second"].as_f64().is_some_and(|speed| speed > 0.0), "{report}");
    assert_eq!((&report["model"]["context"], &report["model"]["quantization"]), (&128.into(), &"Q4_K".into()));
    assert_eq!(
        report["device_bytes"].as_u64(),
        ["weights", "cache", "scratch"].iter().map(|part| report["model"]["memory"][part].as_u64()).sum()
    );

    let streams = report["streams"].as_array().expect("streams");
    let places = |s: &Value| [&s["streams"], &s["places"], &s["prompt_tokens"]].map(|number| number.as_u64().unwrap_or(0));
    assert_eq!(streams.iter().map(places).collect::<Vec<_>>(), [[2, 2, 3], [33, 32, 3]]);
    assert!(streams[0]["together_tokens_per_second"].is_number() && streams[1]["together_tokens_per_second"].is_null(), "{streams:?}");

    let arrival = &report["arrival"];
    assert_eq!([&arrival["prompt_tokens"], &arrival["streams"]], [80, 4]);
    assert!(arrival["first_token_ms"].as_f64() > Some(0.0) && arrival["each_tokens_per_second_before"].as_f64() > Some(0.0), "{arrival}");
    let cached = &report["cached"];
    assert!(cached["cached_tokens"].as_u64().is_some_and(|tokens| (64..100).contains(&tokens)), "{cached}");

    // Only a device with a clock tells these.
    if let Some(passes) = report["kernels"].as_array() {
        assert!(report["roofline"]["teraflops"].as_f64().is_some_and(|most| most > 0.0), "{report}");
        let kernels = passes.iter().flat_map(|pass| pass["kernels"].as_array().expect("kernels"));
        let products: Vec<_> = kernels.filter(|k| k["name"].as_str().is_some_and(|name| name.starts_with("mat"))).collect();
        assert!(products.iter().any(|k| k["gigabytes_per_second"].as_f64() > Some(0.0)), "{products:?}");
    }

    // The check itself finds what is wrong.
    report["lengths"][0]["token_ms"][1] = "fast".into();
    assert_eq!(mismatch(&schema, &report, "report").as_deref(), Some("report.lengths[0].token_ms[1] is \"fast\""));
}

/// Each of so many answers at once is what it is alone, in the workgroups of large GPUs: with two and three rows, with four and more, and
/// with more requests than places. `sequences_in_one_batch_equal_single_answers` in `models.rs` has small ones.
#[test]
fn bench_streams_equal_single_answers() {
    let source = Synthetic::new(Shape::find("tiny").expect("a shape"), Recipe::Q4_K_M).expect("weights");
    let streams = vec![2, 3, 5, 9, 32];
    let options = BenchOptions { prompts: vec![9], tokens: 12, runs: 1, streams, context: Some(128), ..BenchOptions::default() };
    let (_, large) = devices().swap_remove(0);
    pollster::block_on(async {
        let executor = Executor::Gpu(Box::new(gpu(&large)));
        let (mut engine, client) = load(executor, &source, options.model_options()).await.expect("a model");
        let report = run(&mut engine, &client, &options, Duration::ZERO).await.expect("a report");
        let differing: Vec<_> = report.streams.iter().map(|s| (s.streams, s.differing)).collect();
        assert_eq!(differing, options.streams.iter().map(|n| (*n, 0)).collect::<Vec<_>>());
    });
}

/// A made-up model chats: every token has a text.
#[test]
fn synthetic_shape_encodes_and_decodes_chat() {
    let source = Synthetic::new(Shape::find("tiny").expect("a shape"), Recipe::F16).expect("weights");
    let executor = Executor::Gpu(Box::new(gpu(&GpuOptions::default())));
    let (_engine, client) = pollster::block_on(load(executor, &source, ModelOptions::default())).expect("a model");
    let prompt = client.encode_chat(&serde_json::json!([{ "role": "user", "content": "Hi" }]), None).expect("a prompt");
    assert!(!prompt.is_empty());
    let mut detokenizer = client.tokenizer().detokenizer();
    let text: String = (0..2048).map(|token| detokenizer.push(token)).collect();
    assert!(text.contains("~2047"), "{text}");
}

#[test]
fn bench_zero_counts_are_refused() {
    for (field, options) in [
        ("runs", BenchOptions { runs: 0, ..BenchOptions::default() }),
        ("tokens", BenchOptions { tokens: 0, ..BenchOptions::default() }),
        ("arrival", BenchOptions { arrival: Some(0), ..BenchOptions::default() }),
        ("streams", BenchOptions { streams: vec![2, 0], ..BenchOptions::default() }),
    ] {
        assert_eq!(report(&options).expect_err("a refusal"), format!("{field} must be at least 1"));
    }
}

/// Names as they are asked for, on the command line and in frames; every shape can be chosen on the extension's page.
#[test]
fn bench_names_parse_to_formats() {
    let recipes = [("f32", Recipe::F32), ("f16", Recipe::F16), ("q8_0", Recipe::Q8_0), ("q4_0", Recipe::Q4_0), ("q4_k_m", Recipe::Q4_K_M)];
    for (name, recipe) in recipes {
        assert_eq!(name.parse(), Ok(recipe));
        assert_eq!(serde_json::from_value::<Recipe>(name.into()).expect("a recipe"), recipe);
    }
    for (name, kv) in [("f32", KvFormat::F32), ("f16", KvFormat::F16), ("q8", KvFormat::Q8)] {
        assert_eq!(name.parse(), Ok(kv));
    }
    let error = "Q4".parse::<Recipe>().expect_err("a refusal").to_string();
    assert!(error.contains("Q4") && error.contains("q4_k_m"), "{error}");
    let page = read("../extension/bench/bench.html");
    for shape in SHAPES {
        assert!(page.contains(&format!("<option value=\"{}\"", shape.name)), "{} is not on the page", shape.name);
    }
}
