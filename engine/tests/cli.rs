//! The command line, as far as it needs no GPU.

use std::path::Path;
use std::process::Command;

use doppler_engine::bench::{Shape, Synthetic};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::source::Source;
use serde_json::Value;

fn inspect(arguments: &[&str]) -> Value {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/tiny-q4_0.gguf");
    // Where Vulkan's loader finds no driver, there is no adapter.
    let output = Command::new(env!("CARGO_BIN_EXE_doppler"))
        .args(["inspect", "--json"])
        .arg(model)
        .args(arguments)
        .env("VK_DRIVER_FILES", "/dev/null")
        .output()
        .expect("a run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The plan, the table of contexts and caches, and what fits a given memory.
#[test]
fn inspect_plans_memory() {
    let report = inspect(&["--tensors", "--context", "64"]);
    assert_eq!(report["tensors"].as_array().map(Vec::len), report["tensor_count"].as_u64().map(|n| n as usize));
    let plan = &report["memory"]["plan"];
    assert_eq!((&plan["context"], &plan["sequences"], &report["memory"]["fit"]), (&64.into(), &8.into(), &Value::Null));
    let table = report["memory"]["table"].as_array().expect("a table");
    let caches: Vec<u64> = table.iter().filter_map(|row| row["plan"]["memory"]["cache"].as_u64()).collect();
    assert_eq!((caches.len() % 2, caches.len()), (0, table.len()));
    assert!(caches.chunks(2).all(|pair| pair[1] < pair[0]), "q8 takes less than f16: {caches:?}");

    let peak = plan["peak"].as_u64().expect("bytes");
    for (bytes, fits) in [(peak, true), (peak - 1, false)] {
        let fit = &inspect(&["--context", "64", "--memory", &bytes.to_string()])["memory"]["fit"];
        assert_eq!((&fit["available"], &fit["fits"]), (&bytes.into(), &fits.into()));
        assert!(fit["largest_context"].as_u64().is_some_and(|context| context >= 64), "{fit}");
    }
    let fit = &inspect(&["--memory", "10kB"])["memory"]["fit"];
    assert_eq!((&fit["available"], &fit["largest_context"]), (&10_000.into(), &Value::Null));
}

/// A file of a shape, which is not there before it is complete.
#[test]
fn generate_writes_a_model() {
    let folder = std::env::temp_dir().join(format!("doppler-generate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("tiny.gguf");
    let generate = |shape: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doppler"));
        command.args(["generate", "--shape", shape, "--quant", "q8_0"]).arg(&file).output().expect("a run")
    };
    let failed = generate("immense");
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("llama-3.1-70b"), "{failed:?}");
    let output = generate("tiny");
    assert!(output.status.success(), "{output:?}");
    let shape = Shape::find("tiny").expect("a shape");
    let expected = Synthetic::new(shape, Recipe::Q8_0).expect("weights");
    let mut bytes = vec![0; expected.bytes() as usize];
    expected.fill(0, &mut bytes);
    assert!(std::fs::read(&file).expect("a file") == bytes, "the file is what the shape is");
    let names: Vec<_> = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file").file_name()).collect();
    assert_eq!(names, ["tiny.gguf"]);
    std::fs::remove_dir_all(&folder).expect("no folder");
}
