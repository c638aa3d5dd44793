//! Families: the specs that they make of files, and that nothing else knows them by name.

use std::path::{Path, PathBuf};

use doppler_engine::formats::{Array, Checkpoint, Metadata, Value};
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::spec::{NormPlacement, Pooling, QkNormSpec, Window};
use doppler_engine::model::{ModelSpec, families, read_checkpoint};
use doppler_engine::source::open;
use futures::executor::block_on;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/architectures")
}

fn checkpoint(name: &str) -> Checkpoint {
    let source = open(&fixtures().join(name).with_extension("gguf")).expect("a fixture");
    block_on(read_checkpoint(&*source)).expect("a checkpoint")
}

fn spec(name: &str) -> ModelSpec {
    families::spec(&checkpoint(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn spec_of_every_fixture_has_its_layers() {
    for entry in std::fs::read_dir(fixtures()).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let (checkpoint, spec) = (checkpoint(&name), spec(&name));
            let layers = checkpoint.metadata.u32(&format!("{}.block_count", spec.family)).expect("a number");
            assert_eq!(spec.layers.len(), layers as usize, "{name}");
            assert_eq!(checkpoint.metadata.str("general.architecture").expect("a name"), spec.family, "{name}");
        }
    }
}

#[test]
fn spec_layers_differ_by_family_rules() {
    let gemma = spec("gemma3");
    let windows: Vec<Option<u32>> = gemma.attentions().map(|attention| attention.window.left).collect();
    assert_eq!(windows, [Some(24), Some(24), Some(24), Some(24), Some(24), None, Some(24), Some(24)]);
    let bases: Vec<f32> = gemma.attentions().filter_map(|attention| Some(attention.rope.as_ref()?.base)).collect();
    assert!(bases[0] < bases[5], "{bases:?}");
    assert!(gemma.layers.iter().all(|layer| layer.norms == NormPlacement::SANDWICH));
    let rotated: Vec<bool> = spec("smollm3").attentions().map(|attention| attention.rope.is_some()).collect();
    assert_eq!(rotated, [true, true, true, false, true]);
    assert!(spec("olmo2").attentions().all(|attention| attention.qk_norm == Some(QkNormSpec::Row)));
    assert!(spec("stablelm-12b").layers.iter().all(|layer| layer.parallel && layer.norms == NormPlacement::PRE));
    let both_ways = spec("bert-mean");
    assert!(!both_ways.is_causal() && both_ways.attentions().all(|a| a.window == Window { left: None, right: None }));
    assert_eq!(spec("gemma-embedding").layers[0].attention().window, Window { left: Some(13), right: Some(12) });
}

#[test]
fn spec_follows_absent_and_changed_keys() {
    let with = |name: &str, change: &dyn Fn(&mut Metadata)| {
        let mut checkpoint = checkpoint(name);
        change(&mut checkpoint.metadata);
        families::spec(&checkpoint).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let gemma = with("gemma2", &|metadata| drop(metadata.remove("gemma2.attention.sliding_window")));
    let windows: Vec<Option<u32>> = gemma.attentions().map(|attention| attention.window.left).take(2).collect();
    assert_eq!(windows, [Some(4096), None], "Gemma 2's own");
    let llama = with("llama-2", &|metadata| drop(metadata.insert("llama.attention.causal", Value::Bool(false))));
    assert!(!llama.is_causal() && llama.head.pooling == Some(Pooling::Mean));
    let granite = with("granite", &|metadata| drop(metadata.insert("granite.rope.scaling.finetuned", Value::Bool(false))));
    assert!(granite.attentions().all(|attention| attention.rope.is_none()));
    let pattern = Value::Array(Array::U32(vec![0, 1]));
    let llama = with("llama-2", &|metadata| drop(metadata.insert("llama.attention.rope_pattern", pattern.clone())));
    assert_eq!(llama.attentions().map(|attention| attention.rope.is_some()).collect::<Vec<_>>(), [false, true]);
    assert!(spec("granite").attentions().all(|attention| attention.rope.is_some()));
}

#[test]
fn cache_bytes_are_sum_of_layers() {
    let mut spec = spec("llama-2");
    let uniform = spec.kv_bytes_per_position(KvFormat::F16);
    let doppler_engine::model::spec::MixerSpec::Attention(attention) = &mut spec.layers[0].mixer;
    attention.kv_heads /= 2;
    assert_eq!(spec.kv_bytes_per_position(KvFormat::F16), uniform / 4 * 3);
}

/// A comparison of a family's name belongs into its file.
#[test]
fn family_names_occur_only_in_families() {
    // What these name are tokenizers and made-up files.
    let others = ["model/families", "text", "formats/pre_tokenizers.rs", "formats/huggingface/tokenizer.rs", "bench/shapes.rs"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if others.iter().any(|other| path.starts_with(root.join(other))) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let code = std::fs::read_to_string(&path).expect("a source file");
            let named = families::names().find(|name| code.contains(&format!("{name:?}")));
            assert_eq!(named, None, "{}", path.display());
            read += 1;
        }
    }
    assert!(read > 50, "{read} files");
}
