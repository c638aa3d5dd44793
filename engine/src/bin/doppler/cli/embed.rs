//! `doppler embed`.

use serde_json::json;

use super::Failure;
use super::args::ModelArgs;
use super::open::{open, with_engine};

pub(super) async fn embed(model: &ModelArgs, texts: &[String]) -> Result<(), Failure> {
    let (mut engine, client) = open(model, 1).await?;
    if client.info().embedding.is_none() {
        return Err(format!("{} makes no embeddings; choose an embedding model", client.info().name).into());
    }
    let work = async {
        for text in texts {
            let tokens = client.tokenizer().encode_prompt(text, false)?;
            let embedding = client.embed(tokens).await.map_err(|e| e.to_string())?;
            println!("{}", json!({ "text": text, "embedding": embedding }));
        }
        Ok(())
    };
    with_engine(&mut engine, work).await
}
