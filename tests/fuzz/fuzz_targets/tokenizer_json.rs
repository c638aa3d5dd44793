//! A text, then `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and a chat template.
#![no_main]

use doppler_engine::formats::huggingface::Folder;
use doppler_engine::model::folder_checkpoint;
use doppler_engine::text::ChatTemplate;
use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = include_bytes!("../../fixtures/folders/qwen2/config.json");

fuzz_target!(|data: &[u8]| {
    let mut pieces = doppler_fuzz::pieces::<5>(data).into_iter();
    let text = String::from_utf8_lossy(pieces.next().unwrap_or_default());
    let mut piece = || pieces.next().map(<[u8]>::to_vec);
    let folder = Folder {
        config: CONFIG.to_vec(),
        tokenizer: piece(),
        tokenizer_config: piece(),
        generation_config: piece(),
        chat_template: piece(),
        ..Folder::default()
    };
    let Ok(checkpoint) = folder_checkpoint(&folder, Vec::new()) else { return };
    let _ = ChatTemplate::from_gguf(&checkpoint.metadata);
    doppler_fuzz::encode(&checkpoint.metadata, &text);
});
