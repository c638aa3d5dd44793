//! `SentencePiece` vocabularies against the `sentencepiece` package, templates against `transformers`, and vocabularies that are wrong.

use std::path::PathBuf;

use doppler_engine::formats::{Array, Metadata, Value};
use doppler_engine::text::{ChatTemplate, TextError, Tokenizer};
use serde_json::{Map, Value as Json, json};

fn fixture(name: &str) -> Json {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/text").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn strings(items: &[&str]) -> Value {
    Value::Array(Array::String(items.iter().map(ToString::to_string).collect()))
}

/// Metadata of the `SentencePiece` model in a fixture.
fn sentence_piece(model: &Json) -> Metadata {
    let mut m = Metadata::new();
    m.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::String(serde_json::from_value(model["tokens"].clone()).unwrap())));
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(serde_json::from_value(model["scores"].clone()).unwrap())));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(serde_json::from_value(model["types"].clone()).unwrap())));
    m
}

#[test]
fn sentence_piece_equals_the_python_package() {
    let model = fixture("sentencepiece.json");
    let tokenizer = Tokenizer::from_gguf(&sentence_piece(&model)).unwrap();
    for case in model["cases"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case[1].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
    // The markers of Llama 2 are control tokens; BOS goes first, once.
    assert_eq!(tokenizer.encode_prompt("<s>", true).unwrap(), [1]);
    assert_eq!(tokenizer.encode("</s>", true).unwrap(), [2]);
    assert!(!tokenizer.encode("</s>", false).unwrap().contains(&2));
    assert!(tokenizer.is_stop(2) && !tokenizer.is_stop(1));
}

#[test]
fn templates_render_as_in_transformers() {
    let fixture = fixture("templates.json");
    let context = &fixture["context"];
    for case in fixture["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let tokens = Map::from_iter([("bos_token".to_owned(), context["bos_token"].clone())]);
        let result =
            ChatTemplate::new(source, tokens).and_then(|t| t.render(&context["messages"], Some(&context["tools"]), true, &Map::new()));
        match (&case["text"], result) {
            (Json::String(text), result) => assert_eq!(result.as_ref(), Ok(text), "{source}"),
            (_, Err(TextError::Render { message })) => assert!(message.contains(case["error"].as_str().unwrap()), "{message}"),
            (_, other) => panic!("{source}: {other:?}"),
        }
    }
}

const PYTHON_TYPE_ERRORS: [&str; 5] =
    ["has no attribute", "can only concatenate", "is not iterable", "not subscriptable", "expected string"];

/// Templates of real models, each with every conversation. Where transformers refuses, so do we: in the template's own words if it
/// has any.
#[test]
fn real_templates_render_as_in_transformers() {
    let fixture = fixture("templates/rendered.json");
    let tokens = fixture["tokens"].as_object().unwrap();
    let (mut equal, mut different) = (0, 0);
    for (file, rendered) in fixture["rendered"].as_object().unwrap() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/text/templates").join(file);
        let mut template = ChatTemplate::new(&std::fs::read_to_string(path).unwrap(), tokens.clone()).unwrap();
        template.set_clock(|| 1_751_620_087); // 2025-07-04 09:08:07
        for (name, want) in rendered.as_object().unwrap() {
            let mut arguments = fixture["conversations"][name].as_object().unwrap().clone();
            let messages = arguments.remove("messages").unwrap();
            let tools = arguments.remove("tools");
            let prompt = arguments.remove("add_generation_prompt").is_some_and(|p| p == true);
            let got = template.render(&messages, tools.as_ref(), prompt, &arguments);
            let same = match (&want["text"], &got) {
                (Json::String(text), Ok(got)) => text == got,
                // A wrong type is an error in Python, and text or an error here.
                _ if want["error"].as_str().is_some_and(|e| PYTHON_TYPE_ERRORS.iter().any(|python| e.contains(python))) => true,
                (Json::Null, Err(TextError::Render { message })) => message.contains(want["error"].as_str().unwrap()),
                _ => false,
            };
            if same {
                equal += 1;
            } else {
                different += 1;
                println!("{file}, {name}:\n{got:?}\ninstead of\n{want:?}");
            }
        }
    }
    println!("{equal} equal, {different} different");
    assert_eq!(different, 0);
    assert!(equal >= 12 * 17);
}

