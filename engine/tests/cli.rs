//! The command line, as far as it needs no GPU.

#[allow(dead_code, reason = "shared with tests that alter more")]
mod raw;

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
    assert_eq!((&plan["context"], &plan["sequences"], &report["memory"]["fit"]), (&64.into(), &32.into(), &Value::Null));
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

/// What a terminal would act on in names, keys and texts of a file is shown instead, and so is what of the file is not used.
#[test]
fn inspect_prints_no_escapes() {
    let folder = std::env::temp_dir().join(format!("doppler-inspect-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut model = raw::Raw::fixture("llama-2");
    model.text("general.name", b"a\x1b]0;b\x07\xc2\x9b2J");
    model.text("x.\u{1b}[31m", b"\x1b[31m");
    model.number("llama.context_length", 4_194_304);
    let (good, bad) = (folder.join("good.gguf"), folder.join("bad\u{1b}[2J.gguf"));
    std::fs::write(&good, model.write()).expect("a file");
    model.floats(b"blk.0.\x1b[2J", 8, 0.0);
    std::fs::write(&bad, model.write()).expect("a file");
    let run = |file: &Path, json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doppler"));
        command.args(["inspect", "--tensors"]).args(json.then_some("--json")).arg(file).env("VK_DRIVER_FILES", "/dev/null");
        let output = command.output().expect("a run");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        (output.status.success(), text)
    };
    for json in [false, true] {
        let (success, text) = run(&good, json);
        assert!(success && text.contains("the file states a context of 4194304 tokens"), "{text}");
        assert!(!run(&bad, json).0);
        assert!(!run(&folder.join("no\u{1b}[2Jthing"), json).0);
    }
    std::fs::remove_dir_all(&folder).expect("no folder");
}
