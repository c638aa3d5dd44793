//! Floats to weight formats against the `gguf` package and ggml's error, and models to GGUF files.

use std::path::PathBuf;

use doppler_engine::engine::Engine;
use doppler_engine::exec::{Cpu, Executor};
use doppler_engine::formats::convert::{Recipe, write_gguf};
use doppler_engine::formats::gguf_write::{TensorData, write};
use doppler_engine::formats::{Checkpoint, DType, FormatError, convert_rows, dequantize, read_rows};
use doppler_engine::kernels::{Capabilities, KvFormat};
use doppler_engine::model::{ModelOptions, read_checkpoint};
use doppler_engine::source::{MemorySource, Source, open};
use futures::executor::block_on;
use futures::future::{Either, select};
use serde_json::Value;

const RECIPES: [Recipe; 5] = [Recipe::F32, Recipe::F16, Recipe::Q8_0, Recipe::Q4_0, Recipe::Q4_K_M];

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

fn hex(value: &Value) -> Vec<u8> {
    value.as_str().unwrap().as_bytes().chunks(2).map(|h| u8::from_str_radix(str::from_utf8(h).unwrap(), 16).unwrap()).collect()
}

fn floats(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    dequantize(dtype, bytes, &mut values).unwrap();
    values
}

#[test]
fn convert_rows_quantizes_as_ggml() {
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture("quants/quantized.json")).unwrap()).unwrap();
    let rows = hex(&fixture["rows"]);
    for dtype in [DType::Q8_0, DType::Q4_0] {
        assert_eq!(convert_rows(DType::F32, dtype, 256, &rows).unwrap(), hex(&fixture[dtype.name()]), "{dtype}");
    }
    let gaussian = &rows[..fixture["gaussian_rows"].as_u64().unwrap() as usize * 1024];
    let error = |dtype| {
        let got = floats(dtype, &convert_rows(DType::F32, dtype, 256, gaussian).unwrap());
        let squares = got.iter().zip(floats(DType::F32, gaussian)).map(|(a, b)| f64::from(a - b).powi(2));
        (squares.sum::<f64>() / got.len() as f64).sqrt()
    };
    for dtype in [DType::Q4_K, DType::Q6_K] {
        let (got, ggml) = (error(dtype), fixture["rmse"][dtype.name()].as_f64().unwrap());
        assert!(got < 1.01 * ggml, "{dtype}: {got} instead of ggml's {ggml}");
        // Zeros stay zeros, one value among zeros survives.
        let odd = floats(dtype, &convert_rows(DType::F32, dtype, 256, &rows[gaussian.len()..]).unwrap());
        assert!(odd[..256].iter().all(|v| *v == 0.0), "{dtype}");
        assert!((odd[256 + 7] + 3.5).abs() < 0.02, "{dtype}: {}", odd[256 + 7]);
        assert!(odd[512..768].iter().zip([1.0, -1.0, 0.5, -0.5].iter().cycle()).all(|(a, b)| (a - b).abs() < 0.1), "{dtype}");
    }
    assert!(error(DType::Q4_K) < 0.9 * error(DType::Q4_0), "{} {}", error(DType::Q4_K), error(DType::Q4_0));
}

#[test]
fn convert_rows_converts_floats() {
    let values = [0.0_f32, -1.5, 65504.0, 1e-8];
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    for (dtype, want) in [(DType::F16, [0, 0, 0, 0xbe, 0xff, 0x7b, 0, 0]), (DType::BF16, [0, 0, 0xc0, 0xbf, 0x80, 0x47, 0x2c, 0x32])] {
        assert_eq!(convert_rows(DType::F32, dtype, 4, &f32s).unwrap(), want);
        assert_eq!(convert_rows(dtype, dtype, 4, &want).unwrap(), want);
    }
    assert!(matches!(convert_rows(DType::F32, DType::Q8_0, 4, &f32s), Err(FormatError::PartialBlock { .. })));
    assert!(matches!(convert_rows(DType::F32, DType::Q5_1, 4, &f32s), Err(FormatError::UnsupportedDType { .. })));
    // NaN and infinity are no reason to stop.
    for dtype in [DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K] {
        for value in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 64.0] {
            let row: Vec<u8> = (0..256).flat_map(|i| if i % 7 == 0 { value } else { 1.0 }.to_le_bytes()).collect();
            assert!(convert_rows(DType::F32, dtype, 256, &row).is_ok());
        }
    }
}

