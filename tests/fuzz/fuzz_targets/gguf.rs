//! A GGUF file: whole, and as a prefix of unknown length.
#![no_main]

use doppler_engine::formats::{FormatError, Gguf};
use doppler_engine::model::read_checkpoint;
use doppler_engine::source::MemorySource;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let source = MemorySource::new("fuzz.gguf", data.to_vec());
    if let Ok(checkpoint) = block_on(read_checkpoint(&source)) {
        doppler_fuzz::read_tensors(&checkpoint, &source);
    }
    match Gguf::parse(data, None) {
        Err(FormatError::NeedMore { at_least }) => assert!(at_least > data.len() as u64),
        Err(FormatError::Truncated { .. }) => panic!("the length is not known"),
        _ => {}
    }
});
