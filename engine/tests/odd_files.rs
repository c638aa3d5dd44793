//! Files that are odd and good, files that are odd and refused, and what is said of them. Each is `llama-2.gguf` of the fixtures with one
//! alteration; those that load answer as it does.

mod raw;

use doppler_engine::api::ChatRequest;
use doppler_engine::engine::Engine;
use doppler_engine::error::EngineError;
use doppler_engine::exec::{Cpu, Executor};
use doppler_engine::formats::DType;
use doppler_engine::kernels::{Capabilities, Sampler};
use doppler_engine::model::{ModelOptions, families, read_checkpoint};
use doppler_engine::plan::plan;
use doppler_engine::source::{Files, MemorySource, Source};
use doppler_files::{OLLAMA_PARAMETERS, OLLAMA_SYSTEM};
use futures::executor::block_on;
use futures::future::{Either, select};
use raw::{Entry, Raw, array, string};
use serde_json::{Value, json};

const OPTIONS: ModelOptions = ModelOptions {
    context: 64,
    sequences: 1,
    prefill_rows: 16,
    kv: doppler_engine::kernels::KvFormat::F32,
    kv_bytes: 1 << 20,
    quantize: None,
};

/// What a model answers to a fixed prompt, and what is said of its file.
fn answer(file: Vec<u8>) -> Result<(Vec<u32>, Vec<String>), EngineError> {
    let source = MemorySource::new("odd.gguf", file);
    let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    block_on(async {
        let (mut engine, client) = Engine::load(executor, "odd", &source, OPTIONS, &mut |_| {}).await.map_err(|(_, error)| error)?;
        let notes = client.info().notes.clone();
        let trace = std::pin::pin!(client.trace(vec![5, 40, 77, 140, 200, 31], 6, 0));
        let running = std::pin::pin!(engine.run());
        match select(trace, running).await {
            Either::Left((trace, _)) => Ok((trace.expect("a trace").tokens, notes)),
            Either::Right((result, _)) => panic!("the engine ended: {result:?}"),
        }
    })
}

