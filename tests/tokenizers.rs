//! 2,000 awkward strings through every kind of tokenizer, against the Python packages `tokenizers`, `sentencepiece` and `tiktoken`.

use std::path::{Path, PathBuf};

use doppler_engine::formats::{Array, Metadata, Value};
use doppler_engine::text::{Pace, TextError, Tokenizer};
use doppler_tests::skip;
use futures::FutureExt;
use serde_json::Value as Json;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/text/adversarial")
}

fn read(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// The strings, put together from their parts.
fn strings() -> Vec<String> {
    let part = |part: &Json| match part {
        Json::String(text) => text.clone(),
        repeated => repeated[0].as_str().unwrap().repeat(repeated[1].as_u64().unwrap() as usize),
    };
    read(&folder().join("strings.json")).as_array().unwrap().iter().map(|s| s.as_array().unwrap().iter().map(part).collect()).collect()
}

/// A GGUF's metadata from JSON. Whole numbers become `u32`, but the character map has bytes.
fn metadata(json: &Json) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in json.as_object().unwrap() {
        let array = |value: &Json| match &value[0] {
            Json::String(_) => Array::String(serde_json::from_value(value.clone()).unwrap()),
            Json::Number(n) if n.is_f64() => Array::F32(serde_json::from_value(value.clone()).unwrap()),
            _ if key.ends_with("charsmap") => Array::U8(serde_json::from_value(value.clone()).unwrap()),
            _ => Array::U32(serde_json::from_value(value.clone()).unwrap()),
        };
        let value = match value {
            Json::String(text) => Value::String(text.clone()),
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => Value::U32(n.as_u64().unwrap() as u32),
            other => Value::Array(array(other)),
        };
        metadata.insert(key, value);
    }
    metadata
}

fn metadata_of(name: &str) -> Metadata {
    metadata(&read(&folder().join(format!("{name}.json")))["metadata"])
}

/// 32-bit FNV-1a of the ids' bytes.
fn digest(ids: &[u32]) -> u32 {
    ids.iter().flat_map(|id| id.to_le_bytes()).fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// Compares every string's ids with what a Python package gave. Says how many are equal, and shows the first that are not.
fn compare(name: &str, strings: &[String], tokenizer: &Tokenizer, expected: &Json, parse_special: bool) -> bool {
    let first: Vec<Vec<u32>> = serde_json::from_value(expected["first"].clone()).unwrap();
    let digests = expected["digests"].as_str().unwrap();
    let mut different = 0;
    for (i, text) in strings.iter().enumerate() {
        let ids = tokenizer.encode(text, parse_special).unwrap();
        if digest(&ids) != u32::from_str_radix(&digests[8 * i..8 * i + 8], 16).unwrap() {
            different += 1;
            if different <= 5 {
                let pieces: Vec<_> = ids.iter().take(60).map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id))).collect();
                let short: String = text.chars().take(120).collect();
                println!("{name}, string {i}: {short:?}\n  gave {:?}\n  {pieces:?}", &ids[..ids.len().min(60)]);
            }
        }
        if let Some(want) = first.get(i) {
            assert!(ids == *want || different > 0, "{name}: the digest of {text:?} is wrong");
            if ids != *want {
                println!("  instead of {want:?}");
            }
        }
    }
    println!("{name}: {} of {} equal", strings.len() - different, strings.len());
    different == 0
}

#[test]
fn byte_level_strings_equal_tokenizers() {
    let strings = strings();
    assert_eq!(strings.len(), 2000);
    let fixture = read(&folder().join("byte_level.json"));
    let mut metadata = metadata(&fixture["metadata"]);
    let mut equal = true;
    for (pre, expected) in fixture["pre"].as_object().unwrap() {
        metadata.insert("tokenizer.ggml.pre", Value::String(pre.clone()));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        equal &= compare(pre, &strings, &tokenizer, &expected["plain"], false);
        if !expected["parsed"].is_null() {
            equal &= compare(&format!("{pre}, parsed"), &strings, &tokenizer, &expected["parsed"], true);
        }
    }
    assert!(equal);
}

#[test]
fn sentence_piece_and_word_piece_equal_references() {
    let strings = strings();
    let mut equal = true;
    for name in ["spm_llama", "spm_gemma", "spm_unigram", "spm_t5", "wordpiece", "wordpiece_cased"] {
        let fixture = read(&folder().join(format!("{name}.json")));
        let tokenizer = Tokenizer::from_gguf(&metadata(&fixture["metadata"])).unwrap();
        equal &= compare(name, &strings, &tokenizer, &fixture["plain"], false);
    }
    assert!(equal);
}

/// The tokenizers that keep all of the text: byte-level ones that do not compose characters, and `SentencePiece` with byte fallback.
fn lossless() -> Vec<(String, Tokenizer)> {
    let mut metadata = metadata_of("byte_level");
    let mut tokenizers = Vec::new();
    for pre in ["llama-bpe", "gpt-2", "gpt-4o", "tekken", "falcon", "deepseek-llm", "deepseek-v3"] {
        metadata.insert("tokenizer.ggml.pre", Value::String(pre.to_owned()));
        tokenizers.push((pre.to_owned(), Tokenizer::from_gguf(&metadata).unwrap()));
    }
    for name in ["spm_llama", "spm_gemma", "spm_unigram"] {
        tokenizers.push((name.to_owned(), Tokenizer::from_gguf(&metadata_of(name)).unwrap()));
    }
    tokenizers
}

/// `SentencePiece` cannot tell its mark for spaces from spaces.
fn kept(name: &str, text: &str) -> String {
    if name.starts_with("spm") { text.replace('▁', " ") } else { text.to_owned() }
}

