//! `doppler bench`: timing of a model, or of a published shape with random weights.

use std::time::{Duration, Instant};

use doppler_engine::bench::{self, BenchOptions, CachedReport, KernelReport, Report, SHAPES, Shape, StreamsReport, Synthetic, tune};
use doppler_engine::engine::Engine;
use doppler_engine::exec::{Executor, Gpu, gpu::GpuOptions};
use doppler_engine::kernels::{Capabilities, Tuning};
use doppler_engine::model::read_checkpoint;
use doppler_engine::plan::plan;
use doppler_engine::source::{self, Source};

use super::Failure;
use super::args::{BenchArgs, What};
use super::inspect::plan_line;
use super::load::load;

/// Runs the command.
pub(super) async fn bench(args: BenchArgs) -> Result<(), Failure> {
    if let Some(What::Load(args)) = args.what {
        return load(args).await;
    }
    if args.shape.as_deref() == Some("list") {
        for shape in SHAPES {
            println!("{}", shape.name);
        }
        return Ok(());
    }
    let source: Box<dyn Source> = match (&args.shape, &args.model) {
        (Some(shape), _) => Box::new(Synthetic::new(Shape::find(shape)?, args.quant)?),
        (None, Some(path)) => source::open(path)?,
        (None, None) => return Err("name a model or a shape".into()),
    };
    let BenchArgs { prompts, tokens, runs, streams, arrival, cached, kernels, context, kv, .. } = args;
    let options = BenchOptions { prompts, tokens, runs, streams, arrival, cached, kernels, context, kv };
    let gpu_options = GpuOptions {
        adapter: args.adapter.clone(),
        without_f16: args.no_f16,
        without_subgroups: args.no_subgroups,
        ..GpuOptions::default()
    };
    let gpu = open(gpu_options.clone(), &args.tuning).await?;
    if args.tuning == ["list"] {
        println!("{}", serde_json::to_string_pretty(&gpu.capabilities().tuning)?);
        return Ok(());
    }
    if args.plan {
        let plan = plan(&read_checkpoint(&*source).await?, gpu.capabilities(), options.model_options())?;
        println!("{}", plan_line(&plan));
        return Ok(());
    }
    if args.tune {
        return tune(gpu.capabilities(), &gpu_options, &*source, &options).await;
    }
    let executor = Executor::Gpu(Box::new(gpu));
    let begin = Instant::now();
    let (mut engine, client) =
        Engine::load(executor, source.name(), &*source, options.model_options(), &mut |_| {}).await.map_err(|(_, e)| e)?;
    let load = begin.elapsed();
    let report = bench::run(&mut engine, &client, &options, load).await.map_err(|e| e.to_string())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Opens the device, with some of its tuning replaced.
async fn open(options: GpuOptions, tuning: &[String]) -> Result<Gpu, Failure> {
    let gpu = Gpu::open(&options).await?;
    let changes = tuning.iter().filter_map(|change| change.split_once('='));
    let mut fields = serde_json::to_value(gpu.capabilities().tuning)?;
    for (name, value) in changes {
        fields[name] = value.parse::<serde_json::Value>().map_err(|e| format!("--tuning {name}={value}: {e}"))?;
    }
    let tuning = serde_json::from_value(fields).map_err(|e| format!("--tuning: {e}"))?;
    Ok(Gpu::open(&GpuOptions { tuning: Some(tuning), ..options }).await?)
}

/// Prints what every setting that is tried takes, and what is best.
async fn tune(device: &Capabilities, gpu: &GpuOptions, source: &dyn Source, options: &BenchOptions) -> Result<(), Failure> {
    let time = async |tuning: Tuning| -> Result<Duration, Failure> {
        let time = tune::time(&tune::measure(gpu, tuning, source, options).await.map_err(|e| e.to_string())?);
        println!("{:9.1} ms  {}", time.as_secs_f64() * 1e3, settings(&tuning)?);
        Ok(time)
    };
    let best = tune::search(device, time).await?;
    println!("{}", if best == device.tuning { "it is as fast as it gets".to_owned() } else { format!("--tuning {}", settings(&best)?) });
    Ok(())
}

/// As `--tuning` takes it.
fn settings(tuning: &Tuning) -> Result<String, Failure> {
    let fields = serde_json::to_value(tuning)?;
    let fields = fields.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
    Ok(fields.collect::<Vec<_>>().join(","))
}

fn print(report: &Report) {
    if let Some(adapter) = &report.adapter {
        println!("{} ({}; {})", adapter.description, adapter.vendor, adapter.features.join(", "));
    }
    let (gigabytes, device) = (report.model.file_bytes as f64 / 1e9, report.device_bytes as f64 / 1e9);
    println!(
        "{}, {}: {gigabytes:.2} GB, loaded in {:.1} s, {device:.2} GB on the device",
        report.model.name, report.model.quantization, report.load_seconds
    );
    println!(
        "prompt  first token ms (cold)  prefill/s  decode/s  token ms p50 p90 p99    burst  dispatches submissions bytes read a token"
    );
    for l in &report.lengths {
        let [p50, p90, p99] = l.token_ms;
        println!(
            "{:6}  {:9.1} ({:9.1})  {:9.0}  {:8.1}  {p50:8.2} {p90:7.2} {p99:7.2} {:6}  {:10.1} {:11.2} {:10.1}",
            l.prompt_tokens,
            l.first_token_ms,
            l.cold_first_token_ms,
            l.prefill_tokens_per_second,
            l.decode_tokens_per_second,
            l.burst_tokens,
            l.dispatches_per_token,
            l.submissions_per_token,
            l.read_bytes_per_token
        );
    }
    print_streams(&report.streams);
    if let Some(arrival) = &report.arrival {
        println!(
            "a prompt of {} tokens beside {} answers: {:.1} -> {:.1} tokens/s each, longest pause {:.1} ms, first token {:.1} ms (alone {:.1})",
            arrival.prompt_tokens,
            arrival.streams,
            arrival.each_tokens_per_second_before,
            arrival.each_tokens_per_second_meanwhile,
            arrival.longest_pause_ms,
            arrival.first_token_ms,
            arrival.first_token_alone_ms
        );
    }
    if let Some(CachedReport { prompt_tokens, cached_tokens, cold_first_token_ms, first_token_ms }) = &report.cached {
        println!(
            "a prompt of {prompt_tokens} tokens, {cached_tokens} of them cached: first token {first_token_ms:.1} ms (cold {cold_first_token_ms:.1})"
        );
    }
    let Some(KernelReport { roofline, kernels }) = &report.kernels else { return };
    let (bytes, flops) = (roofline.gigabytes_per_second, roofline.teraflops);
    println!("at most {bytes:.0} GB/s of reading, {flops:.1} TFLOP/s of f32");
    for pass in kernels {
        println!("{} of {} rows at {} positions: {:.0} us of kernels", pass.pass, pass.rows, pass.positions, pass.total_us);
        for kernel in &pass.kernels {
            println!(
                "  {:40} {:7} workgroups  {:4} x {:8.2} us = {:9.1} us {:6.0} GB/s {:7.2} TFLOP/s",
                kernel.name,
                kernel.workgroups,
                kernel.count,
                kernel.each_us,
                kernel.total_us,
                kernel.gigabytes_per_second,
                kernel.teraflops
            );
        }
    }
}

fn print_streams(reports: &[StreamsReport]) {
    if reports.is_empty() {
        return;
    }
    println!("streams  at a time  together/s   wall/s   each/s  first token ms: median    last  differ from alone");
    for s in reports {
        let together = s.together_tokens_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        println!(
            "{:7}  {:9}  {together:>10} {:8.1} {:8.1}  {:22.1} {:7.1}  {:17}",
            s.streams,
            s.places,
            s.tokens_per_second,
            s.each_tokens_per_second,
            s.first_token_ms,
            s.last_first_token_ms,
            format!("{} of {}", s.differing, s.streams)
        );
    }
}
