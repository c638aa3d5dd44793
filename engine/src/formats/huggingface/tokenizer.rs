//! `tokenizer.json` and its companions to GGUF's keys.

use std::collections::HashMap;

use serde_json::Value as JsonValue;

use super::json::Json;
use super::{Folder, missing};
use crate::formats::{Array, FormatError, Metadata, Value, pre_tokenizers};

/// Holes and padding of a vocabulary at most; real ones have some hundreds.
const MAX_PADDING: usize = 1 << 16;

/// GPT-2's pattern, which the pre-tokenizer `ByteLevel` has built in.
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy)]
enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Adds tokenizer, chat template, special tokens and recommended sampling. `rows` are the embedding's, up to which the vocabulary is
/// padded, as llama.cpp wants it.
pub(super) fn add(folder: &Folder, config: &Json, rows: u64, metadata: &mut Metadata) -> Result<(), FormatError> {
    let bytes = folder.tokenizer.as_ref().ok_or_else(|| missing("tokenizer.json"))?;
    let mut tokenizer = Json::parse("tokenizer.json", bytes)?;
    let model = tokenizer.take("model").ok_or_else(|| tokenizer.invalid("model is missing".to_owned()))?;
    let optional = |file: &str, bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(Json::parse(file, b"{}"), |bytes| Json::parse(file, bytes));
    let settings = optional("tokenizer_config.json", &folder.tokenizer_config)?;
    let generation = optional("generation_config.json", &folder.generation_config)?;
    let mut vocabulary = Vocabulary::read(&tokenizer, &model)?;
    vocabulary.pad(rows.min((vocabulary.tokens.len() + MAX_PADDING) as u64));
    let mut put = |key: &str, value: Value| drop(metadata.insert(format!("tokenizer.ggml.{key}"), value));
    let byte_fallback = model.bool(&["byte_fallback"])?.unwrap_or(false);
    let mut tokens = vocabulary.tokens.clone();
    match model.str("type").unwrap_or("BPE") {
        "BPE" if byte_fallback => {
            put("model", Value::String("llama".to_owned()));
            put("pre", Value::String("default".to_owned()));
            put("scores", Value::Array(Array::F32(scores(&model, &vocabulary)?)));
            put("add_space_prefix", Value::Bool(adds_space(&tokenizer)));
        }
        "BPE" => {
            let patterns = patterns(&tokenizer)?;
            let ignore_merges = model.bool(&["ignore_merges"])?.unwrap_or(false);
            let pre = pre_tokenizers::recognise(&patterns, ignore_merges, is_nfc(&tokenizer)?).ok_or_else(|| {
                unsupported("pre_tokenizer", &patterns.join(" then "), "the patterns of GPT-2, Llama 3, Qwen 2 and others")
            })?;
            put("model", Value::String("gpt2".to_owned()));
            put("pre", Value::String(pre.to_owned()));
            put("merges", Value::Array(Array::String(merges(&model)?.iter().map(|pair| pair.map(escape).join(" ")).collect())));
        }
        "WordPiece" => {
            // Words begin with ▁ and what continues one has no mark: llama.cpp's convention.
            for (token, kind) in tokens.iter_mut().zip(&vocabulary.types) {
                if !matches!(kind, TokenType::Control | TokenType::Unused) {
                    *token = token.strip_prefix("##").map_or_else(|| format!("▁{token}"), str::to_owned);
                }
            }
            put("model", Value::String("bert".to_owned()));
            put("pre", Value::String("default".to_owned()));
            let normalizer = tokenizer.object("normalizer")?.map(|normalizer| tokenizer.part("normalizer", normalizer));
            for key in ["lowercase", "strip_accents"] {
                if let Some(value) = normalizer.as_ref().map_or(Ok(None), |normalizer| normalizer.bool(&[key]))? {
                    put(&format!("normalizer.{key}"), Value::Bool(value));
                }
            }
            put("token_type_count", Value::U32(config.u32(&["type_vocab_size"])?.unwrap_or(1)));
        }
        other => return Err(unsupported("tokenizer model", other, "BPE, WordPiece")),
    }
    put("tokens", Value::Array(Array::String(tokens)));
    put("token_type", Value::Array(Array::I32(vocabulary.types.iter().map(|&kind| kind as i32).collect())));
    special_tokens(&tokenizer, &settings, &generation, config, &vocabulary, &mut put)?;
    templates(folder, &settings, metadata)?;
    sampling(&generation, metadata)
}

