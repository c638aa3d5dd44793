//! `doppler verify`.

use std::path::Path;
use std::process::ExitCode;

use doppler_engine::engine::Client;
use doppler_engine::verify::{References, compare};

use super::Failure;
use super::args::ModelArgs;
use super::open::{open, with_engine};

pub(super) async fn verify(model: &ModelArgs, references: &Path) -> Result<ExitCode, Failure> {
    let references: References = serde_json::from_slice(&std::fs::read(references)?)?;
    let (mut engine, client) = open(model, 1).await?;
    with_engine(&mut engine, compare_all(&client, &references)).await
}

async fn compare_all(client: &Client, references: &References) -> Result<ExitCode, Failure> {
    let mut failed = 0;
    for reference in &references.prompts {
        let c = compare(client, reference).await.map_err(|e| e.to_string())?;
        let good = c.text_equal && c.prompt_equal && c.greedy_equal;
        failed += u32::from(!good);
        let error = c.logit_error.map_or_else(String::new, |e| format!(", logits within {e:.1e}"));
        let verdict = if good { "equal" } else { "DIFFERS" };
        println!("{:20} {verdict}: {} of {} tokens (least margin {:.4}){error}", c.name, c.matching, c.expected, c.min_margin);
    }
    println!("{} equal, {failed} different", references.prompts.len() as u32 - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
