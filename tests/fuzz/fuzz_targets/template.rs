//! A chat template, and the text of a message.
#![no_main]

use doppler_engine::text::ChatTemplate;
use doppler_engine::text::template::Options;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, json};

fuzz_target!(|data: &[u8]| {
    let pieces = doppler_fuzz::pieces::<2>(data);
    let Ok(source) = std::str::from_utf8(pieces[0]) else { return };
    let tokens = Map::from_iter([("bos_token".to_owned(), json!("<s>")), ("eos_token".to_owned(), json!("</s>"))]);
    let Ok(template) = ChatTemplate::new(source, tokens) else { return };
    let text = String::from_utf8_lossy(pieces.get(1).copied().unwrap_or_default());
    let messages = json!([{ "role": "system", "content": "s" }, { "role": "user", "content": text }]);
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "a": [1, null, 0.5] } } }]);
    for tools in [None, Some(&tools)] {
        let _ = template.render(&messages, Options::for_answer(tools));
    }
});
