//! A model folder: `config.json`, the length of the header, the header, the data.
#![no_main]

use doppler_engine::model::read_checkpoint;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

const TOKENIZER: &[u8] = include_bytes!("../../fixtures/folders/qwen2/tokenizer.json");

fuzz_target!(|data: &[u8]| {
    let pieces = doppler_fuzz::pieces::<2>(data);
    let weights = pieces.get(1).copied().unwrap_or_default();
    let names = ["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned);
    let source = doppler_fuzz::files(names.into_iter().zip([pieces[0], weights, TOKENIZER]));
    if let Ok(checkpoint) = block_on(read_checkpoint(&source)) {
        doppler_fuzz::read_tensors(&checkpoint, &source);
    }
});
