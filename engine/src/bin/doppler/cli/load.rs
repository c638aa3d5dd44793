//! `doppler bench load`: how fast a model's file comes to the device, and where the time goes.

#[cfg(target_os = "linux")]
use std::fs::File;
use std::time::Instant;

use doppler_engine::engine::Engine;
use doppler_engine::exec::{Executor, Gpu, gpu::GpuOptions};
use doppler_engine::model::ModelOptions;
use doppler_engine::source::{self, Source};
use serde_json::json;

use super::Failure;
use super::args::LoadArgs;
use super::open::{percent, size};

/// Runs the command.
pub(super) async fn load(args: LoadArgs) -> Result<(), Failure> {
    let source = source::open(&args.model)?;
    if args.cold {
        forget(&*source)?;
    }
    let gpu = Gpu::open(&GpuOptions { adapter: args.adapter, ..GpuOptions::default() }).await?;
    let adapter = gpu.adapter().clone();
    let mut progress = percent("loading");
    let begin = Instant::now();
    let loaded = Engine::load(Executor::Gpu(Box::new(gpu)), source.name(), &*source, ModelOptions::default(), &mut progress).await;
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("\r{:20}", "");
    let (engine, _client) = loaded.map_err(|(_, error)| error)?;
    let (times, bytes) = (engine.load_times(), source.bytes());
    if args.json {
        let report = json!({
            "adapter": adapter, "file_bytes": bytes, "cold": args.cold, "seconds": seconds, "times": times,
            "bytes_per_second": bytes as f64 / seconds, "device_bytes": engine.executor().allocated_bytes(),
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{} ({})", adapter.description, adapter.vendor);
        println!("{} in {seconds:.2} s, {}/s", size(bytes), size((bytes as f64 / seconds) as u64));
        let rest = seconds - times.read - times.write - times.device;
        println!(
            "{:.2} s waiting for the file, {:.2} s handing it over, {:.2} s waiting for the device, {rest:.2} s for all else",
            times.read, times.write, times.device
        );
    }
    Ok(())
}

/// Drops the files' pages from the system's cache.
#[cfg(target_os = "linux")]
fn forget(source: &dyn Source) -> Result<(), Failure> {
    use rustix::fs::{Advice, fadvise};

    for span in source.files() {
        let file = File::open(&span.name)?;
        // Pages that are not on the disk yet would stay.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &dyn Source) -> Result<(), Failure> {
    Err("--cold works on Linux only: elsewhere restart the computer, or read more than its memory holds".into())
}
