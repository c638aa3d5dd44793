//! Widths that are no multiple of what kernels read at once, in every type of floats, and sizes that differ by layer: the same answers
//! as with explicit zeros, or as the model's definition has them.
#![allow(missing_docs)]

mod plain;
#[path = "../engine/tests/raw/mod.rs"]
#[allow(dead_code, reason = "shared with tests that alter more")]
mod raw;

use doppler_engine::exec::{Cpu, Executor};
use doppler_engine::formats::convert::{Recipe, write_gguf};
use doppler_engine::formats::{DType, convert_rows, dequantize};
use doppler_engine::kernels::{Capabilities, KvFormat};
use doppler_engine::model::{ModelOptions, read_checkpoint};
use doppler_engine::source::MemorySource;
use doppler_tests::{beside, devices, gpu, load, nmse};
use plain::Plain;
use raw::{Raw, Tensor};

/// The tensor with `cols` of its columns and `rows` of its rows, or with zeros in the place of the others; in `dtype`.
fn cut(tensor: &mut Tensor, cols: u64, rows: u64, zeros: bool, dtype: DType) {
    let mut values = Vec::new();
    dequantize(DType::from_ggml(tensor.dtype), &tensor.data, &mut values).expect("floats");
    let width = tensor.shape[0] as usize;
    let (cols, rows) = (cols as usize, rows as usize);
    if zeros {
        values.iter_mut().enumerate().filter(|(i, _)| i % width >= cols || i / width >= rows).for_each(|(_, value)| *value = 0.0);
    } else {
        values = values.chunks(width).take(rows).flat_map(|row| row[..cols].to_vec()).collect();
        tensor.shape = vec![cols as u64, rows as u64];
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor.data = convert_rows(DType::F32, dtype, tensor.shape[0], &bytes).expect("floats");
    tensor.dtype = dtype.ggml_id();
}

/// Alters the tensors of all layers whose names end so.
fn each(raw: &mut Raw, end: &str, alter: impl Fn(&mut Tensor)) {
    let mut tensors = raw.tensors.iter_mut().filter(|tensor| tensor.name.ends_with(end.as_bytes())).peekable();
    assert!(tensors.peek().is_some(), "{end}");
    tensors.for_each(alter);
}

/// A feed-forward network of this width, or as wide as the fixture's with zeros.
fn narrow_network(name: &str, width: u64, zeros: bool, dtype: DType) -> Raw {
    let mut raw = Raw::fixture(name);
    let gated = raw.tensors.iter().any(|tensor| tensor.name.ends_with(b"ffn_gate.weight"));
    for up in ["ffn_gate.weight", "ffn_up.weight"].into_iter().skip(usize::from(!gated)) {
        each(&mut raw, up, |tensor| cut(tensor, tensor.shape[0], width, zeros, dtype));
    }
    each(&mut raw, "ffn_down.weight", |tensor| cut(tensor, width, tensor.shape[1], zeros, dtype));
    if raw.tensors.iter().any(|tensor| tensor.name.ends_with(b"ffn_up.bias")) {
        each(&mut raw, "ffn_up.bias", |tensor| {
            tensor.data[4 * width as usize..].fill(0);
            if !zeros {
                tensor.data.truncate(4 * width as usize);
                tensor.shape = vec![width];
            }
        });
    }
    if !zeros {
        let architecture = if name == "gpt2" { "gpt2" } else { "llama" };
        raw.number(&format!("{architecture}.feed_forward_length"), width as u32);
    }
    raw
}

/// Three heads of 12 elements, or six of which three do nothing.
fn odd_heads(zeros: bool, dtype: DType) -> Raw {
    let mut raw = Raw::fixture("llama-2");
    let heads = if zeros { 6 } else { 3 };
    for key in ["attention.head_count", "attention.head_count_kv"] {
        raw.number(&format!("llama.{key}"), heads);
    }
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        raw.number(&format!("llama.{key}"), 12);
    }
    let width = u64::from(12 * heads);
    for part in ["attn_q.weight", "attn_k.weight", "attn_v.weight"] {
        each(&mut raw, part, |tensor| cut(tensor, tensor.shape[0], width, false, dtype));
    }
    each(&mut raw, "attn_output.weight", |tensor| {
        cut(tensor, width, tensor.shape[1], false, dtype);
        cut(tensor, 36, tensor.shape[1], true, dtype);
    });
    raw
}

const OPTIONS: ModelOptions =
    ModelOptions { context: 64, sequences: 1, prefill_rows: 16, kv: KvFormat::F32, kv_bytes: 1 << 20, quantize: None };

fn cpu() -> Executor {
    Executor::Cpu(Cpu::new(Capabilities::BASELINE))
}

fn prompt() -> Vec<u32> {
    (0..19).map(|i| i * 13 + 5).collect()
}

