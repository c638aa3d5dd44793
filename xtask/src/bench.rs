//! The bench: the extension in a real browser times a model.

use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;

use crate::process::{run, step};
use crate::{browser, npm, wasm};

/// The shape that is no shape, but the embedded file.
const SPARK: &str = "spark";

/// What to measure; see `engine.bench` in `extension/worker/src/bench.rs`.
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    /// Instead: measure how fast this GGUF file comes to the GPU, through the native host and otherwise.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shape", "quant", "prompts", "streams", "arrival", "cached", "context", "kv", "kernels", "peers"])]
    load: Option<PathBuf>,
    /// With `--load`: also from the disk, which the system is asked to read anew (Linux).
    #[arg(long, requires = "load")]
    cold: bool,
    /// With `--load`: only these ways.
    #[arg(long, requires = "load", default_value = "loopback,messages,file,opfs")]
    ways: String,
    /// A published shape with random weights (`doppler bench --shape list` names them), or `spark`, the embedded model.
    #[arg(long, default_value = "llama-3.2-1b")]
    shape: String,
    /// Types of a shape's weights: `f32`, `f16`, `q8_0`, `q4_0` or `q4_k_m`.
    #[arg(long, default_value = "q4_k_m")]
    quant: String,
    /// Tokens of the prompts.
    #[arg(long, value_delimiter = ',', default_value = "64,512,2048")]
    prompts: Vec<u32>,
    /// Tokens of the answers [default: 128; with `--load` 32].
    #[arg(short = 'n', long)]
    tokens: Option<u32>,
    /// Runs of each prompt, after one that is not counted [default: 5], or with `--load` of each way [default: 1].
    #[arg(long)]
    runs: Option<u32>,
    /// Also measure so many requests at once, with prompts of the first length, and whether each gets the answer that it gets alone.
    #[arg(long, value_delimiter = ',')]
    streams: Vec<u32>,
    /// Also measure a prompt of so many tokens that arrives while four answers are decoded.
    #[arg(long)]
    arrival: Option<u32>,
    /// Also measure a prompt of so many tokens of which 95 % are in the prefix cache.
    #[arg(long)]
    cached: Option<u32>,
    /// Positions of the context; by default what the longest prompt with its answer needs, 4096 at the least.
    #[arg(long)]
    context: Option<u32>,
    /// Elements of the cache: `f32`, `f16`, or `q8` (bytes with scales).
    #[arg(long, default_value = "f16")]
    kv: String,
    /// Also measure the time of each kernel.
    #[arg(long)]
    kernels: bool,
    /// Compare with other engines in the same browser, which take turns: wllama, which reads the same weights from a GGUF file.
    #[arg(long, conflicts_with_all = ["streams", "arrival", "cached", "kernels", "context", "kv"])]
    peers: bool,
    /// Also compare with transformers.js, which reads an ONNX model of the shape from this folder.
    #[arg(long, requires = "peers")]
    onnx: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Builds the extension and runs `tests/bench/bench.mjs`, `tests/bench/load.mjs` or `tests/peers/compare.mjs`, which print the report.
///
/// # Errors
/// When the build, the browser or the measurement fails.
pub(crate) fn start(root: &Path, options: &Options) -> Result<()> {
    // Before the build, which takes minutes.
    let file = options.load.as_deref().map(model_file).transpose()?;
    let chrome = browser::ensure(root)?;
    wasm::build(root, wasm::Profile::Release)?;
    if let Some(file) = &file {
        return load(root, file, options, &chrome);
    }
    let Options { shape, quant, prompts, tokens, runs, streams, arrival, cached, context, kv, kernels, peers, onnx, json, .. } = options;
    let (tokens, runs) = (tokens.unwrap_or(128), runs.unwrap_or(5));
    let (script, params) = if *peers {
        npm::ensure_peers(root, onnx.is_some())?;
        let mut params = json!({ "shape": shape, "quant": quant, "model": model(root, shape, quant)?, "tokens": tokens, "rounds": runs });
        params["prompts"] = prompts.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into();
        params["engines"] = if onnx.is_some() { "doppler,wllama,transformers" } else { "doppler,wllama" }.into();
        if let Some(onnx) = onnx {
            params["onnx"] = absolute(onnx)?.to_string_lossy().into();
        }
        ("tests/peers/compare.mjs", params)
    } else {
        let params = json!({
            "shape": shape, "quant": quant, "prompts": prompts, "tokens": tokens, "runs": runs, "streams": streams,
            "arrival": arrival, "cached": cached, "context": context, "kv": kv, "kernels": kernels,
        });
        ("tests/bench/bench.mjs", params)
    };
    let mut node = npm::node(root);
    node.arg(root.join(script)).arg(params.to_string()).args(json.then_some("--json"));
    node.env("CHROME", chrome);
    step("Measuring in the browser", || run(&mut node))
}

/// The path in the repository of a GGUF file of the shape, made if it is not there.
fn model(root: &Path, shape: &str, quant: &str) -> Result<String> {
    if shape == SPARK {
        return Ok("/extension/models/spark-28m-q8_0.gguf".to_owned());
    }
    let path = format!("target/peers/{shape}-{quant}.gguf");
    if !root.join(&path).is_file() {
        fs::create_dir_all(root.join("target/peers"))?;
        let mut doppler = Command::new("cargo");
        doppler.current_dir(root).args(["run", "--release", "--quiet", "-p", "doppler-engine", "--"]);
        doppler.args(["generate", "--shape", shape, "--quant", quant, &path]);
        step("Writing the GGUF file", || run(&mut doppler))?;
    }
    Ok(format!("/{path}"))
}

/// The whole path of a file that was named from where the user is: programs run in the repository root.
fn model_file(path: &Path) -> Result<PathBuf> {
    ensure!(path.is_file(), "there is no file {}: name one GGUF file", path.display());
    Ok(absolute(path)?)
}

/// Runs `tests/bench/load.mjs` with an optimized host.
fn load(root: &Path, file: &Path, options: &Options, chrome: &Path) -> Result<()> {
    let target = root.join("target");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--release", "--package", "doppler-host", "--target-dir"]).arg(&target);
    step("Compiling the native host", || run(&mut cargo))?;
    let mut node = npm::node(root);
    node.arg(root.join("tests/bench/load.mjs")).arg(file).arg(format!("--ways={}", options.ways)).args(options.cold.then_some("--cold"));
    node.args(options.json.then_some("--json"));
    node.args(options.tokens.map(|tokens| format!("--tokens={tokens}"))).args(options.runs.map(|runs| format!("--runs={runs}")));
    node.env("CHROME", chrome).env("DOPPLER_HOST", target.join("release").join(format!("doppler-host{}", std::env::consts::EXE_SUFFIX)));
    step("Measuring in the browser", || run(&mut node))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::model_file;

    #[test]
    fn model_file_is_found_from_working_folder() {
        let found = model_file(Path::new("src/bench.rs")).expect("tests run in the folder of their package");
        assert!(found.is_absolute() && found.ends_with("xtask/src/bench.rs"));
        for missing in ["src/none.gguf", "src"] {
            assert!(model_file(Path::new(missing)).is_err_and(|error| error.to_string().contains(missing)));
        }
    }
}