fn unsupported(what: &'static str, value: &str, supported: &str) -> FormatError {
    FormatError::UnsupportedFolder { what, value: value.to_owned(), supported: supported.to_owned() }
}

/// A blank in a merge, where it would be taken for the separator, as GGUF files write it: GPT-2's letter for the byte.
fn escape(part: &str) -> String {
    part.replace(' ', "Ġ")
}

/// The tokens with their kinds, by id.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<TokenType>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    fn read(tokenizer: &Json, model: &Json) -> Result<Self, FormatError> {
        let mut named: Vec<(u64, &str, TokenType)> = Vec::new();
        let unknown = model.str("unk_token");
        let byte_fallback = model.bool(&["byte_fallback"])?.unwrap_or(false);
        for (token, id) in model.object("vocab")?.into_iter().flatten() {
            let is_byte = || token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            let kind = match token.as_str() {
                token if Some(token) == unknown => TokenType::Unknown,
                _ if byte_fallback && is_byte() => TokenType::Byte,
                _ => TokenType::Normal,
            };
            let id = id.as_u64().ok_or_else(|| tokenizer.invalid(format!("the id of token {token:?} is {id}")))?;
            named.push((id, token, kind));
        }
        for added in tokenizer.get("added_tokens").and_then(JsonValue::as_array).map(Vec::as_slice).unwrap_or_default() {
            let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else {
                return Err(tokenizer.invalid(format!("the added token {added} has no id and content")));
            };
            let kind = match added["special"].as_bool() {
                Some(true) if Some(token) == unknown && byte_fallback => TokenType::Unknown,
                Some(true) => TokenType::Control,
                _ => TokenType::UserDefined,
            };
            named.push((id, token, kind));
        }
        let count = named.iter().map(|(id, ..)| id + 1).max().unwrap_or(0);
        if count > (named.len() + MAX_PADDING) as u64 {
            return Err(tokenizer.invalid(format!("the vocabulary has {} tokens and the id {}", named.len(), count - 1)));
        }
        let mut vocabulary = Self { tokens: Vec::new(), types: Vec::new(), ids: HashMap::with_capacity(named.len()) };
        vocabulary.pad(count);
        // Added tokens come last and replace what the model says of them.
        for (id, token, kind) in named {
            token.clone_into(&mut vocabulary.tokens[id as usize]);
            vocabulary.types[id as usize] = kind;
            vocabulary.ids.insert(token.to_owned(), id as u32);
        }
        Ok(vocabulary)
    }

    /// Fills up to `count` tokens.
    fn pad(&mut self, count: u64) {
        for id in self.tokens.len()..count as usize {
            self.tokens.push(format!("[PAD{id}]"));
            self.types.push(TokenType::Unused);
        }
    }
}

/// The pairs that are merged, best first; old files write them as one string.
fn merges(model: &Json) -> Result<Vec<[&str; 2]>, FormatError> {
    let merges = model.get("merges").and_then(JsonValue::as_array).map(Vec::as_slice).unwrap_or_default();
    merges.iter().map(|merge| parts(merge).ok_or_else(|| model.invalid(format!("the merge {merge} has no two parts")))).collect()
}

fn parts(merge: &JsonValue) -> Option<[&str; 2]> {
    match merge {
        JsonValue::String(text) => text.split_once(' ').map(|(left, right)| [left, right]),
        JsonValue::Array(parts) => match parts.as_slice() {
            [JsonValue::String(left), JsonValue::String(right)] => Some([left, right]),
            _ => None,
        },
        _ => None,
    }
}