enum Verdict {
    /// Loads, and answers as the unaltered file.
    Same,
    /// The same, and this is said.
    Said(&'static str),
    /// Loads.
    Loads,
    /// Is refused with a sentence that has these words.
    Refused(&'static str),
}

use Verdict::{Loads, Refused, Said, Same};

/// An alteration with its name and what becomes of the file.
type Case = (&'static str, Verdict, fn(&mut Raw));

fn check(cases: &[Case]) {
    let (expected, notes) = answer(Raw::fixture("llama-2").write()).expect("the unaltered file");
    assert!(notes.is_empty(), "{notes:?}");
    for (name, verdict, alter) in cases {
        let mut raw = Raw::fixture("llama-2");
        alter(&mut raw);
        match (verdict, answer(raw.write())) {
            (Same, Ok((tokens, notes))) => assert_eq!((&tokens, notes), (&expected, vec![]), "{name}"),
            (Said(words), Ok((tokens, notes))) => {
                assert_eq!(tokens, expected, "{name}");
                assert!(notes.iter().any(|note| note.contains(words)), "{name}: {notes:?}");
            }
            (Loads, Ok((tokens, _))) => assert_eq!(tokens.len(), 6, "{name}"),
            (Refused(words), Err(error)) => assert!(error.to_string().contains(words), "{name}: {error}"),
            (_, Ok(_)) => panic!("{name} loads"),
            (_, Err(error)) => panic!("{name} is refused: {error}"),
        }
    }
}

#[test]
fn file_alignments_and_versions_load_or_are_refused() {
    check(&[
        ("alignment 8", Same, |raw| raw.align(4, 8)),
        ("alignment 64", Same, |raw| raw.align(4, 64)),
        ("alignment 256", Same, |raw| raw.align(4, 256)),
        ("alignment in 64 bits", Same, |raw| raw.align(10, 64)),
        ("alignment 4", Refused("alignment 4"), |raw| raw.align(4, 4)),
        ("alignment 0", Refused("alignment 0"), |raw| raw.put("general.alignment", 4, &0_u32.to_le_bytes())),
        ("version 2", Same, |raw| raw.version = 2),
        ("version 1", Refused("version 1"), |raw| raw.version = 1),
        ("version 4", Refused("version 4"), |raw| raw.version = 4),
        ("big-endian", Refused("big-endian"), |raw| raw.version = 3_u32.swap_bytes()),
        ("tensors in another order", Same, |raw| raw.tensors.reverse()),
        ("data in another order", Same, |raw| raw.reversed = true),
        ("holes between data", Same, |raw| raw.hole = 3),
        ("a tensor twice", Refused("occurs twice"), |raw| raw.tensors.push(raw.tensors[1].clone())),
        ("a tensor without elements", Refused("no elements"), |raw| raw.tensor(b"blk.0.extra", &[0], 0, vec![])),
        ("NULs behind a tensor's name", Same, |raw| raw.tensors[3].name.extend([0, 0])),
        ("split in no parts", Same, |raw| raw.split(0)),
        ("split in one part", Same, |raw| raw.split(1)),
        ("split in two parts", Refused("part 2 of 2 is missing"), |raw| raw.split(2)),
    ]);
}

#[test]
fn file_odd_metadata_loads_or_is_refused() {
    check(&[
        ("nested arrays", Same, |raw| {
            let numbers = array(4, 2, &[1, 0, 0, 0, 2, 0, 0, 0]);
            raw.put("x.nested", 9, &array(9, 2, &[numbers, array(8, 1, &string(b"a"))].concat()));
        }),
        ("all scalar types", Same, |raw| {
            for (id, bytes) in [(1_u32, 1_usize), (2, 2), (7, 1), (11, 8), (12, 8)] {
                raw.put(&format!("x.{id}"), id, &vec![0; bytes]);
                raw.put(&format!("x.array{id}"), 9, &array(id, 2, &vec![0; 2 * bytes]));
                raw.put(&format!("x.empty{id}"), 9, &array(id, 0, &[]));
            }
        }),
        ("a key twice", Refused("occurs twice"), |raw| raw.entries.push(raw.entries[1].clone())),
        ("NULs behind the architecture", Same, |raw| raw.text("general.architecture", b"llama\0\0")),
        ("NULs behind a key", Same, |raw| raw.entry("general.architecture").key.push(0)),
        ("a name in Latin-1", Same, |raw| raw.text("general.name", b"caf\xe9 model")),
        ("a description that is no text", Same, |raw| raw.text("general.description", b"\xff\xfe")),
        ("key-value heads of each layer", Same, |raw| raw.each_layer("llama.attention.head_count_kv", 4)),
        ("signed key-value heads of each layer", Same, |raw| raw.each_layer("llama.attention.head_count_kv", 5)),
        ("heads of each layer", Same, |raw| raw.each_layer("llama.attention.head_count", 4)),
        ("widths of each layer", Same, |raw| raw.each_layer("llama.feed_forward_length", 4)),
        ("widths that differ from the tensors'", Refused("blk.1.ffn_gate.weight"), |raw| {
            let width = raw.entry("llama.feed_forward_length").value.clone();
            raw.put("llama.feed_forward_length", 9, &array(4, 2, &[width, vec![32, 0, 0, 0]].concat()));
        }),
        ("widths of some layers", Refused("a number for each of the 2 layers"), |raw| {
            raw.put("llama.feed_forward_length", 9, &array(4, 1, &[64, 0, 0, 0]));
        }),
        ("no heads in a layer", Refused("llama.attention.head_count_kv = 0"), |raw| {
            raw.put("llama.attention.head_count_kv", 9, &array(4, 2, &[4, 0, 0, 0, 0, 0, 0, 0]));
        }),
        ("a context of 4,194,304", Said("4194304"), |raw| raw.number("llama.context_length", 4_194_304)),
        ("a context of 2^40", Said("1099511627776"), |raw| raw.put("llama.context_length", 10, &(1_u64 << 40).to_le_bytes())),
        ("a context of 1,048,576", Same, |raw| raw.number("llama.context_length", 1_048_576)),
        ("no context", Refused("llama.context_length"), |raw| raw.drop("llama.context_length")),
        ("shapes in 64 bits", Same, |raw| {
            raw.put("llama.block_count", 10, &2_u64.to_le_bytes());
            raw.put("llama.rope.freq_base", 12, &10_000_f64.to_le_bytes());
        }),
        ("an integer as base", Same, |raw| raw.number("llama.rope.freq_base", 10_000)),
        ("what has a default is left out", Same, |raw| {
            for key in ["llama.rope.dimension_count", "llama.vocab_size", "llama.rope.freq_base"] {
                raw.drop(key);
            }
        }),
        ("rope scaling of no kind", Same, |raw| raw.text("llama.rope.scaling.type", b"none")),
        ("rope scaling that is not known", Refused("dynamic"), |raw| raw.text("llama.rope.scaling.type", b"dynamic")),
        ("rope scaling by 1", Same, |raw| raw.put("llama.rope.scaling.factor", 6, &1_f32.to_le_bytes())),
        ("the old key of rope scaling", Loads, |raw| raw.put("llama.rope.scale_linear", 6, &2_f32.to_le_bytes())),
        ("a flag that is a number", Loads, |raw| raw.put("tokenizer.ggml.add_bos_token", 0, &[1])),
        ("no end token", Same, |raw| raw.put("tokenizer.ggml.eos_token_id", 5, &(-1_i32).to_le_bytes())),
        ("a start token beyond the vocabulary", Same, |raw| raw.number("tokenizer.ggml.bos_token_id", u32::MAX)),
        ("no padding token", Same, |raw| raw.put("tokenizer.ggml.padding_token_id", 5, &(-1_i32).to_le_bytes())),
        ("half a character as token", Same, |raw| raw.token(260, b"\xe2\x96")),
        ("no token types", Loads, |raw| raw.drop("tokenizer.ggml.token_type")),
        ("Ollama's name of Qwen 2.5 VL", Loads, |raw| {
            for entry in &mut raw.entries {
                if let Some(rest) = entry.key.strip_prefix(b"llama.") {
                    entry.key = [b"qwen25vl.", rest].concat();
                }
            }
            raw.text("general.architecture", b"qwen25vl");
        }),
        ("no template", Same, |raw| raw.drop("tokenizer.chat_template")),
    ]);
}

#[test]
fn file_with_further_tensors_loads_or_is_refused() {
    check(&[
        ("factors of 1", Same, |raw| raw.floats(b"rope_freqs.weight", 12, 1.0)),
        ("stored frequencies", Same, |raw| raw.floats(b"blk.0.attn_rot_embd.weight", 12, 1.0)),
        ("a bias of zeros", Same, |raw| raw.floats(b"blk.0.attn_q.bias", 96, 0.0)),
        ("the embedding as output", Loads, |raw| raw.tensors.retain(|tensor| tensor.name != b"output.weight")),
        ("a part for pictures", Said("2 tensors for pictures"), |raw| {
            raw.tensor(b"v.patch_embd.weight", &[4, 4, 3, 8], 1, vec![0; 768]);
            raw.tensor(b"mm.0.weight", &[32, 32], 1, vec![0; 2048]);
        }),
        ("a layer that predicts further tokens", Said("predict further tokens"), |raw| {
            raw.tensor(b"blk.2.nextn.eh_proj.weight", &[192, 96], 1, vec![0; 36_864]);
            raw.number("llama.nextn_predict_layers", 1);
        }),
        ("such a layer that is counted", Said("predict further tokens"), |raw| {
            raw.tensor(b"blk.2.nextn.eh_proj.weight", &[192, 96], 1, vec![0; 36_864]);
            raw.number("llama.nextn_predict_layers", 1);
            raw.number("llama.block_count", 3);
        }),
        ("a scale of 1", Same, |raw| raw.floats(b"blk.0.attn_q.scale", 1, 1.0)),
        ("scales that cancel out", Same, |raw| {
            // The gate's is not linear; up and down are.
            raw.floats(b"blk.0.ffn_up.scale", 1, 4.0);
            raw.floats(b"blk.0.ffn_down.scale", 1, 0.25);
            raw.floats(b"blk.1.attn_v.scale", 1, 0.5);
            raw.floats(b"blk.1.attn_output.scale", 1, 2.0);
            raw.floats(b"blk.1.attn_v.input_scale", 1, 3.0);
        }),
        ("a scale that is no number", Refused("blk.0.attn_q.scale"), |raw| raw.floats(b"blk.0.attn_q.scale", 1, f32::NAN)),
        ("a scale of each row", Refused("blk.0.attn_q.scale"), |raw| raw.floats(b"blk.0.attn_q.scale", 96, 1.0)),
        ("a scale of nothing", Refused("blk.0.none.scale"), |raw| raw.floats(b"blk.0.none.scale", 1, 1.0)),
        ("a classifier", Refused("cls.output.weight"), |raw| raw.tensor(b"cls.output.weight", &[96, 2], 0, vec![0; 768])),
    ]);
}

/// Gate and up in one tensor with one bias, the gate's rows first, answer as in two.
#[test]
fn fused_gate_and_up_with_biases_answer_as_separate() {
    let biases = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes().repeat(64)).collect::<Vec<u8>>();
    let mut separate = Raw::fixture("llama-2");
    let mut fused = Raw::fixture("llama-2");
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}").into_bytes();
        separate.tensor(&name("ffn_gate.bias"), &[64], 0, biases(&[0.3]));
        separate.tensor(&name("ffn_up.bias"), &[64], 0, biases(&[-2.0]));
        let at = fused.tensors.iter().position(|tensor| tensor.name == name("ffn_gate.weight")).expect("a gate");
        let gate = fused.tensors.remove(at);
        let up = fused.tensors.iter_mut().find(|tensor| tensor.name == name("ffn_up.weight")).expect("an up");
        up.data = [gate.data, std::mem::take(&mut up.data)].concat();
        up.shape[1] *= 2;
        fused.tensor(&name("ffn_up.bias"), &[128], 0, biases(&[0.3, -2.0]));
    }
    let plain = answer(Raw::fixture("llama-2").write()).expect("the unaltered file");
    let separate = answer(separate.write()).expect("two tensors");
    assert_ne!(separate, plain);
    assert_eq!(answer(fused.write()).expect("one tensor"), separate);
}

