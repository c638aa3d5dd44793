//! What the command line takes.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use doppler_engine::exec::gpu::GpuOptions;
use doppler_engine::formats::convert::Recipe;
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::ModelOptions;
use serde::Serialize;

/// Runs language models on the GPU, from GGUF files, whole or split, or folders in Hugging Face's layout.
#[derive(Parser)]
#[command(version)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Answer one prompt, or continue it where the model has no chat template.
    Run {
        #[command(flatten)]
        model: ModelArgs,
        /// The prompt.
        #[arg(short, long)]
        prompt: String,
        #[command(flatten)]
        sampling: SamplingArgs,
    },
    /// Hold a conversation; an empty line or Ctrl-D ends it.
    Chat {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        sampling: SamplingArgs,
    },
    /// Print the embedding of each text, a JSON object a line.
    Embed {
        #[command(flatten)]
        model: ModelArgs,
        /// The texts.
        #[arg(required = true)]
        texts: Vec<String>,
    },
    /// Print what a file holds and what memory it needs; nothing is loaded.
    Inspect {
        #[command(flatten)]
        model: ModelArgs,
        /// Also list the tensors.
        #[arg(long)]
        tensors: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a model as a GGUF file with other weights.
    Quantize {
        /// A GGUF file, the first of a split one's, or a model folder; its weights must be F32, F16 or BF16.
        model: PathBuf,
        /// The GGUF file to write; replaced when complete.
        output: PathBuf,
        /// The format of the matrices: f32, f16, `q8_0` (8.5 bits a weight), `q4_0` (4.5), or `q4_k_m` (4.5 with finer scales, 6.6 where it
        /// matters).
        #[arg(long = "type")]
        recipe: Recipe,
    },
    /// Write a GGUF file of a published shape with random weights: to time loading and answers without a download.
    Generate {
        /// The shape; `doppler bench --shape list` names them.
        #[arg(long)]
        shape: String,
        /// Types of the weights: f32, f16, `q8_0`, `q4_0` or `q4_k_m`.
        #[arg(long, default_value = "q4_k_m")]
        quant: Recipe,
        /// The file to write; replaced when complete.
        output: PathBuf,
    },
    /// Measure the speed of a model, or of a published shape with random weights.
    Bench(BenchArgs),
    /// Compare with reference outputs of transformers.
    Verify {
        #[command(flatten)]
        model: ModelArgs,
        /// JSON file of reference outputs.
        references: PathBuf,
    },
    /// Ask questions that have one right answer: how many greedy answers are exactly that, and the answers' perplexity.
    Eval {
        #[command(flatten)]
        model: ModelArgs,
        /// JSON file of questions.
        questions: PathBuf,
        /// Print JSON, the wrong answers too.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct ModelArgs {
    /// A GGUF file, the first of a split one's, or a model folder.
    pub(super) model: PathBuf,
    /// Positions of the context, at most what the model was trained for.
    #[arg(long, default_value_t = ModelOptions::default().context)]
    pub(super) context: u32,
    /// Elements of the cache: f32, f16, or q8 (bytes with scales).
    #[arg(long, default_value = "f16")]
    pub(super) kv: KvFormat,
    /// Quantize weights that are floats while loading: `q8_0`, `q4_0` or `q4_k_m`.
    #[arg(long, value_name = "TYPE")]
    pub(super) quantize: Option<Recipe>,
    /// Use at most this much of the device's memory, such as 6GB or 512MiB.
    #[arg(long, value_name = "BYTES")]
    pub(super) memory: Option<ByteSize>,
    /// Use the adapter whose name contains this.
    #[arg(long, env = "DOPPLER_ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Do not use half-precision arithmetic.
    #[arg(long)]
    no_f16: bool,
    /// Do not use subgroup operations.
    #[arg(long)]
    no_subgroups: bool,
}

impl ModelArgs {
    pub(super) fn gpu_options(&self) -> GpuOptions {
        GpuOptions {
            adapter: self.adapter.clone(),
            memory: self.memory.map(|memory| memory.as_u64()),
            without_f16: self.no_f16,
            without_subgroups: self.no_subgroups,
            ..GpuOptions::default()
        }
    }

    pub(super) fn model_options(&self) -> ModelOptions {
        ModelOptions { context: self.context, kv: self.kv, quantize: self.quantize, ..ModelOptions::default() }
    }
}

// Fields of a chat completion request, under their names there.
#[derive(Args, Serialize)]
pub(super) struct SamplingArgs {
    /// 0 takes the most likely token always.
    #[arg(long)]
    temperature: Option<f32>,
    /// Keep this many most likely tokens.
    #[arg(long)]
    top_k: Option<u32>,
    /// Keep the most likely tokens that together have this probability.
    #[arg(long)]
    top_p: Option<f32>,
    /// Keep tokens at least this likely relative to the most likely.
    #[arg(long)]
    min_p: Option<f32>,
    /// Same seed, same answer.
    #[arg(long)]
    seed: Option<u32>,
    /// At most this many new tokens.
    #[arg(short = 'n', long)]
    max_tokens: Option<u32>,
}

/// Options of `doppler bench`.
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    pub(super) what: Option<What>,
    /// A GGUF file or a model folder.
    #[arg(required_unless_present = "shape")]
    pub(super) model: Option<PathBuf>,
    /// Instead of a file: a published shape with random weights. `list` names them.
    #[arg(long, conflicts_with = "model")]
    pub(super) shape: Option<String>,
    /// Types of a shape's weights: f32, f16, `q8_0`, `q4_0` or `q4_k_m`.
    #[arg(long, default_value = "q4_k_m")]
    pub(super) quant: Recipe,
    /// Tokens of the prompts.
    #[arg(long, value_delimiter = ',', default_value = "64,512,2048")]
    pub(super) prompts: Vec<u32>,
    /// Tokens of the answers.
    #[arg(short = 'n', long, default_value_t = 128)]
    pub(super) tokens: u32,
    /// Runs of each prompt, after one that is not counted.
    #[arg(long, default_value_t = 5)]
    pub(super) runs: u32,
    /// Also measure so many requests at once, with prompts of the first length, and whether each gets the answer that it gets alone.
    #[arg(long, value_delimiter = ',')]
    pub(super) streams: Vec<u32>,
    /// Also measure a prompt of so many tokens that arrives while four answers are decoded.
    #[arg(long)]
    pub(super) arrival: Option<u32>,
    /// Also measure a prompt of so many tokens of which 95 % are in the prefix cache.
    #[arg(long)]
    pub(super) cached: Option<u32>,
    /// Positions of the context; by default what the longest prompt with its answer needs, 4096 at the least.
    #[arg(long)]
    pub(super) context: Option<u32>,
    /// Elements of the cache: f32, f16, or q8 (bytes with scales).
    #[arg(long, default_value = "f16")]
    pub(super) kv: KvFormat,
    /// Also measure the time of each kernel.
    #[arg(long)]
    pub(super) kernels: bool,
    /// Only print the memory that the model needs.
    #[arg(long)]
    pub(super) plan: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Use the adapter whose name contains this.
    #[arg(long, env = "DOPPLER_ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Set kernels up differently, to find what suits a device: `NAME=NUMBER`, several separated by commas. `list` prints what is set.
    #[arg(long, value_delimiter = ',')]
    pub(super) tuning: Vec<String>,
    /// Try other settings of the kernels one after the other, and print those that are faster here as `--tuning`.
    #[arg(long, conflicts_with_all = ["streams", "arrival", "cached", "kernels", "plan", "json"])]
    pub(super) tune: bool,
    /// Do not use half-precision arithmetic.
    #[arg(long)]
    pub(super) no_f16: bool,
    /// Do not use subgroup operations.
    #[arg(long)]
    pub(super) no_subgroups: bool,
}

/// What else can be measured.
#[derive(Subcommand)]
pub(super) enum What {
    /// Only measure how fast a model's file comes to the device.
    Load(LoadArgs),
}

/// Options of `doppler bench load`.
#[derive(Args)]
pub(super) struct LoadArgs {
    /// A GGUF file or a model folder.
    pub(super) model: PathBuf,
    /// Let the system forget the file first, so that it comes from the disk (Linux).
    #[arg(long)]
    pub(super) cold: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Use the adapter whose name contains this.
    #[arg(long, env = "DOPPLER_ADAPTER")]
    pub(super) adapter: Option<String>,
}