/// `SentencePiece` scores that give the merges' order: the earlier a token arises, the better.
fn scores(model: &Json, vocabulary: &Vocabulary) -> Result<Vec<f32>, FormatError> {
    let mut scores = vec![0.0; vocabulary.tokens.len()];
    for (rank, pair) in merges(model)?.iter().enumerate().rev() {
        if let Some(&id) = vocabulary.ids.get(&pair.concat()) {
            scores[id as usize] = -1.0 - rank as f32;
        }
    }
    Ok(scores)
}

/// The steps of `key`, a single one or a sequence of them under `list`.
fn steps<'a>(tokenizer: &'a Json, key: &str, list: &str) -> Vec<&'a JsonValue> {
    match tokenizer.get(key) {
        None => Vec::new(),
        Some(step) => step.get(list).and_then(JsonValue::as_array).map_or_else(|| vec![step], |steps| steps.iter().collect()),
    }
}

/// Whether text is brought into Unicode's composed form first, the only normalization that GGUF can tell of a byte-level tokenizer.
fn is_nfc(tokenizer: &Json) -> Result<bool, FormatError> {
    match steps(tokenizer, "normalizer", "normalizers").as_slice() {
        [] => Ok(false),
        [step] if step["type"] == "NFC" => Ok(true),
        [step, ..] => Err(unsupported("normalizer", &step.to_string(), "NFC")),
    }
}

/// Whether a space is put before the first word.
fn adds_space(tokenizer: &Json) -> bool {
    let normalizers = steps(tokenizer, "normalizer", "normalizers");
    let pre_tokenizers = steps(tokenizer, "pre_tokenizer", "pretokenizers");
    normalizers.iter().any(|step| step["type"] == "Prepend")
        || pre_tokenizers.iter().any(|step| {
            let scheme = step["prepend_scheme"].as_str().unwrap_or("always");
            step["type"] == "Metaspace" && scheme != "never" && step["add_prefix_space"] != false
        })
}

/// The patterns by which a byte-level tokenizer cuts text, one after the other.
fn patterns(tokenizer: &Json) -> Result<Vec<String>, FormatError> {
    let mut patterns = Vec::new();
    let mut bytes = false;
    for step in steps(tokenizer, "pre_tokenizer", "pretokenizers") {
        let isolated =
            matches!((step["behavior"].as_str(), step["invert"].as_bool()), (Some("Isolated"), _) | (Some("Removed"), Some(true)));
        match (step["type"].as_str().unwrap_or_default(), step["pattern"]["Regex"].as_str()) {
            ("ByteLevel", _) if step["add_prefix_space"] != true => {
                bytes = true;
                if step["use_regex"] != false {
                    patterns.push(BYTE_LEVEL.to_owned());
                }
            }
            ("Digits", _) => patterns.push(if step["individual_digits"] == true { r"\p{N}" } else { r"\p{N}+" }.to_owned()),
            ("Split", Some(regex)) if isolated => patterns.push(regex.to_owned()),
            _ => return Err(unsupported("pre_tokenizer", &step.to_string(), "ByteLevel, Digits, Split that isolates a Regex")),
        }
    }
    if bytes { Ok(patterns) } else { Err(unsupported("tokenizer", "BPE of characters", "BPE of bytes")) }
}

