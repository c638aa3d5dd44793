//! Questions with one right answer, and the perplexity of answers against transformers'.
#![allow(missing_docs)]

use std::path::Path;

use doppler_engine::eval::{Question, Questions, Score, ask_all};
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::ModelOptions;
use doppler_tests::{devices, serve};
use serde::Deserialize;
use serde_json::json;

/// `tests/fixtures/spark/eval-q8_0.json`, see `make_eval.py` there.
#[derive(Deserialize)]
struct Reference {
    /// Indices into eval.json's.
    prompts: Vec<usize>,
    perplexity: f64,
    perplexity_of_wrong_answers: f64,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/spark").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("of the expected shape")
}

/// The shipped model answers all exactly; right and wrong answers are as likely to it as they are in transformers.
#[test]
fn eval_of_spark_equals_transformers() {
    let Questions { prompts } = read("eval.json");
    let reference: Reference = read("eval-q8_0.json");
    let right: Vec<Question> = reference.prompts.iter().map(|i| prompts[*i].clone()).collect();
    // Each with the answer of the one before it.
    let mut wrong = right.clone();
    for (i, question) in wrong.iter_mut().enumerate() {
        question.answer.clone_from(&right[(i + right.len() - 1) % right.len()].answer);
    }
    let unknown = Question { messages: json!([{ "content": "no role" }]), ..right[0].clone() };
    let long = Question { messages: json!([{ "role": "user", "content": "1".repeat(2000) }]), ..right[0].clone() };

    let (_, plain) = devices().swap_remove(1);
    let options = ModelOptions { sequences: 16, context: 512, kv: KvFormat::F32, ..ModelOptions::default() };
    let spark = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extension/models/spark-28m-q8_0.gguf");
    serve(&plain, &spark, options, async |client| {
        for (questions, exact, perplexity) in
            [(&right, right.len(), reference.perplexity), (&wrong, 0, reference.perplexity_of_wrong_answers)]
        {
            let mut progress = Vec::new();
            let score = Score::of(&ask_all(&client, questions, &mut |done| progress.push(done)).await.expect("answers"));
            println!("{score:?}, transformers {perplexity}");
            assert_eq!((score.prompts, score.exact, progress.len()), (right.len(), exact, right.len()));
            assert!((score.perplexity / perplexity - 1.0).abs() < 0.01, "{} instead of {perplexity}", score.perplexity);
            // Near 1 the perplexity itself says little.
            assert!((score.perplexity.ln() / perplexity.ln() - 1.0).abs() < 0.01, "{} instead of {perplexity}", score.perplexity);
        }
        for (question, name) in [(unknown, "DataError"), (long, "QuotaExceededError")] {
            let error = ask_all(&client, &[question], &mut |_| {}).await.expect_err("refused");
            assert_eq!(error.dom_name(), name, "{error}");
        }
    });
}
