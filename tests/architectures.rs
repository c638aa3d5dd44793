//! Every architecture against Hugging Face transformers: the models of `fixtures/architectures`.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doppler_engine::engine::Client;
use doppler_engine::exec::{Executor, gpu::GpuOptions};
use doppler_engine::formats::convert::{Recipe, write_gguf};
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::{ModelOptions, families, read_checkpoint};
use doppler_engine::plan::plan;
use doppler_engine::source::{self, FileSource, MemorySource, Source};
use doppler_tests::{beside, device, devices, load, nmse, serve, serve_on};
use futures::future::join_all;

#[derive(serde::Deserialize)]
struct References {
    prompts: Vec<Reference>,
}

/// What transformers does with a prompt: continues it, or embeds it.
#[derive(serde::Deserialize)]
struct Reference {
    name: String,
    prompt_ids: Vec<u32>,
    #[serde(default)]
    continuation_ids: Vec<u32>,
    #[serde(default)]
    min_margin: f32,
    #[serde(default)]
    logits: Vec<Logits>,
    embedding: Option<String>,
}

#[derive(serde::Deserialize)]
struct Logits {
    step: usize,
    values: String,
}

fn floats(text: &str) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&STANDARD.decode(text).expect("base64"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures")
}

fn references(name: &str) -> Vec<Reference> {
    let json = std::fs::read(folder().join(name).with_extension("json")).expect("references");
    serde_json::from_slice::<References>(&json).expect("references").prompts
}

/// How close the engine must come.
#[derive(Clone, Copy)]
struct Bounds {
    /// Normalized mean squared error of logits and embeddings.
    error: f64,
    /// Tokens must be equal where the reference's two best logits are further apart.
    margin: f32,
}

async fn check(model: &str, what: &str, client: &Client, reference: &Reference, bounds: Bounds) {
    let what = format!("{model}, {what}, {}", reference.name);
    if let Some(embedding) = &reference.embedding {
        let got = client.embed(reference.prompt_ids.clone()).await.expect("an embedding");
        let error = nmse(&got, &floats(embedding));
        assert!(error <= bounds.error, "{what}: the embedding is off by {error:.1e}");
        return;
    }
    let steps = reference.continuation_ids.len() as u32;
    let trace = client.trace(reference.prompt_ids.clone(), steps, steps).await.expect("a trace");
    let same = trace.tokens.iter().zip(&reference.continuation_ids).take_while(|(a, b)| a == b).count();
    for Logits { step, values } in &reference.logits {
        if *step <= same {
            let error = nmse(&trace.logits[*step], &floats(values));
            assert!(error <= bounds.error, "{what}: the logits of step {step} are off by {error:.1e}");
        }
    }
    let equal = same == reference.continuation_ids.len();
    assert!(equal || reference.min_margin < bounds.margin, "{what}: only {same} of {steps} tokens are equal");
}

/// The devices that a family of models is tested on.
struct Pair {
    /// Without features.
    plain: Option<Executor>,
    /// With all that the adapter has.
    capable: Option<Executor>,
}

/// All prompts of some models, which share the pipelines of the devices.
fn check_models(names: &[&str]) {
    let (_, plain) = devices().swap_remove(1);
    let mut pair = Pair { plain: Some(device(&plain)), capable: Some(device(&GpuOptions::default())) };
    for name in names {
        println!("{name}");
        check_model(&mut pair, name);
    }
}

/// All prompts of a model: together, in chunks; token by token; and as a capable device runs them.
fn check_model(pair: &mut Pair, name: &str) {
    let path = folder().join(name).with_extension("gguf");
    let references = references(name);
    let exact = Bounds { error: 1e-6, margin: 0.0 };
    let options = ModelOptions { context: context(name, 0), sequences: 4, prefill_rows: 48, kv: KvFormat::F32, ..ModelOptions::default() };
    let selected = |long: bool| references.iter().filter(move |r| !name.contains("longrope") || (r.prompt_ids.len() > 256) == long);
    for long in [false, true] {
        if selected(long).next().is_none() {
            continue;
        }
        let options = ModelOptions { context: context(name, if long { 512 } else { 256 }), ..options };
        // Where layers see a window, they have pages for one.
        let least = ModelOptions { kv_bytes: 0, ..options };
        serve_on(&mut pair.plain, &path, least, async |client| {
            join_all(selected(long).map(|reference| check(name, "chunks", &client, reference, exact))).await;
        });
        if name == "gemma2-27b" {
            // Only its scale of scores depends on its 46 layers, which take a minute each time.
            continue;
        }
        let single = ModelOptions { prefill_rows: 1, ..options };
        serve_on(&mut pair.plain, &path, single, async |client| {
            let short = selected(long).filter(|r| r.prompt_ids.len() <= 64);
            join_all(short.map(|reference| check(name, "token by token", &client, reference, exact))).await;
        });
        // What a capable device runs, with the caches that people choose from: transformers' tokens but for near-ties.
        // Rounding keys to bytes moves the scores of these models, whose random attention is sharp, by a percent; see
        // `int8_cache_of_trained_model_stays_close` for a trained one.
        let halves = Bounds { error: 1e-4, margin: 0.1 };
        let bytes = Bounds { error: 5e-3, margin: 1.0 };
        for (what, kv, rounded) in [("cache of halves", KvFormat::F16, halves), ("cache of bytes", KvFormat::Q8, bytes)] {
            let options = ModelOptions { kv, ..options };
            serve_on(&mut pair.capable, &path, options, async |client| {
                join_all(selected(long).map(|reference| check(name, what, &client, reference, rounded))).await;
            });
        }
    }
}

