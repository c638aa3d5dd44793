//! Up to four parts of a split GGUF file.
#![no_main]

use doppler_engine::model::read_checkpoint;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let parts = doppler_fuzz::pieces::<4>(data);
    let count = parts.len();
    let names = (1..).map(|number| format!("model-{number:05}-of-{count:05}.gguf"));
    let source = doppler_fuzz::files(names.zip(parts));
    if let Ok(checkpoint) = block_on(read_checkpoint(&source)) {
        doppler_fuzz::read_tensors(&checkpoint, &source);
    }
});