/// Ids of the special tokens, and whether the first of them begin and end a text.
fn special_tokens(
    tokenizer: &Json,
    settings: &Json,
    generation: &Json,
    config: &Json,
    vocabulary: &Vocabulary,
    put: &mut dyn FnMut(&str, Value),
) -> Result<(), FormatError> {
    // A token is named by its text, in tokenizer_config.json as it is or as an object, or by its id in the other files.
    let text = |key: &str| settings.get(key).and_then(|token| token.as_str().or(token["content"].as_str()));
    let id = |name: &str| {
        let by_text = text(&format!("{name}_token")).and_then(|text| vocabulary.ids.get(text).copied());
        let key = format!("{name}_token_id");
        let by_id = || [config, generation].iter().find_map(|file| first_id(file.get(&key)?));
        by_text.or_else(by_id).filter(|&id| (id as usize) < vocabulary.tokens.len())
    };
    let (bos, eos) = (id("bos").or_else(|| id("cls")), id("eos").or_else(|| id("sep")));
    let keys = [
        ("bos_token_id", bos),
        ("eos_token_id", eos),
        ("unknown_token_id", id("unk")),
        // The key is misspelt in GGUF itself.
        ("seperator_token_id", id("sep")),
        ("padding_token_id", id("pad")),
        ("mask_token_id", id("mask")),
    ];
    for (key, id) in keys {
        if let Some(id) = id {
            put(key, Value::U32(id));
        }
    }
    // Chat models often end a turn by another token than a text, and tell so only for generation.
    let ends = generation.get("eos_token_id").map(|ids| ids.as_array().map_or(vec![ids], |ids| ids.iter().collect())).unwrap_or_default();
    let others = ends.into_iter().filter_map(first_id).filter(|&id| Some(id) != eos && (id as usize) < vocabulary.tokens.len());
    for (key, id) in ["eot_token_id", "eom_token_id"].into_iter().zip(others) {
        put(key, Value::U32(id));
    }
    let template = steps(tokenizer, "post_processor", "processors").into_iter().find(|step| step["type"] == "TemplateProcessing");
    let single = template.and_then(|template| template["single"].as_array()).map(Vec::as_slice).unwrap_or_default();
    let special =
        |item: Option<&JsonValue>| item.and_then(|item| item["SpecialToken"]["id"].as_str()).and_then(|text| vocabulary.ids.get(text));
    let flags = [("add_bos_token", special(single.first()), bos), ("add_eos_token", special(single.last()), eos)];
    for (key, found, wanted) in flags {
        let by_template = found.is_some() && found == wanted.as_ref();
        put(key, Value::Bool(settings.bool(&[key])?.unwrap_or(by_template)));
    }
    Ok(())
}

/// An id, or the first of a list.
fn first_id(value: &JsonValue) -> Option<u32> {
    value.as_u64().or_else(|| value.as_array()?.first()?.as_u64()).and_then(|id| u32::try_from(id).ok())
}

/// The chat template: a file of its own, or in `tokenizer_config.json` one or several with names.
fn templates(folder: &Folder, settings: &Json, metadata: &mut Metadata) -> Result<(), FormatError> {
    let mut put = |key: &str, text: &str| drop(metadata.insert(key.to_owned(), Value::String(text.to_owned())));
    if let Some(file) = &folder.chat_template {
        let text =
            std::str::from_utf8(file).map_err(|e| FormatError::Json { file: "chat_template.jinja".to_owned(), problem: e.to_string() })?;
        put("tokenizer.chat_template", text);
        return Ok(());
    }
    match settings.get("chat_template") {
        Some(JsonValue::String(text)) => put("tokenizer.chat_template", text),
        Some(JsonValue::Array(list)) => {
            for template in list {
                match (template["name"].as_str(), template["template"].as_str()) {
                    (Some("default"), Some(text)) => put("tokenizer.chat_template", text),
                    (Some(name), Some(text)) => put(&format!("tokenizer.chat_template.{name}"), text),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// What `generation_config.json` recommends where it says that tokens are drawn.
fn sampling(generation: &Json, metadata: &mut Metadata) -> Result<(), FormatError> {
    if !generation.bool(&["do_sample"])?.unwrap_or(false) {
        return Ok(());
    }
    for (from, to) in [("temperature", "temp"), ("top_p", "top_p"), ("min_p", "min_p"), ("repetition_penalty", "penalty_repeat")] {
        if let Some(value) = generation.f32(&[from])? {
            metadata.insert(format!("general.sampling.{to}"), Value::F32(value));
        }
    }
    if let Some(value) = generation.u32(&["top_k"])? {
        metadata.insert("general.sampling.top_k", Value::I32(value as i32));
    }
    Ok(())
}