/// `LongRoPE`'s factors depend on the context: the fixture has prompts for both sides of the original 256 positions.
fn context(name: &str, wanted: u32) -> u32 {
    if name.contains("longrope") { wanted } else { 512 }
}

/// A test for each family.
macro_rules! families {
    ($($test:ident = [$($name:literal),*];)*) => {
        $(
            #[test]
            fn $test() {
                check_models(&[$($name),*]);
            }
        )*
        const MODELS: &[&str] = &[$($($name),*),*];
    };
}

families! {
    llama = ["llama-2", "llama-3", "llama-bias", "llama-linear", "llama-yarn"];
    mistral = ["mistral-window", "mistral3"];
    qwen = ["qwen2", "qwen3", "qwen3-yarn"];
    phi = ["phi3", "phi3-partial", "phi3-longrope"];
    gemma = ["gemma", "gemma2", "gemma2-27b"];
    gemma3 = ["gemma3", "gemma-embedding"];
    olmo = ["olmo2", "olmo3"];
    granite_and_smollm = ["granite", "smollm3"];
    stablelm = ["stablelm", "stablelm-12b"];
    falcon_and_gpt2 = ["falcon-7b", "falcon-40b", "gpt2"];
    bert = ["bert-cls", "bert-mean", "nomic-bert"];
    twins_of_llama = ["ernie4_5", "internlm2", "baichuan", "xverse", "llama-embed"];
    twins_of_qwen = ["qwen2vl", "qwen3vl", "qwen", "paddleocr", "exaone", "seed_oss", "pangu-embedded", "orion"];
    exaone_and_cohere = ["exaone4", "exaone4-full", "command-r", "cohere2"];
    glm_and_minicpm = ["chatglm", "glm4", "minicpm"];
    hunyuan = ["hunyuan-dense", "hunyuan_vl", "maincoder"];
    squared_relu = ["arcee", "nemotron", "jais2"];
    neox = ["gptneox", "gptneox-serial", "starcoder", "starcoder2", "codeshell", "phi2", "plamo"];
    olmo_bitnet_apertus = ["olmo", "bitnet", "apertus"];
    qwen_mixtures = ["qwen3moe", "qwen2moe"];
    softmax_mixtures = ["mixtral", "olmoe", "granitemoe", "ernie4_5-moe", "hunyuan-moe"];
    sigmoid_mixtures = ["glm4moe", "dots1", "minimax-m2"];
    gpt_oss = ["gpt-oss"];
}

/// Models in Hugging Face's own layout, as they are: `fixtures/folders`.
#[test]
fn folder_models_equal_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/folders");
    let json = std::fs::read(folder.join("references.json")).expect("references");
    let all: std::collections::BTreeMap<String, Vec<Reference>> = serde_json::from_slice(&json).expect("references");
    assert_eq!(all.len(), 4);
    let (_, plain) = devices().swap_remove(1);
    let options = ModelOptions { sequences: 4, prefill_rows: 16, kv: KvFormat::F32, ..ModelOptions::default() };
    for (name, references) in all {
        serve(&plain, &folder.join(&name), options, async |client| {
            let bounds = Bounds { error: 1e-6, margin: 1e-3 };
            join_all(references.iter().map(|reference| check(&name, "folder", &client, reference, bounds))).await;
        });
    }
}

