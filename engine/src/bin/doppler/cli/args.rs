//! What the command line takes.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::gpu::GpuOptions;
use doppler_engine::kernels::KvFormat;
use doppler_engine::model::ModelOptions;

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
        /// The format of the matrices.
        #[arg(long = "type", value_enum)]
        format: Format,
    },
    /// Measure the speed of a model, or of a published shape with random weights.
    Bench(super::bench::BenchArgs),
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

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8.5 bits a weight.
    #[value(name = "q8_0")]
    Q80,
    /// 4.5 bits a weight.
    #[value(name = "q4_0")]
    Q40,
    /// 4.5 bits a weight with finer scales, 6.6 where it matters.
    #[value(name = "q4_k_m")]
    Q4Km,
}

impl Format {
    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::F32 => Recipe::F32,
            Self::F16 => Recipe::F16,
            Self::Q80 => Recipe::Q8_0,
            Self::Q40 => Recipe::Q4_0,
            Self::Q4Km => Recipe::Q4_K_M,
        }
    }
}

#[derive(Args)]
pub(super) struct ModelArgs {
    /// A GGUF file, the first of a split one's, or a model folder.
    pub(super) model: PathBuf,
    /// Positions of the context, at most what the model was trained for.
    #[arg(long, default_value_t = ModelOptions::default().context)]
    pub(super) context: u32,
    /// Elements of the cache: f32, f16, or q8 (bytes with scales).
    #[arg(long, default_value = "f16", value_parser = kv_format)]
    pub(super) kv: KvFormat,
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
        ModelOptions { context: self.context, kv: self.kv, ..ModelOptions::default() }
    }
}

#[derive(Args)]
pub(super) struct SamplingArgs {
    /// 0 takes the most likely token always.
    #[arg(long)]
    pub(super) temperature: Option<f32>,
    /// Keep this many most likely tokens.
    #[arg(long)]
    pub(super) top_k: Option<u32>,
    /// Keep the most likely tokens that together have this probability.
    #[arg(long)]
    pub(super) top_p: Option<f32>,
    /// Keep tokens at least this likely relative to the most likely.
    #[arg(long)]
    pub(super) min_p: Option<f32>,
    /// Same seed, same answer.
    #[arg(long)]
    pub(super) seed: Option<u32>,
    /// At most this many new tokens.
    #[arg(short = 'n', long)]
    pub(super) max_tokens: Option<u32>,
}

pub(super) fn kv_format(name: &str) -> Result<KvFormat, String> {
    match name {
        "f32" => Ok(KvFormat::F32),
        "f16" => Ok(KvFormat::F16),
        "q8" => Ok(KvFormat::Q8),
        _ => Err("it is f32, f16 or q8".to_owned()),
    }
}