/// Files that people open by mistake: one sentence says what it is.
#[test]
fn file_without_model_is_refused_by_kind() {
    fn only(raw: &mut Raw, entries: &[(&str, &[u8])], name: &[u8]) {
        raw.entries.clear();
        raw.tensors.clear();
        for (key, value) in entries {
            raw.text(key, value);
        }
        raw.floats(name, 96, 0.0);
    }
    check(&[
        ("LoRA", Refused("a LoRA adapter, which changes"), |raw| {
            only(raw, &[("general.architecture", b"llama"), ("general.type", b"adapter")], b"blk.0.attn_q.weight.lora_a");
        }),
        ("an early LoRA", Refused("a LoRA adapter"), |raw| {
            only(raw, &[("general.architecture", b"llama"), ("adapter.type", b"lora")], b"blk.0.attn_q.weight.lora_a");
        }),
        ("projector", Refused("multimodal projector (mmproj)"), |raw| {
            only(raw, &[("general.architecture", b"clip")], b"v.patch_embd.weight");
        }),
        ("projector of a new kind", Refused("multimodal projector"), |raw| {
            only(raw, &[("general.architecture", b"new"), ("general.type", b"mmproj")], b"a.weight");
        }),
        ("importance matrix", Refused("importance matrix (imatrix)"), |raw| only(raw, &[("general.type", b"imatrix")], b"x.in_sum2")),
        ("control vector", Refused("control vector"), |raw| only(raw, &[("general.architecture", b"controlvector")], b"direction.1")),
        ("vocabulary", Refused("without weights"), |raw| raw.tensors.clear()),
        ("another family", Refused("\"mamba2\" is not supported: its Mamba layers carry a state"), |raw| {
            raw.text("general.architecture", b"mamba2");
        }),
        ("a new family", Refused("\"martian\" is not supported: this version does not know it"), |raw| {
            raw.text("general.architecture", b"martian");
        }),
    ]);
    for (bytes, words) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"[..], "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"Entry not found", "server's error message"),
        (&[0; 10_000], "zeros"),
        (b"", "empty"),
        (b"\x01\x02", "begins with [01, 02]"),
        (b"PK\x03\x04....", "zip archive"),
        (b"\x10\0\0\0\0\0\0\0{\"a\": 1}", "safetensors file"),
        (b"{\"a\": 1}", "JSON"),
    ] {
        let error = answer(bytes.to_vec()).expect_err("no model").to_string();
        assert!(error.starts_with("this is not a GGUF file but ") && error.contains(words), "{words}: {error}");
    }
}