/// Quantizing while a folder is loaded gives the model that a file of that recipe is.
#[test]
fn model_quantized_while_loading_equals_quantized_file() {
    let source_of =
        |name: &str| source::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/folders").join(name)).expect("a folder");
    let (_, plain) = devices().swap_remove(1);
    let prompt: Vec<u32> = (0..20).map(|i| (i * 37) % 300).collect();
    let run = |source: &dyn Source, quantize: Option<Recipe>| {
        let options = ModelOptions { context: 64, kv: KvFormat::F32, quantize, ..ModelOptions::default() };
        let executor = device(&plain);
        pollster::block_on(async {
            let checkpoint = read_checkpoint(source).await.expect("a checkpoint");
            let plan = plan(&checkpoint, executor.capabilities(), options).expect("a plan");
            let (mut engine, client) = load(executor, source, options).await.expect("a model");
            assert_eq!(client.info().memory, plan.memory);
            let trace = beside(&mut engine, client.trace(prompt.clone(), 4, 4)).await.expect("a trace");
            (client.info().quantization.clone(), plan.memory.weights, trace.logits)
        })
    };
    // Rows of 48 stay floats in Q8_0. Llama's queries and keys are paired otherwise in a file, which only changes the order of sums.
    for (name, recipe, bound) in
        [("qwen2", Recipe::Q8_0, 0.0), ("gemma2", Recipe::Q8_0, 0.0), ("llama", Recipe::Q8_0, 1e-9), ("gemma2", Recipe::Q4_0, 0.0)]
    {
        let folder = source_of(name);
        let mut file = Vec::new();
        pollster::block_on(async {
            let checkpoint = read_checkpoint(&*folder).await.expect("a checkpoint");
            write_gguf(&checkpoint, &*folder, recipe, &mut file, &mut |_| {}).await.expect("a file");
        });
        let (dtype, bytes, logits) = run(&*folder, Some(recipe));
        let (file_dtype, file_bytes, file_logits) = run(&MemorySource::new("quantized.gguf", file), None);
        assert_eq!((&dtype, bytes), (&file_dtype, file_bytes), "{name} as {recipe:?}");
        for (got, want) in logits.iter().zip(&file_logits) {
            let error = nmse(got, want);
            assert!(error <= bound, "{name} as {recipe:?}: the logits are off by {error:.1e}");
        }
        let (_, whole, other) = run(&*folder, None);
        assert!(bytes < whole, "{name} as {recipe:?}: {bytes} bytes instead of {whole}");
        assert!(nmse(&logits[0], &other[0]) > 1e-7, "{name} as {recipe:?} is not quantized");
    }
}

/// No model of the folder and no architecture of the engine goes untested.
#[test]
fn architectures_all_have_a_fixture() {
    use doppler_engine::formats::Gguf;
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|e| e == "gguf") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            assert!(MODELS.contains(&name.as_str()), "{name} has no test");
            let bytes = std::fs::read(&path).expect("a file");
            let checkpoint = Gguf::parse(&bytes, Some(bytes.len() as u64)).expect("a model");
            seen.push(checkpoint.metadata.str("general.architecture").expect("an architecture").to_owned());
        }
    }
    // The text of Qwen 3 VL MoE is Qwen 3 MoE under another name: both have one entry of `families/mixture.rs`.
    let same_text = |family: &str| family == "qwen3vlmoe" && seen.iter().any(|s| s == "qwen3moe");
    for family in families::names() {
        assert!(seen.iter().any(|s| s == family) || same_text(family), "{family} has no model");
    }
}

/// Texts that share a pass are embedded to the bit as each alone, in few submissions.
#[test]
fn texts_embed_together_as_alone() {
    for name in ["bert-mean", "nomic-bert", "gemma-embedding"] {
        let source = FileSource::open(&folder().join(name).with_extension("gguf")).expect("a file");
        let executor = device(&GpuOptions::default());
        let counters = executor.counters();
        let (mut engine, client) = pollster::block_on(load(executor, &source, ModelOptions::default())).expect("a model");
        let lengths = [5, 7, 40, 3, 64, 100, 99, 110, 30, 33, 128, 1];
        let text = |number: u32| (0..lengths[number as usize]).map(|i| 5 + (i * 7 + number * 31) % 97).collect::<Vec<u32>>();
        let numbers = 0..lengths.len() as u32;
        let embed = async |number| client.embed(text(number)).await.expect("an embedding");
        let asked = async {
            let mut alone = Vec::new();
            for number in numbers.clone() {
                alone.push(embed(number).await);
            }
            let before = counters.get().submissions;
            let together = join_all(numbers.clone().map(embed)).await;
            (alone, together, counters.get().submissions - before)
        };
        let (alone, together, submissions) = pollster::block_on(beside(&mut engine, asked));
        let differing: Vec<_> = (0..lengths.len()).filter(|i| alone[*i] != together[*i]).map(|i| lengths[i]).collect();
        assert_eq!(differing, [0; 0], "{name}: texts of these lengths");
        assert_eq!(submissions, 3, "{name}: texts of three buckets");
    }
}
