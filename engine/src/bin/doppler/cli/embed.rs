//! `doppler embed`.

use doppler_engine::model::ModelOptions;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::Failure;
use super::args::ModelArgs;
use super::open::{open, with_engine};

pub(super) async fn embed(model: &ModelArgs, texts: &[String]) -> Result<(), Failure> {
    let places = ModelOptions::default().sequences;
    let (mut engine, client) = open(model, places).await?;
    if client.info().embedding.is_none() {
        return Err(format!("{} makes no embeddings; choose an embedding model", client.info().name).into());
    }
    let client = &client;
    let embeddings = texts.iter().map(|text| async move {
        let tokens = client.tokenizer().encode_prompt(text, false)?;
        Ok::<_, Failure>((text, client.embed(tokens).await.map_err(|e| e.to_string())?))
    });
    // As many as share passes.
    let work = stream::iter(embeddings).buffered(places as usize).try_for_each(async |(text, embedding)| {
        println!("{}", json!({ "text": text, "embedding": embedding }));
        Ok(())
    });
    with_engine(&mut engine, work).await
}
