//! A text, then a GGUF header whose metadata describe a tokenizer.
#![no_main]

use doppler_engine::formats::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let pieces = doppler_fuzz::pieces::<2>(data);
    let Some(Ok(checkpoint)) = pieces.get(1).map(|header| Gguf::parse(header, None)) else { return };
    doppler_fuzz::encode(&checkpoint.metadata, &String::from_utf8_lossy(pieces[0]));
});