/// The model of `source` in the formats of `recipe`, read back.
fn quantized(source: &dyn Source, recipe: Recipe) -> (Checkpoint, MemorySource, Checkpoint) {
    let checkpoint = block_on(read_checkpoint(source)).unwrap();
    let mut out = Vec::new();
    let mut last = 0.0;
    block_on(write_gguf(&checkpoint, source, recipe, &mut out, &mut |done| last = done)).unwrap();
    assert!((last - 1.0).abs() < 1e-6);
    let written = MemorySource::new("out.gguf", out);
    let read = block_on(read_checkpoint(&written)).unwrap();
    (checkpoint, written, read)
}

fn all(source: &dyn Source, checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    let bytes = block_on(read_rows(source, tensor, 0, tensor.rows())).unwrap();
    floats(tensor.dtype, &bytes)
}

#[test]
fn quantize_keeps_values_and_metadata() {
    let source = open(&fixture("tiny/tiny-f32.gguf")).unwrap();
    for recipe in RECIPES {
        let (before, written, after) = quantized(&*source, recipe);
        assert_eq!(before.tensors.len(), after.tensors.len());
        for tensor in &before.tensors {
            let (a, b) = (all(&*source, &before, &tensor.name), all(&written, &after, &tensor.name));
            let largest = a.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            let dtype = after.tensor(&tensor.name).unwrap().dtype;
            let tolerance = match dtype {
                DType::F32 => 0.0,
                DType::F16 => 1e-3,
                DType::Q8_0 => 5e-3,
                _ => 0.13,
            };
            assert_eq!(dtype == DType::F32, recipe == Recipe::F32 || tensor.shape.len() == 1, "{}", tensor.name);
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * largest), "{recipe:?} {} {dtype}", tensor.name);
        }
        for (key, value) in before.metadata.iter() {
            assert!(key == "general.file_type" || after.metadata.get(key) == Some(value), "{key}");
        }
    }
}

/// The model of `source` in F32: a quantized one is refused.
fn in_floats(source: &dyn Source) -> MemorySource {
    let checkpoint = block_on(read_checkpoint(source)).unwrap();
    let data: Vec<Vec<u8>> =
        checkpoint.tensors.iter().map(|t| all(source, &checkpoint, &t.name).iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let tensors: Vec<_> = checkpoint
        .tensors
        .iter()
        .zip(&data)
        .map(|(t, data)| TensorData { name: &t.name, dtype: DType::F32, shape: &t.shape, data })
        .collect();
    MemorySource::new("floats.gguf", write(&checkpoint.metadata, &tensors))
}

/// `Q4_K_M` of a model of rows of 256: which tensors get more bits.
#[test]
fn q4_k_m_mixes_types_by_tensor() {
    let source = open(&fixture("tiny/tiny-q4_k.gguf")).unwrap();
    let floats = block_on(read_checkpoint(&*source)).unwrap();
    let error = block_on(write_gguf(&floats, &*source, Recipe::Q8_0, &mut Vec::new(), &mut |_| {})).unwrap_err();
    assert!(error.to_string().contains("take the original model"), "{error}");
    let wide = in_floats(&*source);
    let (_, _, after) = quantized(&wide, Recipe::Q4_K_M);
    let dtype = |name: &str| after.tensor(name).unwrap().dtype;
    assert_eq!((dtype("token_embd.weight"), dtype("blk.0.attn_q.weight")), (DType::Q6_K, DType::Q4_K));
    // Of two layers the last gets more bits.
    assert_eq!(["attn_v", "ffn_down"].map(|part| dtype(&format!("blk.0.{part}.weight"))), [DType::Q4_K; 2]);
    assert_eq!(["attn_v", "ffn_down"].map(|part| dtype(&format!("blk.1.{part}.weight"))), [DType::Q6_K; 2]);
    assert_eq!((dtype("output_norm.weight"), after.metadata.u32("general.file_type").unwrap()), (DType::F32, 15));
}

/// From a folder: GGUF's order of queries and keys, norms as they are used, computed tensors as tensors.
#[test]
fn quantize_folder_writes_gguf_order() {
    let source = open(&fixture("folders/llama")).unwrap();
    let (before, written, after) = quantized(&*source, Recipe::F16);
    assert!(before.metadata.contains("doppler.rope.pairing") && !after.metadata.contains("doppler.rope.pairing"));
    let (a, b) = (all(&*source, &before, "blk.1.attn_k.weight"), all(&written, &after, "blk.1.attn_k.weight"));
    let row = |values: &[f32], i: usize| values[32 * i..32 * (i + 1)].to_vec();
    // Heads of 8: rows 0 and 4 of a head are neighbours.
    for (ours, theirs) in [(0, 0), (1, 4), (2, 1), (7, 7), (9, 12)] {
        assert!(row(&b, ours).iter().zip(row(&a, theirs)).all(|(a, b)| (a - b).abs() < 1e-4), "{ours}");
    }
    assert_ne!(row(&b, 1), row(&b, 4));
    let rope = after.tensor("rope_freqs.weight").unwrap();
    assert_eq!((rope.transform.is_none(), all(&written, &after, "rope_freqs.weight")), (true, all(&*source, &before, "rope_freqs.weight")));
    let gemma = open(&fixture("folders/gemma2")).unwrap();
    let (before, written, after) = quantized(&*gemma, Recipe::Q8_0);
    let norms = all(&written, &after, "blk.0.post_ffw_norm.weight");
    assert_eq!(norms, all(&*gemma, &before, "blk.0.post_ffw_norm.weight"));
    assert!(after.find("blk.0.post_ffw_norm.weight").unwrap().transform.is_none());
}

/// What a model of `source` makes of some tokens: the logits of four steps, or the embedding of an encoder.
fn outputs(source: &dyn Source) -> Vec<f32> {
    let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    let options = ModelOptions { context: 64, sequences: 1, prefill_rows: 16, kv: KvFormat::F32, kv_bytes: 1 << 20, quantize: None };
    block_on(async {
        let (mut engine, client) = Engine::load(executor, "test", source, options, &mut |_| {}).await.unwrap();
        let tokens = vec![5, 40, 77, 14, 20, 31];
        let work = async {
            if client.info().generates {
                client.trace(tokens, 4, 4).await.unwrap().logits.concat()
            } else {
                client.embed(tokens).await.unwrap()
            }
        };
        match select(std::pin::pin!(work), std::pin::pin!(engine.run())).await {
            Either::Left((outputs, _)) => outputs,
            Either::Right((result, _)) => panic!("the engine ended: {result:?}"),
        }
    })
}

/// A quantized model computes what its weights say: the same as the file with those weights in floats.
#[test]
fn quantized_model_equals_dequantized_weights() {
    for path in ["tiny/tiny-q4_k.gguf", "architectures/llama-2.gguf", "architectures/gemma3.gguf", "architectures/bert-mean.gguf"] {
        let floats = in_floats(&*open(&fixture(path)).unwrap());
        for recipe in RECIPES {
            let (_, written, _) = quantized(&floats, recipe);
            let (got, want) = (outputs(&written), outputs(&in_floats(&written)));
            let scale = want.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            assert!(got.len() == want.len() && scale > 0.0, "{path} as {recipe:?}");
            let error = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, |m, e| if e <= m { m } else { e });
            println!("{path} as {recipe:?}: {:e}", error / scale);
            assert!(error <= 1e-4 * scale, "{path} as {recipe:?}: {error} of {scale}");
        }
    }
}