/// The logits after the prompt, and those of some tokens more.
fn logits(executor: Executor, file: Vec<u8>, options: ModelOptions) -> Vec<f32> {
    let source = MemorySource::new("odd.gguf", file);
    pollster::block_on(async {
        let (mut engine, client) = load(executor, &source, options).await.expect("a model");
        beside(&mut engine, client.trace(prompt(), 3, 3)).await.expect("a trace").logits.concat()
    })
}

/// The same as another model.
fn check(what: &str, odd: &Raw, even: &Raw) {
    check_logits(what, odd, &logits(cpu(), even.write(), OPTIONS));
}

/// On the host, and on a device in the way that reads exactly.
fn check_logits(what: &str, odd: &Raw, want: &[f32]) {
    let (_, plain) = devices().swap_remove(1);
    for (place, executor, bound) in [("host", cpu(), 1e-12), ("device", Executor::Gpu(Box::new(gpu(&plain))), 1e-6)] {
        let error = nmse(&logits(executor, odd.write(), OPTIONS), want);
        assert!(error < bound, "{what} on the {place}: off by {error:.1e}");
    }
}

#[test]
fn feed_forward_of_odd_width_equals_plain() {
    for (dtype, width) in [(DType::F32, 61), (DType::F16, 57), (DType::BF16, 62)] {
        check(
            &format!("{dtype} of {width}"),
            &narrow_network("llama-2", width, false, dtype),
            &narrow_network("llama-2", width, true, dtype),
        );
    }
    check("gpt2", &narrow_network("gpt2", 61, false, DType::F16), &narrow_network("gpt2", 61, true, DType::F16));
}

#[test]
fn heads_of_odd_total_width_equal_plain() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        check(&format!("{dtype}"), &odd_heads(false, dtype), &odd_heads(true, dtype));
    }
}

/// The second layer has half as many heads, and the first a narrower feed-forward network: as with zeros in their place.
#[test]
fn layers_of_other_sizes_equal_plain() {
    let numbers = |values: [u32; 2]| raw::array(4, 2, &values.map(u32::to_le_bytes).concat());
    let model = |zeros: bool| {
        let mut raw = narrow_layer(zeros);
        let mut half = |part: &str, is_output: bool| {
            each(&mut raw, part, |tensor| {
                let (cols, rows) = (tensor.shape[0], tensor.shape[1]);
                let (cols, rows) = if is_output { (cols / 2, rows) } else { (cols, rows / 2) };
                cut(tensor, cols, rows, zeros, DType::F32);
            });
        };
        for part in ["blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight"] {
            half(part, false);
        }
        half("blk.1.attn_output.weight", true);
        if !zeros {
            raw.put("llama.attention.head_count", 9, &numbers([4, 2]));
            raw.put("llama.attention.head_count_kv", 9, &numbers([4, 2]));
        }
        raw
    };
    check("sizes by layer", &model(false), &model(true));
}

/// The first layer's feed-forward network is 40 wide.
fn narrow_layer(zeros: bool) -> Raw {
    let mut raw = Raw::fixture("llama-2");
    let width = raw.tensors.iter().find(|tensor| tensor.name == b"blk.0.ffn_gate.weight").expect("a tensor").shape[1] as u32;
    for up in ["blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"] {
        each(&mut raw, up, |tensor| cut(tensor, tensor.shape[0], 40, zeros, DType::F32));
    }
    each(&mut raw, "blk.0.ffn_down.weight", |tensor| cut(tensor, 40, tensor.shape[1], zeros, DType::F32));
    if !zeros {
        raw.put("llama.feed_forward_length", 9, &raw::array(4, 2, &[40_u32, width].map(u32::to_le_bytes).concat()));
    }
    raw
}

/// The second layer has two key and value heads of its own: as with each of them twice.
#[test]
fn kv_heads_differing_by_layer_equal_plain() {
    let model = |grouped: bool| {
        let mut raw = Raw::fixture("llama-2");
        for part in ["blk.1.attn_k.weight", "blk.1.attn_v.weight"] {
            each(&mut raw, part, |tensor| {
                let heads: Vec<Vec<u8>> = tensor.data.chunks(tensor.data.len() / 4).map(<[u8]>::to_vec).collect();
                let kept = if grouped { vec![0, 1] } else { vec![0, 0, 1, 1] };
                tensor.data = kept.iter().flat_map(|head: &usize| heads[*head].clone()).collect();
                tensor.shape[1] = tensor.shape[1] / 4 * kept.len() as u64;
            });
        }
        if grouped {
            raw.put("llama.attention.head_count_kv", 9, &raw::array(4, 2, &[4_u32, 2].map(u32::to_le_bytes).concat()));
        }
        raw
    };
    check("two of four key and value heads", &model(true), &model(false));
}