/// Ids pushed one by one give the text back, and no broken character on the way; so does any beginning of them.
#[test]
fn detokenizer_streams_decode_to_text() {
    let strings = strings();
    for (name, tokenizer) in lossless() {
        for text in &strings {
            let want = kept(&name, text);
            let ids = tokenizer.encode(text, false).unwrap();
            let mut detokenizer = tokenizer.detokenizer();
            let mut streamed = String::new();
            for &id in &ids {
                let before = streamed.len();
                streamed += &detokenizer.push(id);
                // What has been passed on is the beginning of the text: nothing is taken back, nothing is broken.
                assert_eq!(want.get(before..streamed.len()), Some(&streamed[before..]), "{name}: {text:?}");
            }
            assert_eq!(detokenizer.finish(), "", "{name}: {text:?}");
            assert_eq!(streamed, want, "{name}");
        }
    }
}

/// A pasted file is no reason to fail, whatever is in it.
#[test]
fn encoding_very_long_texts_roundtrips() {
    let repeated = ["a", "A", " ", "\n", "\t ", "中", "\u{301}", " a", "aB", "1", "!", "\r\n", "x\n   ", "'", "🚀", "'s", "<|im_end|>"];
    let mut texts: Vec<String> = repeated.iter().map(|part| part.repeat(100_000 / part.len())).collect();
    // No spaces, nothing repeated.
    let mut state = 1_u32;
    texts.push(
        (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'!' + (state >> 24) as u8 % 90)
            })
            .collect(),
    );
    texts.push(" ".repeat(100_000) + "x" + &" ".repeat(100_000) + "\n" + &" ".repeat(100_000));
    for (name, tokenizer) in lossless() {
        for text in &texts {
            let ids = tokenizer.encode(text, false).unwrap();
            assert!(tokenizer.decode(&ids) == kept(&name, text), "{name}: {:?}", &text[..text.floor_char_boundary(20)]);
        }
    }
    for name in ["spm_t5", "wordpiece"] {
        let tokenizer = Tokenizer::from_gguf(&metadata_of(name)).unwrap();
        assert!(texts.iter().all(|text| tokenizer.encode(text, false).is_ok()));
    }
}

/// Wherever encoding pauses, the tokens are those of the whole.
#[test]
fn encoding_in_slices_gives_same_tokens() {
    let mut texts = strings();
    texts.truncate(600);
    texts.extend(["a", " ", "中", "\u{301}", "aB", "<|im_end|>", "\u{1100}\u{1161}"].map(|part| part.repeat(20_000 / part.len())));
    let mut tokenizers = lossless();
    for name in ["spm_t5", "wordpiece"] {
        tokenizers.push((name.to_owned(), Tokenizer::from_gguf(&metadata_of(name)).unwrap()));
    }
    for (name, tokenizer) in tokenizers {
        for (i, text) in texts.iter().enumerate() {
            let pauses = std::cell::Cell::new(0);
            let pause = || {
                pauses.set(pauses.get() + 1);
                futures::future::ready(()).boxed_local()
            };
            let slice = [1, 7, 1000][i % 3];
            let mut pace = Pace::slices(slice, usize::MAX, &pause);
            let sliced = pollster::block_on(tokenizer.encode_paced(text, true, &mut pace)).unwrap();
            assert!(sliced == tokenizer.encode(text, true).unwrap(), "{name}: {:?}", &text[..text.floor_char_boundary(40)]);
            assert!(pauses.get() >= text.split_whitespace().count() / slice, "{name}: {} pauses", pauses.get());
        }
    }
}

/// A text that cannot fit is refused by its length, others once their tokens are too many; the number told is a lower bound.
#[test]
fn encoding_too_long_text_is_refused_early() {
    let text = "ab".repeat(50_000);
    for (name, tokenizer) in lossless() {
        let all = tokenizer.encode(&text, false).unwrap().len();
        for limit in [10, all - 1] {
            let pauses = std::cell::Cell::new(0);
            let pause = || {
                pauses.set(pauses.get() + 1);
                futures::future::ready(()).boxed_local()
            };
            let mut pace = Pace::slices(Pace::SLICE, limit, &pause);
            let result = pollster::block_on(tokenizer.encode_paced(&text, false, &mut pace));
            assert!(matches!(result, Err(TextError::TooLong { tokens }) if tokens > limit && tokens <= all), "{name}: {result:?}");
            assert!(limit > 10 || pauses.get() == 0, "{name}: {} pauses", pauses.get());
        }
        let pause = || futures::future::ready(()).boxed_local();
        assert!(pollster::block_on(tokenizer.encode_paced(&text, false, &mut Pace::slices(1000, all, &pause))).is_ok(), "{name}");
    }
}

/// Real vocabularies, from the files of `make_real.py` in the folder `DOPPLER_TOKENIZERS`.
#[test]
fn real_vocabularies_equal_references() {
    let Ok(folder) = std::env::var("DOPPLER_TOKENIZERS") else {
        return skip(
            "real_vocabularies_equal_references",
            "DOPPLER_TOKENIZERS names no folder of vocabularies (tests/fixtures/text/make_real.py)",
        );
    };
    let strings = strings();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut equal = true;
    for file in files {
        let fixture = read(&file);
        let metadata = metadata(&fixture["metadata"]);
        let begin = std::time::Instant::now();
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        println!("{} tokens read in {:.2} s", tokenizer.vocabulary_size(), begin.elapsed().as_secs_f32());
        equal &= compare(&file.file_name().unwrap().to_string_lossy(), &strings, &tokenizer, &fixture["plain"], false);
    }
    assert!(equal);
}