/// Whatever is written of the fixtures, in every type, can be loaded again and gives numbers.
#[test]
fn quantize_every_fixture_loads_again() {
    let folder = |name: &str| {
        let entries = std::fs::read_dir(fixture(name)).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(move |path| path.extension().is_some_and(|e| e == "gguf") || (name == "folders" && path.is_dir()))
            .collect::<Vec<_>>()
    };
    let mut written = 0;
    for path in ["architectures", "folders", "tiny"].into_iter().flat_map(folder) {
        let source = open(&path).unwrap();
        let floats = in_floats(&*source);
        for recipe in RECIPES {
            let (_, file, _) = quantized(&floats, recipe);
            let outputs = outputs(&file);
            assert!(!outputs.is_empty() && outputs.iter().all(|v| v.is_finite()), "{} as {recipe:?}", path.display());
            written += 1;
        }
    }
    assert!(written >= 5 * 40, "{written} files");
}

/// Rows that are no whole number of a type's blocks get another type, which is said.
#[test]
fn quantize_indivisible_rows_fall_back() {
    let source = open(&fixture("architectures/llama-2.gguf")).unwrap();
    let checkpoint = block_on(read_checkpoint(&*source)).unwrap();
    // Rows of 96 and 64.
    let fallbacks = Recipe::Q4_K_M.fallbacks(&checkpoint).unwrap();
    assert_eq!(
        fallbacks.iter().map(|(wanted, got, _)| (*wanted, *got)).collect::<Vec<_>>(),
        [(DType::Q4_K, DType::Q8_0), (DType::Q6_K, DType::Q8_0)]
    );
    assert_eq!(fallbacks.iter().map(|(.., count)| count).sum::<usize>(), checkpoint.tensors.iter().filter(|t| t.shape.len() == 2).count());
    for recipe in [Recipe::F32, Recipe::F16, Recipe::Q8_0, Recipe::Q4_0] {
        let fallbacks = recipe.fallbacks(&checkpoint).unwrap();
        assert!(fallbacks.iter().all(|(wanted, ..)| *wanted == DType::Q6_K), "{recipe:?}: {fallbacks:?}");
    }
}