/// A fixture whose residual stream is so wide, with an epsilon that matters.
fn narrow_stream(name: &str, width: u64, dtype: DType) -> Raw {
    const NORMS: [&str; 5] = ["attn_norm.weight", "ffn_norm.weight", "output_norm.weight", "post_attention_norm.weight", "ffw_norm.weight"];
    let mut raw = Raw::fixture(name);
    for tensor in &mut raw.tensors {
        let is = |end: &&str| tensor.name.ends_with(end.as_bytes());
        let along_rows = tensor.shape.len() == 2 && ["attn_output.weight", "ffn_down.weight"].iter().any(is);
        if along_rows {
            cut(tensor, tensor.shape[0], width, false, dtype);
        } else if tensor.shape.len() == 2 {
            cut(tensor, width, tensor.shape[1], false, dtype);
        } else if NORMS.iter().chain(&["attn_output.bias", "ffn_down.bias"]).any(is) {
            tensor.shape = vec![width];
            tensor.data.truncate(4 * width as usize);
        }
    }
    let queries = raw.tensors.iter().find(|tensor| tensor.name == b"blk.0.attn_q.weight").map_or(0, |tensor| tensor.shape[1]);
    let key = raw.entries.iter().find(|entry| entry.key.ends_with(b".embedding_length")).expect("a width").key.clone();
    let architecture = String::from_utf8(key).expect("a name").replace(".embedding_length", "");
    // Four heads in each of them.
    for (key, value) in [("embedding_length", width), ("attention.key_length", queries / 4), ("attention.value_length", queries / 4)] {
        raw.number(&format!("{architecture}.{key}"), value as u32);
    }
    raw.put(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 6, &0.1_f32.to_le_bytes());
    raw
}

fn plain<'a>(name: &str, raw: &'a Raw) -> Plain<'a> {
    Plain { raw, neighbours: name.starts_with("llama"), gemma: name == "gemma" }
}

#[test]
fn residual_stream_of_odd_width_equals_plain() {
    for (name, width, dtype) in [
        ("llama-2", 60, DType::F32),
        ("llama-2", 90, DType::BF16),
        ("llama-bias", 33, DType::F16),
        ("qwen3", 57, DType::F32),
        ("olmo2", 90, DType::F32),
        ("gemma", 60, DType::F32),
    ] {
        let raw = narrow_stream(name, width, dtype);
        check_logits(&format!("{name}, {width} wide in {dtype}"), &raw, &plain(name, &raw).logits(&prompt(), 3));
    }
}

/// As many elements as the model is wide, without padding.
#[test]
fn embedding_of_odd_width_equals_plain() {
    let mut raw = narrow_stream("qwen3", 57, DType::F32);
    raw.number("qwen3.pooling_type", 3);
    let want: Vec<f32> = plain("qwen3", &raw).hidden(&prompt()[..16]).pop().expect("a token").iter().map(|v| *v as f32).collect();
    let source = MemorySource::new("odd.gguf", raw.write());
    let got = pollster::block_on(async {
        let (mut engine, client) = load(cpu(), &source, OPTIONS).await.expect("a model");
        assert_eq!(client.info().embedding, Some(57));
        beside(&mut engine, client.embed(prompt()[..16].to_vec())).await.expect("an embedding")
    });
    assert_eq!(got.len(), 57);
    let of_length_1 = |values: Vec<f32>| -> Vec<f32> {
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.iter().map(|v| v / length).collect()
    };
    let error = nmse(&of_length_1(got), &of_length_1(want));
    assert!(error < 1e-10, "off by {error:.1e}");
}

/// A file that `quantize` makes of such a model loads, and so does the model with quantization during the load.
#[test]
fn quantized_model_of_odd_width_stays_close() {
    let raw = narrow_stream("llama-2", 90, DType::F32);
    let want = plain("llama-2", &raw).logits(&prompt(), 1);
    let vocabulary = want.len();
    for (recipe, bound) in [(Recipe::F32, 1e-12), (Recipe::F16, 1e-5), (Recipe::Q8_0, 1e-2), (Recipe::Q4_0, 0.2), (Recipe::Q4_K_M, 1e-2)] {
        let source = MemorySource::new("odd.gguf", raw.write());
        let mut written = Vec::new();
        pollster::block_on(async {
            let checkpoint = read_checkpoint(&source).await.expect("a model");
            write_gguf(&checkpoint, &source, recipe, &mut written, &mut |_| {}).await.expect("a file");
        });
        let during = ModelOptions { quantize: Some(recipe), ..OPTIONS };
        for (what, got) in [("written", logits(cpu(), written, OPTIONS)), ("loaded", logits(cpu(), raw.write(), during))] {
            let error = nmse(&got[..vocabulary], &want);
            assert!(error < bound, "{recipe:?}, {what}: off by {error:.1e}");
        }
    }
}

#[test]
fn layer_norm_of_odd_width_is_refused() {
    let mut raw = Raw::fixture("gpt2");
    raw.number("gpt2.embedding_length", 60);
    let source = MemorySource::new("odd.gguf", raw.write());
    let error = pollster::block_on(load(cpu(), &source, OPTIONS)).expect_err("a refusal").to_string();
    assert!(error.contains("60 with layer norms"), "{error}");
}