#[test]
fn templates_that_cannot_be_used() {
    let render = |source: &str| {
        let template = ChatTemplate::new(source, Map::new())?;
        template.render(&json!([]), None, false, &Map::from_iter([("thinking".to_owned(), json!(true))]))
    };
    assert_eq!(render("{{ thinking }}{{ tools is none }}"), Ok("TrueTrue".to_owned()));
    assert!(matches!(render("{% if %}"), Err(TextError::Template { .. })));
    assert!(matches!(render("{{ nope() }}"), Err(TextError::Render { .. })));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless), Err(TextError::Render { message }) if message.contains("come to an end")));
    let huge = "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}";
    assert!(matches!(render(huge), Err(TextError::Render { .. })));
    let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(matches!(render(recursive), Err(TextError::Render { .. })));
    assert_eq!(render("{{ strftime_now('%Y') | int > 2024 }}"), Ok("True".to_owned()));
    assert!(matches!(ChatTemplate::from_gguf(&Metadata::new()), Err(TextError::NoChatTemplate)));
}

#[test]
fn vocabularies_that_cannot_be_used() {
    let mut m = Metadata::new();
    m.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    m.insert("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "<|x|>", "<y>"]));
    m.insert("tokenizer.ggml.merges", strings(&["a b"]));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1, 1, 1, 3, 4])));
    m.insert("tokenizer.ggml.eos_token_id", Value::U32(99));
    let tokenizer = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(tokenizer.encode("aba<|x|><y>", true).unwrap(), [2, 0, 3, 4]);
    assert_eq!((tokenizer.eos(), tokenizer.bos()), (None, None));
    assert_eq!(tokenizer.decode(&[2, 3, 4, 5, u32::MAX]), "ab<y>");

    let fails = |key: &str, value: Value| {
        let mut m = m.clone();
        m.insert(key, value);
        Tokenizer::from_gguf(&m).unwrap_err().to_string()
    };
    assert!(
        fails("tokenizer.ggml.model", Value::String("rwkv".to_owned()))
            .contains("\"rwkv\" is not supported (supported: gpt2, llama, t5, bert)")
    );
    assert!(
        fails("tokenizer.ggml.pre", Value::String("martian".to_owned())).contains("\"martian\" is not supported (supported: llama-bpe")
    );
    assert!(fails("tokenizer.ggml.merges", strings(&["ab"])).contains("no two parts"));
    assert!(fails("tokenizer.ggml.merges", strings(&["a c"])).contains("corrupt"));
    assert!(fails("tokenizer.ggml.merges", Value::Bool(true)).contains("expected an array of strings"));
    assert!(fails("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1]))).contains("5 tokens but 1 token types"));
    assert!(fails("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1, 1, 1, 1, 9]))).contains("token type 9"));
    assert!(fails("tokenizer.ggml.model", Value::String("llama".to_owned())).contains("5 tokens but 0 scores"));
    assert!(Tokenizer::from_gguf(&Metadata::new()).unwrap_err().to_string().contains("tokenizer.ggml.tokens"));
}

/// Every name in the table compiles, and cuts text without losing any.
#[test]
fn every_pre_tokenizer_works() {
    let mut m = Metadata::new();
    let alphabet: Vec<String> = ('!'..='~').chain('¡'..='ÿ').chain('Ā'..='Ń').map(String::from).collect();
    m.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::String(alphabet)));
    m.insert("tokenizer.ggml.merges", strings(&[]));
    let text = "Hello, 12345 WORLD's\t\n\n  naïve 世界 🚀 ".repeat(3) + &" ".repeat(5000) + &"ab".repeat(5000);
    for pre in ["llama-bpe", "dbrx", "qwen2", "smollm", "gpt-2", "gpt-4o", "tekken", "falcon", "default"] {
        m.insert("tokenizer.ggml.pre", Value::String(pre.to_owned()));
        let tokenizer = Tokenizer::from_gguf(&m).unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false).unwrap()), text, "{pre}");
    }
}
