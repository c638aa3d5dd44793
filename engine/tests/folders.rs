//! Model folders in Hugging Face's layout against GGUF's conventions (tests/fixtures/folders), and folders that lie.

use std::path::{Path, PathBuf};

use doppler_engine::error::EngineError;
use doppler_engine::formats::huggingface::Folder;
use doppler_engine::formats::{Checkpoint, DType, FormatError, TensorInfo, Transform, Value, read_rows};
use doppler_engine::model::{folder_checkpoint, read_checkpoint};
use doppler_engine::source::{FileSource, Files, MemorySource, Source, open};
use doppler_engine::text::Tokenizer;
use futures::executor::block_on;
use serde_json::{Value as Json, json};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/folders")
}

fn fixture(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// FNV-1a, as `make_folders.py` has it.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// A metadata value as JSON; arrays of no interest here are null.
fn as_json(value: Option<&Value>) -> Json {
    match value {
        Some(Value::U32(v)) => json!(v),
        Some(Value::I32(v)) => json!(v),
        Some(Value::F32(v)) => json!(v),
        Some(Value::Bool(v)) => json!(v),
        Some(Value::String(v)) => json!(v),
        _ => Json::Null,
    }
}

#[test]
fn folder_checkpoint_equals_gguf() {
    let expected = fixture("expected.json");
    for (name, want) in expected.as_object().unwrap() {
        let source = open(&fixtures().join(name)).unwrap();
        let got = block_on(read_checkpoint(&*source)).unwrap();
        for (key, want) in want["metadata"].as_object().unwrap() {
            let got = as_json(got.metadata.get(key));
            assert!(got == *want || got.as_f64() == want.as_f64() && got.is_number(), "{name}: {key}: {got} instead of {want}");
        }
        assert_eq!(got.metadata.str("general.name").unwrap(), name);
        for (tensor, want) in want["tensors"].as_object().unwrap() {
            let info = got.tensor(tensor).unwrap();
            let rows = info.rows();
            let bytes = block_on(read_rows(&*source, info, 0, rows)).unwrap();
            assert_eq!(json!([info.dtype.name(), info.shape, hash(&bytes)]), *want, "{name}: {tensor}");
            let last = block_on(read_rows(&*source, info, rows - 1, 1)).unwrap();
            assert!(bytes.ends_with(&last), "{name}: {tensor}");
            assert!(block_on(read_rows(&*source, info, rows, 1)).is_err(), "{name}: {tensor}");
        }
        let computed = got.tensors.iter().filter(|t| t.name == "rope_freqs.weight").count();
        assert_eq!(got.tensors.len() - computed, want["tensors"].as_object().unwrap().len(), "{name}");
        assert_eq!(json!(got.metadata.string_array("tokenizer.ggml.tokens").unwrap()), want["tokens"], "{name}");
    }
}

#[test]
fn folder_tokenizers_equal_transformers() {
    let expected = fixture("expected.json");
    for name in ["llama", "qwen2", "gemma2", "bert"] {
        let source = open(&fixtures().join(name)).unwrap();
        let metadata = block_on(read_checkpoint(&*source)).unwrap().metadata;
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        for case in expected[name]["strings"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            assert_eq!(json!(tokenizer.encode(text, false).unwrap()), case[1], "{name}: {text:?}");
            assert_eq!(json!(tokenizer.encode_prompt(text, false).unwrap()), case[2], "{name}: {text:?}");
        }
        if name == "llama" {
            assert_eq!(tokenizer.stop_tokens().collect::<Vec<_>>(), [2, 7]);
        }
        if name == "qwen2" {
            let ids = tokenizer.encode("<think>a<|im_start|>", false).unwrap();
            assert!(ids.contains(&303) && !ids.contains(&301), "{ids:?}");
            assert_eq!(tokenizer.encode("<|im_start|>", true).unwrap(), [301]);
        }
    }
}

#[test]
fn folder_rope_factors_equal_transformers() {
    let source = open(&fixtures().join("llama")).unwrap();
    let got = block_on(read_checkpoint(&*source)).unwrap();
    let info = got.tensor("rope_freqs.weight").unwrap();
    let bytes = block_on(read_rows(&*source, info, 0, 1)).unwrap();
    let want = fixture("expected.json")["llama"]["rope_freqs"].clone();
    let want: Vec<f64> = serde_json::from_value(want).unwrap();
    assert_eq!((info.dtype, info.shape.as_slice(), bytes.len()), (DType::F32, &[4][..], 16));
    for (bytes, want) in bytes.chunks(4).zip(want) {
        let got = f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        assert!((got / want - 1.0).abs() < 1e-5, "{got} {want}");
    }
}

/// Every architecture's tensors by name and shape; the gguf package's table says what they are called.
#[test]
fn folder_tensor_names_of_every_architecture_are_mapped() {
    let tokenizer = std::fs::read(fixtures().join("qwen2/tokenizer.json")).unwrap();
    for (name, model) in fixture("names.json").as_object().unwrap() {
        let config = serde_json::to_vec(&model["config"]).unwrap();
        let folder = Folder { name: name.clone(), config, tokenizer: Some(tokenizer.clone()), ..Folder::default() };
        let shape = |t: &Json| -> Vec<u64> { serde_json::from_value(t[1].clone()).unwrap() };
        let tensors = model["tensors"].as_array().unwrap().iter().map(|t| info(t[0].as_str().unwrap(), &shape(t)));
        let got = folder_checkpoint(&folder, tensors.collect()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let architecture = model["architecture"].as_str().unwrap();
        assert_eq!(got.metadata.str("general.architecture").unwrap(), architecture);
        for tensor in model["tensors"].as_array().unwrap() {
            let Some(ours) = tensor[2].as_str() else { continue };
            let found = got.find(ours).unwrap_or_else(|| panic!("{name}: {ours} for {}", tensor[0]));
            let mut shape = shape(tensor);
            if found.transform != Some(Transform::Transpose) {
                shape.reverse();
            }
            assert_eq!(found.shape, shape, "{name}: {ours}");
            let is_norm = ours.contains("norm");
            assert_eq!(
                found.transform == Some(Transform::AddOne(DType::F16)),
                is_norm && architecture.starts_with("gemma"),
                "{name}: {ours}"
            );
            assert_eq!(
                found.transform == Some(Transform::Transpose),
                architecture == "gpt2" && shape.len() == 2 && ours.starts_with("blk.")
            );
        }
        let metadata = |key: &str| as_json(got.metadata.get(&format!("{architecture}.{key}")));
        let heads = (metadata("attention.head_count"), metadata("attention.head_count_kv"));
        assert_eq!(heads, (json!(4), if matches!(name.as_str(), "gpt2" | "bert") { json!(4) } else { json!(2) }), "{name}");
        let neighbours = ["llama", "granite", "smollm3"].contains(&architecture);
        assert_eq!(got.metadata.contains("doppler.rope.pairing"), neighbours, "{name}");
        match name.as_str() {
            "mistral" => assert_eq!(metadata("attention.sliding_window"), 32),
            "gemma3" => {
                let bases = (metadata("rope.freq_base"), metadata("rope.freq_base_swa"));
                assert_eq!((bases, metadata("attention.sliding_window_pattern")), ((json!(1e6), json!(1e4)), Json::Null));
            }
            "qwen2" => assert_eq!(metadata("attention.sliding_window"), Json::Null),
            "stablelm" => assert_eq!((metadata("rope.dimension_count"), metadata("use_parallel_residual")), (json!(4), json!(false))),
            "granite" => assert_eq!((metadata("attention.scale"), metadata("logit_scale")), (json!(1.0), json!(1.0))),
            "phi3" => {
                let factors = got.tensor("rope_factors_long.weight").unwrap();
                assert_eq!(factors.transform, Some(Transform::Values((0..8).map(|i| 1.0 + i as f32 / 4.0).collect())));
                let factor = got.metadata.f32("phi3.rope.scaling.attn_factor").unwrap();
                assert!((factor - (1.0 + 2_f32.ln() / 128_f32.ln()).sqrt()).abs() < 1e-6);
            }
            "falcon" => {
                let qkv = got.tensor("blk.1.attn_qkv.weight").unwrap();
                assert_eq!(qkv.transform, Some(Transform::UngroupQkv { heads: 4, kv_heads: 2 }));
            }
            _ => {}
        }
    }
}

/// An F16 tensor of this (Hugging Face's) shape.
fn info(name: &str, shape: &[u64]) -> TensorInfo {
    let bytes = 2 * shape.iter().product::<u64>();
    TensorInfo { name: name.to_owned(), dtype: DType::F16, shape: shape.iter().rev().copied().collect(), offset: 0, bytes, transform: None }
}

/// Reordered rows: by all at once, and by each alone.
#[test]
fn transform_reordered_rows_are_read() {
    let check = |transform: Transform, shape: &[u64], want: &[u8]| {
        let rows = shape.iter().skip(1).product::<u64>();
        let bytes = shape.iter().product();
        let info =
            TensorInfo { name: "t".to_owned(), dtype: DType::I8, shape: shape.to_vec(), offset: 1, bytes, transform: Some(transform) };
        let source = MemorySource::new("m", (99..100).chain(0..bytes as u8).collect());
        assert_eq!(block_on(read_rows(&source, &info, 0, rows)).unwrap(), want);
        let single: Vec<u8> = (0..rows).flat_map(|row| block_on(read_rows(&source, &info, row, 1)).unwrap()).collect();
        assert_eq!(single, want);
    };
    // Two heads of four rows of two values.
    check(Transform::PairNeighbours { heads: 2 }, &[2, 8], &[0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]);
    check(Transform::PairNeighbours { heads: 2 }, &[8], &[0, 2, 1, 3, 4, 6, 5, 7]);
    // Two groups of two queries, a key and a value, heads of one row.
    check(Transform::UngroupQkv { heads: 4, kv_heads: 2 }, &[1, 8], &[0, 1, 4, 5, 2, 6, 3, 7]);
    check(Transform::Transpose, &[2, 3], &[0, 3, 1, 4, 2, 5]);
}

/// Zeros behind the rows of each group and behind each row of a matrix that is stored in another order.
#[test]
fn transform_padding_after_reordering_is_zero() {
    let transform = Some(Transform::PairNeighbours { heads: 2 });
    let stored = TensorInfo { name: "t".to_owned(), dtype: DType::I8, shape: vec![2, 8], offset: 1, bytes: 16, transform };
    let source = MemorySource::new("m", (0..17).collect());
    for (groups, want) in [
        (1, [[1, 2], [5, 6], [3, 4], [7, 8], [9, 10], [13, 14], [11, 12], [15, 16], [0, 0], [0, 0]]),
        (2, [[1, 2], [5, 6], [3, 4], [7, 8], [0, 0], [9, 10], [13, 14], [11, 12], [15, 16], [0, 0]]),
    ] {
        let transform = Some(Transform::Pad { stored: Box::new(stored.clone()), groups });
        let info = TensorInfo { shape: vec![3, 10], transform, ..stored.clone() };
        let want: Vec<u8> = want.iter().flat_map(|[a, b]| [*a, *b, 0]).collect();
        for count in [1, 2, 5, 10] {
            let parts = (0..10).step_by(count).map(|row| block_on(read_rows(&source, &info, row, count as u64)).unwrap());
            assert_eq!(parts.collect::<Vec<_>>().concat(), want, "{groups} groups, {count} rows together");
        }
    }
}

/// What `change` makes of the qwen2 folder's files, read as a folder.
fn changed(change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Result<Checkpoint, EngineError> {
    let mut files: Vec<Box<dyn Source>> = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(fixtures().join("qwen2")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(bytes) = change(name, std::fs::read(&path).unwrap()) {
            files.push(Box::new(MemorySource::new(name, bytes)));
        }
    }
    block_on(read_checkpoint(&Files::new("changed", files)))
}

/// The error when `key` (a path) of a JSON file has another value.
fn with(file: &str, pointer: &str, value: &Json) -> String {
    let result = changed(|name, bytes| {
        let Some((parent, key)) = pointer.rsplit_once('/').filter(|_| name == file) else { return Some(bytes) };
        let mut json: Json = serde_json::from_slice(&bytes).unwrap();
        json.pointer_mut(parent).unwrap()[key] = value.clone();
        Some(serde_json::to_vec(&json).unwrap())
    });
    result.err().map_or_else(|| panic!("{file} {pointer} = {value} was accepted"), |e| e.to_string())
}

#[test]
fn folder_missing_file_is_named() {
    assert!(changed(|_, bytes| Some(bytes)).is_ok());
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let error = changed(|name, bytes| (name != file).then_some(bytes)).unwrap_err();
        assert!(matches!(&error, EngineError::Format(FormatError::MissingFile { file: named }) if named == file), "{file}: {error}");
    }
    for file in ["tokenizer_config.json", "generation_config.json"] {
        assert!(changed(|name, bytes| (name != file).then_some(bytes)).is_ok(), "{file}");
    }
    // A shard.
    let shard = |name: &str| Box::new(FileSource::open(&fixtures().join("llama").join(name)).unwrap()) as Box<dyn Source>;
    let files = [
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    let error = block_on(read_checkpoint(&Files::new("llama", files.map(shard).into()))).unwrap_err();
    assert!(error.to_string().starts_with("model-00002-of-00003.safetensors is missing"), "{error}");
    let files = files.into_iter().filter(|name| !name.contains("index")).map(shard);
    let error = block_on(read_checkpoint(&Files::new("llama", files.collect()))).unwrap_err();
    assert!(error.to_string().contains("model.safetensors.index.json"), "{error}");
    // By one of its files.
    assert!(block_on(read_checkpoint(&*open(&fixtures().join("llama/config.json")).unwrap())).is_ok());
    assert!(open(Path::new("/nonexistent/model.gguf")).is_err());
}

#[test]
fn folder_malformed_configuration_is_refused() {
    for (file, pointer, value, part) in [
        ("config.json", "/model_type", json!("mamba"), "\"mamba\" is not supported"),
        ("config.json", "/model_type", json!(7), "model_type is missing"),
        ("config.json", "/hidden_act", json!("relu"), "activation"),
        ("config.json", "/quantization_config", json!({ "quant_method": "gptq" }), "gptq"),
        ("config.json", "/hidden_size", json!("x"), "expected an integer"),
        ("config.json", "/hidden_size", json!(-1), "expected an integer"),
        ("config.json", "/hidden_size", json!(1_u64 << 40), "expected an integer"),
        ("config.json", "/num_hidden_layers", Json::Null, "num_hidden_layers"),
        ("config.json", "/num_attention_heads", json!(0), "0 heads"),
        ("config.json", "/num_attention_heads", json!(3), "3 heads and 2"),
        ("config.json", "/head_dim", json!(4_000_000_000_u32), "heads of 4000000000"),
        ("config.json", "/head_dim", json!(0), "heads of 0"),
        ("config.json", "/rope_parameters/partial_rotary_factor", json!(9), "cannot be rotated"),
        ("config.json", "/rope_parameters/rope_type", json!("dynamic"), "\"dynamic\" is not supported"),
        ("config.json", "/rope_parameters", json!({ "rope_type": "yarn" }), "factor is missing"),
        (
            "config.json",
            "/rope_parameters",
            json!({ "rope_type": "longrope", "original_max_position_embeddings": 4, "long_factor": [1] }),
            "1 numbers",
        ),
        ("config.json", "/rope_parameters", json!([]), "no object"),
        ("tokenizer.json", "/model", Json::Null, "model is missing"),
        ("tokenizer.json", "/model/type", json!("Unigram"), "Unigram"),
        ("tokenizer.json", "/model/vocab/zzz", json!(4_000_000_000_u32), "the id 4000000000"),
        ("tokenizer.json", "/model/vocab/zzz", json!("a"), "the id of token"),
        ("tokenizer.json", "/model/merges", json!([["a"]]), "no two parts"),
        ("tokenizer.json", "/model/merges", json!(["a"]), "no two parts"),
        ("tokenizer.json", "/added_tokens", json!([{ "id": 3 }]), "no id and content"),
        ("tokenizer.json", "/pre_tokenizer", json!({ "type": "Whitespace" }), "Whitespace"),
        ("tokenizer.json", "/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("x+"), "x+"),
        ("tokenizer.json", "/pre_tokenizer", Json::Null, "BPE of characters"),
    ] {
        let error = with(file, pointer, &value);
        assert!(error.contains(part), "{file} {pointer} = {value}: {error}");
    }
    let error = changed(|name, bytes| Some(if name == "config.json" { bytes[..20].to_vec() } else { bytes })).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}

/// The error of a folder whose weights file is this header, with this many bytes of data behind.
fn weights(header: &[u8], data: usize) -> String {
    let file = [&(header.len() as u64).to_le_bytes(), header, &vec![0; data]].concat();
    let result = changed(|name, bytes| Some(if name == "model.safetensors" { file.clone() } else { bytes }));
    result.err().map_or_else(|| panic!("{} was accepted", String::from_utf8_lossy(header)), |e| e.to_string())
}

#[test]
fn safetensors_malformed_header_is_refused() {
    let tensor = |dtype: &str, shape: Json, offsets: Json| json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
    let one = |tensor: Json| weights(&serde_json::to_vec(&json!({ "model.norm.weight": tensor })).unwrap(), 16);
    let two = |a: Json, b: Json| weights(&serde_json::to_vec(&json!({ "model.norm.weight": a, "b": b })).unwrap(), 16);
    let big = 1_u64 << 63;
    assert!(one(tensor("F32", json!([4]), json!([0, 12]))).contains("not as long as its shape"));
    assert!(one(tensor("F32", json!([4]), json!([16, 0]))).contains("not as long as its shape"));
    assert!(one(tensor("F32", json!([4]), json!([4, 20]))).contains("does not begin where"));
    assert!(one(tensor("F32", json!([5]), json!([0, 20]))).contains("4 of"));
    assert!(one(tensor("F32", json!([big, 4]), json!([0, 16]))).contains("too many bytes"));
    assert!(one(tensor("F32", json!([0]), json!([0, 0]))).contains("no elements"));
    assert!(one(tensor("F32", json!([1, 1, 1, 1, 1]), json!([0, 4]))).contains("too many dimensions"));
    assert!(one(tensor("F8_E4M3", json!([16]), json!([0, 16]))).contains("F8_E4M3, which is not supported"));
    assert!(one(tensor("F32", json!([-4]), json!([0, 16]))).contains("invalid value"));
    assert!(one(tensor("F32", json!("x"), json!([0, 16]))).contains("invalid type"));
    assert!(one(tensor("F32", json!([4]), json!([0]))).contains("invalid length"));
    assert!(one(json!(7)).contains("model.norm.weight"));
    assert!(two(tensor("F32", json!([2]), json!([0, 8])), tensor("F32", json!([2]), json!([4, 12]))).contains("does not begin where"));
    assert!(two(tensor("F32", json!([2]), json!([0, 8])), tensor("F32", json!([1]), json!([12, 16]))).contains("does not begin where"));
    assert!(two(tensor("F32", json!([2]), json!([0, 8])), tensor("F32", json!([2]), json!([8, 16]))).contains("\"b\" is not supported"));
    assert!(one(tensor("F32", json!([u64::MAX / 4]), json!([0, u64::MAX - 3]))).contains("incomplete"));
    assert!(weights(b"{", 0).contains("corrupt"));
    assert!(weights(b"[]", 0).contains("corrupt"));
    assert!(weights(&[b"{\"a\":", &b"[".repeat(1 << 16)[..]].concat(), 0).contains("recursion"));
    let cut = |bytes: &[u8]| {
        let file = bytes.to_vec();
        changed(|name, bytes| Some(if name == "model.safetensors" { file.clone() } else { bytes })).unwrap_err().to_string()
    };
    assert!(cut(&[]).contains("incomplete"));
    assert!(cut(&[1, 0, 0, 0, 0, 0, 0]).contains("incomplete"));
    assert!(cut(&100_u64.to_le_bytes()).contains("at least 100 of at least 108"));
    assert!(cut(&u64::MAX.to_le_bytes()).contains("length of a safetensors header"));
}
