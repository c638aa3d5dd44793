//! A model on a device, and the work beside its engine.

use bytesize::ByteSize;
use doppler_engine::engine::{Client, Engine};
use doppler_engine::exec::{Executor, Gpu};
use doppler_engine::model::ModelOptions;
use doppler_engine::source;
use doppler_files::printable;
use futures::future::{Either, select};

use super::Failure;
use super::args::ModelArgs;

/// Loads a model for so many sequences at a time.
pub(super) async fn open(args: &ModelArgs, sequences: u32) -> Result<(Engine, Client), Failure> {
    let gpu = Gpu::open(&args.gpu_options()).await?;
    eprintln!("{} ({}; {})", gpu.adapter().description, gpu.adapter().vendor, gpu.adapter().features.join(", "));
    let source = source::open(&args.model)?;
    let id = args.model.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy());
    let options = ModelOptions { sequences, ..args.model_options() };
    let mut progress = percent("loading");
    let loaded = Engine::load(Executor::Gpu(Box::new(gpu)), &id, &*source, options, &mut progress).await;
    eprintln!("\r{:20}", "");
    let (engine, client) = loaded.map_err(|(_, error)| error)?;
    let info = client.info();
    eprintln!(
        "{}: {:.1} M parameters, {}, context {}, {} on the device",
        printable(&info.name),
        info.parameters as f64 / 1e6,
        info.quantization,
        info.context,
        size(info.memory.total())
    );
    for note in &info.notes {
        eprintln!("note: {}", printable(note));
    }
    Ok((engine, client))
}

/// Bytes for people: `30.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// Shows how much is done.
pub(super) fn percent(what: &str) -> impl FnMut(f32) {
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
pub(super) async fn with_engine<T>(engine: &mut Engine, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let work = std::pin::pin!(work);
    let running = std::pin::pin!(engine.run());
    match select(work, running).await {
        Either::Left((result, _)) => result,
        Either::Right((result, _)) => Err(result.err().map_or_else(|| "the engine stopped".into(), |e| e.to_string().into())),
    }
}
