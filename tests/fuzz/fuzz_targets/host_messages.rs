//! What a browser writes to the native host: frames of native messaging, cut anywhere.
#![no_main]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use doppler_fuzz::NativeHost;
use doppler_host::frame::{self, Frame};
use doppler_host::messages::converse;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static NATIVE: LazyLock<NativeHost> = LazyLock::new(NativeHost::start);

fuzz_target!(|data: &[u8]| {
    let mut output = Vec::new();
    let (host, address) = (Arc::clone(&NATIVE.host), NATIVE.server.address());
    NATIVE.runtime.block_on(converse(host, address, Cursor::new(data.to_vec()), &mut output));
    let mut answers = output.as_slice();
    while let Frame::Message(answer) = frame::read(&mut answers).expect("memory") {
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer.get("id").is_some() && answer.get("done").is_some() != answer.get("error").is_some(), "{answer}");
    }
    assert!(answers.is_empty(), "half a frame");
});