/// A cut header does not know how much is missing; cut data does.
#[test]
fn truncated_file_states_missing_bytes() {
    let file = Raw::fixture("llama-2").write();
    let told = |length: usize| answer(file[..length].to_vec()).expect_err("a cut file").to_string();
    assert!(told(300).contains("at least "), "{}", told(300));
    let missing = format!("incomplete: 1 of {} bytes are missing", file.len());
    assert!(told(file.len() - 1).contains(&missing), "{}", told(file.len() - 1));
}

/// One matrix, or the weights of a norm, of each type that ggml has or had: loads, or is refused by name before anything is read.
#[test]
fn tensor_types_unsupported_are_refused_by_name() {
    let check = |id: u32, tensor: &[u8]| {
        let mut raw = Raw::fixture("llama-2");
        let dtype = DType::from_ggml(id);
        raw.widen();
        let target = raw.tensors.iter_mut().find(|t| t.name == tensor).expect("a tensor");
        let elements: u64 = target.shape.iter().product();
        target.dtype = id;
        target.data = vec![0; dtype.layout().map_or(65_536, |(size, bytes)| (elements / size * bytes) as usize)];
        let source = MemorySource::new("type.gguf", raw.write());
        let checkpoint = block_on(read_checkpoint(&source)).expect("a well-formed file");
        match plan(&checkpoint, &Capabilities::BASELINE, OPTIONS) {
            Ok(_) => assert!(dtype.is_supported(), "{dtype} is planned"),
            Err(error) => {
                let (name, error) = (String::from_utf8_lossy(tensor), error.to_string());
                assert!(!dtype.is_supported() && error.contains(&*name), "{dtype}: {error}");
                assert!(error.contains(&format!("the weight format {dtype} of ")), "{dtype}: {error}");
                assert_eq!(error.contains("type id"), id == 250, "{error}");
            }
        }
    };
    for id in (0..=42).filter(|id| ![5, 32, 33, 37].contains(id)).chain([250]) {
        check(id, b"blk.0.ffn_down.weight");
        check(id, b"output_norm.weight");
    }
}

