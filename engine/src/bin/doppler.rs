//! `doppler`: the engine on the command line, on any Vulkan, Metal or Direct3D adapter.
#![cfg_attr(target_arch = "wasm32", allow(missing_docs))]

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
mod cli {
    use std::io::{BufRead, Write};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use clap::{Args, Parser, Subcommand, ValueEnum};
    use doppler_engine::api::ChatRequest;
    use doppler_engine::engine::{Client, Completion, Engine, Piece, main_dtype};
    use doppler_engine::error::EngineError;
    use doppler_engine::executor::Executor;
    use doppler_engine::formats::convert::{Recipe, write_gguf};
    use doppler_engine::formats::read_checkpoint;
    use doppler_engine::gpu::{Gpu, GpuOptions};
    use doppler_engine::kernels::KvFormat;
    use doppler_engine::model::{Hyperparameters, ModelOptions};
    use doppler_engine::serve::Timings;
    use doppler_engine::source;
    use doppler_engine::text::TextError;
    use doppler_engine::verify::{References, compare};
    use futures::future::{Either, select};
    use serde_json::{Value, json};

    type Failure = Box<dyn std::error::Error>;

    /// Runs language models on the GPU, from GGUF files, whole or split, or folders in Hugging Face's layout.
    #[derive(Parser)]
    #[command(version)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        /// Answer one prompt.
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
        /// Print what a file holds.
        Inspect {
            /// A GGUF file, the first of a split one's, or a model folder.
            model: PathBuf,
            /// Also list the tensors.
            #[arg(long)]
            tensors: bool,
        },
        /// Write a model as a GGUF file with smaller weights.
        Quantize {
            /// A GGUF file, the first of a split one's, or a model folder; its weights must be F32, F16 or BF16.
            model: PathBuf,
            /// The GGUF file to write; replaced when complete.
            output: PathBuf,
            /// The format of the matrices.
            #[arg(long = "type", value_enum)]
            format: Format,
        },
        /// Compare with reference outputs of transformers.
        Verify {
            #[command(flatten)]
            model: ModelArgs,
            /// JSON file of reference outputs.
            references: PathBuf,
        },
    }

    #[derive(Clone, Copy, ValueEnum)]
    #[value(rename_all = "snake_case")]
    enum Format {
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

    #[derive(Args)]
    struct ModelArgs {
        /// A GGUF file, the first of a split one's, or a model folder.
        model: PathBuf,
        /// Positions of the context, at most what the model was trained for.
        #[arg(long, default_value_t = ModelOptions::default().context)]
        context: u32,
        /// Elements of the cache: f32, f16, or q8 (bytes with scales).
        #[arg(long, default_value = "f16", value_parser = kv_format)]
        kv: KvFormat,
        /// Use the adapter whose name contains this.
        #[arg(long, env = "DOPPLER_ADAPTER")]
        adapter: Option<String>,
        /// Do not use half-precision arithmetic.
        #[arg(long)]
        no_f16: bool,
        /// Do not use subgroup operations.
        #[arg(long)]
        no_subgroups: bool,
    }

    #[derive(Args)]
    struct SamplingArgs {
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

    fn kv_format(name: &str) -> Result<KvFormat, String> {
        match name {
            "f32" => Ok(KvFormat::F32),
            "f16" => Ok(KvFormat::F16),
            "q8" => Ok(KvFormat::Q8),
            _ => Err("it is f32, f16 or q8".to_owned()),
        }
    }

    pub(super) fn main() -> ExitCode {
        match pollster::block_on(run(Cli::parse().command)) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("doppler: {error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn run(command: Command) -> Result<ExitCode, Failure> {
        match command {
            Command::Run { model, prompt, sampling } => {
                let (mut engine, client) = open(&model).await?;
                with_engine(&mut engine, run_prompt(&client, &prompt, &sampling)).await?;
            }
            Command::Chat { model, sampling } => {
                let (mut engine, client) = open(&model).await?;
                with_engine(&mut engine, chat(&client, &sampling)).await?;
            }
            Command::Inspect { model, tensors } => inspect(&model, tensors).await?,
            Command::Quantize { model, output, format } => quantize(&model, &output, format).await?,
            Command::Verify { model, references } => {
                let references: References = serde_json::from_slice(&std::fs::read(references)?)?;
                let (mut engine, client) = open(&model).await?;
                return with_engine(&mut engine, verify(&client, &references)).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn open(args: &ModelArgs) -> Result<(Engine, Client), Failure> {
        let gpu = Gpu::open(&GpuOptions {
            adapter: args.adapter.clone(),
            without_f16: args.no_f16,
            without_subgroups: args.no_subgroups,
            ..GpuOptions::default()
        })
        .await?;
        eprintln!("{} ({}; {})", gpu.adapter().description, gpu.adapter().vendor, gpu.adapter().features.join(", "));
        let source = source::open(&args.model)?;
        let id = args.model.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy());
        let options = ModelOptions { context: args.context, sequences: 1, kv: args.kv, ..ModelOptions::default() };
        let mut progress = percent("loading");
        let loaded = Engine::load(Executor::Gpu(Box::new(gpu)), &id, &*source, options, &mut progress).await;
        eprintln!("\r{:20}", "");
        let (engine, client) = loaded.map_err(|(_, error)| error)?;
        let info = client.info();
        let (parameters, megabytes) = (info.parameters as f64 / 1e6, info.memory.total() as f64 / 1e6);
        eprintln!(
            "{}: {parameters:.1} M parameters, {}, context {}, {megabytes:.0} MB on the device",
            info.name, info.quantization, info.context
        );
        Ok((engine, client))
    }

    /// Shows how much is done.
    fn percent(what: &str) -> impl FnMut(f32) {
        let mut shown = 0;
        move |done| {
            let percent = (done * 100.0) as u32;
            if percent != shown {
                shown = percent;
                eprint!("\r{what} {percent} %");
            }
        }
    }

    /// Runs the engine as long as `work` needs it.
    async fn with_engine<T>(engine: &mut Engine, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let work = std::pin::pin!(work);
        let running = std::pin::pin!(engine.run());
        match select(work, running).await {
            Either::Left((result, _)) => result,
            Either::Right((result, _)) => Err(result.err().map_or_else(|| "the engine stopped".into(), |e| e.to_string().into())),
        }
    }

    /// The answer to a prompt, or its continuation by a model without a chat template.
    async fn run_prompt(client: &Client, prompt: &str, sampling: &SamplingArgs) -> Result<String, Failure> {
        let request = chat_request(&json!([{ "role": "user", "content": prompt }]), sampling)?;
        if let Err(EngineError::Text(TextError::NoChatTemplate)) = client.template() {
            let ids = client.tokenizer().encode_prompt(prompt, false)?;
            return print(client.complete(ids, request.max_tokens, request.sampling(client.default_sampling()), &[])?).await;
        }
        print(client.chat(&request)?).await
    }

    fn chat_request(messages: &Value, sampling: &SamplingArgs) -> Result<ChatRequest, Failure> {
        let mut request = json!({
            "messages": messages,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "seed": sampling.seed,
        });
        request["max_tokens"] = sampling.max_tokens.into();
        Ok(ChatRequest::parse(&request)?)
    }

    /// Writes a completion as it comes, and gives its text.
    async fn print(mut completion: Completion) -> Result<String, Failure> {
        let mut text = String::new();
        let mut out = std::io::stdout().lock();
        while let Some(piece) = completion.next().await {
            match piece.map_err(|e| e.to_string())? {
                Piece::Text(more) => {
                    write!(out, "{more}")?;
                    out.flush()?;
                    text.push_str(&more);
                }
                Piece::End(_, timings) => {
                    writeln!(out)?;
                    print_timings(&timings);
                }
            }
        }
        Ok(text)
    }

    fn print_timings(t: &Timings) {
        let prefill = f64::from(t.prompt_tokens) / t.prefill.as_secs_f64();
        let decode = f64::from(t.completion_tokens.saturating_sub(1)) / t.decode.as_secs_f64();
        eprintln!("[prompt {} tokens, {prefill:.0}/s; answer {} tokens, {decode:.1}/s]", t.prompt_tokens, t.completion_tokens);
    }

    async fn chat(client: &Client, sampling: &SamplingArgs) -> Result<(), Failure> {
        let mut messages = Vec::new();
        let mut lines = std::io::stdin().lock().lines();
        loop {
            eprint!("> ");
            let Some(line) = lines.next().transpose()?.filter(|l| !l.trim().is_empty()) else { return Ok(()) };
            messages.push(json!({ "role": "user", "content": line }));
            let text = print(client.chat(&chat_request(&messages.clone().into(), sampling)?)?).await?;
            messages.push(json!({ "role": "assistant", "content": text }));
        }
    }

    async fn inspect(path: &Path, tensors: bool) -> Result<(), Failure> {
        let source = source::open(path)?;
        let checkpoint = read_checkpoint(&*source).await?;
        for (key, value) in checkpoint.metadata.iter() {
            println!("{key} = {value}");
        }
        println!("{} tensors, mostly {}", checkpoint.tensors.len(), main_dtype(&checkpoint));
        if tensors {
            for t in &checkpoint.tensors {
                println!("{:40} {:6} {:?}", t.name, t.dtype.to_string(), t.shape);
            }
        }
        let h = Hyperparameters::from_gguf(&checkpoint)?;
        let [f16, q8] = [KvFormat::F16, KvFormat::Q8].map(|kv| h.kv_bytes_per_position(kv));
        println!("cache: {f16} bytes a position in f16, {q8} in q8");
        Ok(())
    }

    /// Writes beside `output` first, so that an unfinished file never bears its name.
    async fn quantize(model: &Path, output: &Path, format: Format) -> Result<(), Failure> {
        let source = source::open(model)?;
        let checkpoint = read_checkpoint(&*source).await?;
        let recipe = match format {
            Format::F16 => Recipe::F16,
            Format::Q80 => Recipe::Q8_0,
            Format::Q40 => Recipe::Q4_0,
            Format::Q4Km => Recipe::Q4_K_M,
        };
        let mut unfinished = output.as_os_str().to_owned();
        unfinished.push(".part");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&unfinished)?);
        let written = write_gguf(&checkpoint, &*source, recipe, &mut file, &mut percent("quantizing")).await;
        eprintln!("\r{:20}", "");
        if let Err(error) = written {
            std::fs::remove_file(&unfinished)?;
            return Err(error.into());
        }
        std::fs::rename(&unfinished, output)?;
        println!("{}: {} MB from {} MB", output.display(), std::fs::metadata(output)?.len() / 1_000_000, source.bytes() / 1_000_000);
        Ok(())
    }

    async fn verify(client: &Client, references: &References) -> Result<ExitCode, Failure> {
        let mut failed = 0;
        for reference in &references.prompts {
            let c = compare(client, reference).await.map_err(|e| e.to_string())?;
            let good = c.text_equal && c.prompt_equal && c.greedy_equal;
            failed += u32::from(!good);
            let error = c.logit_error.map_or_else(String::new, |e| format!(", logits within {e:.1e}"));
            let verdict = if good { "equal" } else { "DIFFERS" };
            println!("{:20} {verdict}: {} of {} tokens (least margin {:.4}){error}", c.name, c.matching, c.expected, c.min_margin);
        }
        println!("{} equal, {failed} different", references.prompts.len() as u32 - failed);
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
