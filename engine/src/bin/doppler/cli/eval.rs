//! `doppler eval`.

use std::path::Path;

use doppler_engine::engine::{Client, ModelInfo};
use doppler_engine::eval::{Outcome, Question, Questions, Score, ask_all};
use serde_json::{Map, Value, json};

use super::Failure;
use super::args::ModelArgs;
use super::open::{open, percent, with_engine};

/// Questions answered at a time, where the cache has room.
const SEQUENCES: u32 = 32;

pub(super) async fn eval(model: &ModelArgs, questions: &Path, as_json: bool) -> Result<(), Failure> {
    let Questions { prompts } = serde_json::from_slice(&std::fs::read(questions)?)?;
    let (mut engine, client) = open(model, SEQUENCES).await?;
    let outcomes = with_engine(&mut engine, ask(&client, &prompts)).await?;
    let families = families(&prompts, &outcomes);
    let total = Score::of(&outcomes);
    if as_json {
        println!("{:#}", report(client.info(), &families, total, &prompts, &outcomes));
        return Ok(());
    }
    println!("{:36} {:>11} {:>9} {:>11}", "", "exact", "", "perplexity");
    for (name, s) in families.iter().map(|(name, score)| (*name, score)).chain([("all", &total)]) {
        println!("{name:36} {:>4} of {:>4} {:>7.1} % {:>11.5}", s.exact, s.prompts, 100.0 * s.accuracy, s.perplexity);
    }
    Ok(())
}

async fn ask(client: &Client, questions: &[Question]) -> Result<Vec<Outcome>, Failure> {
    let outcomes = ask_all(client, questions, &mut percent("asking")).await;
    eprintln!("\r{:20}", "");
    Ok(outcomes.map_err(|e| e.to_string())?)
}

/// The score of each family, in the order of the questions.
fn families<'a>(questions: &'a [Question], outcomes: &[Outcome]) -> Vec<(&'a str, Score)> {
    let mut names: Vec<&str> = Vec::new();
    for question in questions {
        if !names.contains(&question.family.as_str()) {
            names.push(&question.family);
        }
    }
    let of = |name| Score::of(questions.iter().zip(outcomes).filter(|(q, _)| q.family == name).map(|(_, outcome)| outcome));
    names.into_iter().map(|name| (name, of(name))).collect()
}

fn report(info: &ModelInfo, families: &[(&str, Score)], total: Score, questions: &[Question], outcomes: &[Outcome]) -> Value {
    let wrong: Vec<Value> = questions
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| !outcome.exact)
        .map(|(q, outcome)| json!({ "family": q.family, "messages": q.messages, "expected": q.answer, "answer": outcome.answer }))
        .collect();
    json!({
        "model": info.name,
        "quantization": info.quantization,
        "total": total,
        "families": families.iter().map(|(name, score)| ((*name).to_owned(), json!(score))).collect::<Map<_, _>>(),
        "wrong": wrong,
    })
}