/// The parameters and the system prompt that Ollama keeps beside a model hold where a request says nothing else.
#[test]
fn ollama_parameters_and_system_prompt_become_defaults() {
    let mut raw = Raw::fixture("llama-2");
    raw.text("tokenizer.chat_template", b"{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}");
    let load = |parameters: &str| {
        let files = [("sha256-0", raw.write()), (OLLAMA_PARAMETERS, parameters.into()), (OLLAMA_SYSTEM, b"Be brief.".to_vec())];
        let files = files.map(|(name, bytes)| Box::new(MemorySource::new(name, bytes)) as Box<dyn Source>);
        let source = Files::new("model", files.into_iter().collect());
        let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
        block_on(Engine::load(executor, "model", &source, OPTIONS, &mut |_| {})).map_err(|(_, error)| error)
    };
    let parameters = json!({
        "temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.25, "repeat_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 1,
        "seed": 11, "num_predict": 9, "stop": ["<user>", "x"], "num_ctx": 4096, "mirostat": 1,
    });
    let (_engine, client) = load(&parameters.to_string()).expect("a model");
    assert_eq!(client.info().notes, ["of Ollama's parameters, these are not used: mirostat, num_ctx"]);
    let parse = |request: Value| ChatRequest::parse(&request).expect("a request");
    let user = json!({ "role": "user", "content": "hi" });
    let system = |text: &str| json!({ "role": "system", "content": text });
    let request = parse(json!({ "messages": [user] }));
    let request = request.resolve(client.defaults());
    let sampling = Sampler {
        temperature: 0.5,
        top_k: 7,
        top_p: 0.75,
        min_p: 0.25,
        repetition_penalty: 1.5,
        presence_penalty: -1.0,
        frequency_penalty: 1.0,
        seed: 11,
        ..Sampler::default()
    };
    assert_eq!(request.sampling, sampling);
    assert_eq!((request.max_tokens, &request.stop[..]), (Some(9), &["<user>".to_owned(), "x".to_owned()][..]));
    assert_eq!(*request.messages, json!([system("Be brief."), user]));
    // The request's own go first.
    let own = json!({ "messages": [system("Be long."), user], "temperature": 0, "max_tokens": 3, "stop": "y", "seed": 5 });
    let own = parse(own);
    let own = own.resolve(client.defaults());
    let Sampler { temperature, top_k, seed, .. } = own.sampling;
    assert_eq!((temperature, top_k, seed, own.max_tokens, own.stop.len()), (0.0, 7, 5, Some(3), 3));
    assert_eq!(own.messages[0], system("Be long."));
    let count = |messages: Value| block_on(client.count(&parse(json!({ "messages": messages })))).expect("a prompt");
    assert_eq!(count(json!([user])), count(json!([system("Be brief."), user])));
    let unlimited = parse(json!({ "messages": [user], "max_tokens": -1 })).resolve(client.defaults()).max_tokens;
    assert_eq!(unlimited, Some(u32::MAX), "a request without a limit has none of the model's");
    // No limit and no seed are none, what makes no sense is named, what is no JSON is an error.
    let (_engine, client) = load(r#"{"num_predict":-1,"seed":-1,"temperature":-3,"stop":[""],"top_k":1.5}"#).expect("a model");
    assert_eq!(client.info().notes, ["of Ollama's parameters, these are not used: stop, temperature, top_k"]);
    assert_eq!((client.defaults().max_tokens, &client.defaults().sampling), (None, &Sampler::default()));
    assert!(load("temperature 1").unwrap_err().to_string().contains("ollama-parameters.json"));
}

/// Gemma 3 as Ollama's own converter writes it: what it leaves out is as Ollama has it, never another family's default.
#[test]
fn ollama_gemma3_keys_are_completed() {
    let fixture = || {
        let mut raw = Raw::fixture("gemma3");
        for key in ["type", "factor"] {
            raw.drop(&format!("gemma3.rope.scaling.{key}"));
        }
        raw
    };
    let read = |raw: &Raw| block_on(read_checkpoint(&MemorySource::new("gemma3.gguf", raw.write()))).expect("a checkpoint");
    let plain = read(&fixture());
    assert!(plain.notes.is_empty());
    let mut raw = fixture();
    for key in ["attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.freq_base_swa"] {
        raw.drop(&format!("gemma3.{key}"));
    }
    raw.put("gemma3.rope.local.freq_base", 6, &12_345_f32.to_le_bytes());
    raw.number("gemma3.vision.block_count", 27);
    raw.tensor(b"v.patch_embd.weight", &[4, 4, 3, 8], 1, vec![0; 768]);
    let checkpoint = read(&raw);
    let value = |key: &str| checkpoint.metadata.f32(&format!("gemma3.{key}")).expect("a number");
    let values = ["attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.freq_base_swa"].map(value);
    assert_eq!(values.map(f32::to_bits), [1e-6, 1e6, 12_345.0].map(f32::to_bits));
    assert_eq!((checkpoint.notes.len(), checkpoint.tensors.len()), (2, plain.tensors.len()), "{:?}", checkpoint.notes);
    plan(&checkpoint, &Capabilities::BASELINE, OPTIONS).expect("a model");
    // The sizes whose values Ollama corrects by their number of layers.
    for (layers, factor, cap) in [(26, None, None), (34, Some(8.0), Some(30.0)), (62, Some(8.0), Some(30.0)), (18, None, Some(30.0))] {
        raw.number("gemma3.block_count", layers);
        raw.put("gemma3.final_logit_softcapping", 6, &30_f32.to_le_bytes());
        let metadata = read(&raw).metadata;
        assert_eq!(metadata.f32_opt("gemma3.rope.scaling.factor").expect("a number"), factor, "{layers}");
        assert_eq!(metadata.f32_opt("gemma3.final_logit_softcapping").expect("a number"), cap, "{layers}");
    }
    // Without Ollama's keys nothing is corrected, and a base that is left out is the family's.
    let mut raw = fixture();
    raw.drop("gemma3.rope.freq_base");
    raw.number("gemma3.block_count", 34);
    assert!(read(&raw).metadata.f32_opt("gemma3.rope.scaling.factor").expect("a number").is_none());
    let mut raw = fixture();
    raw.drop("gemma3.rope.freq_base");
    let spec = families::spec(&read(&raw)).expect("a spec");
    assert!(spec.attentions().filter_map(|a| a.rope.as_ref()).any(|rope| rope.base.to_bits() == 1e6_f32.to_bits()));
}

/// What the alterations rest on.
#[test]
fn raw_writer_roundtrips_entries() {
    let Entry { key, kind, .. } = Raw::fixture("llama-2").entries.swap_remove(0);
    assert_eq!((key.as_slice(), kind), (&b"general.architecture"[..], 8));
}
