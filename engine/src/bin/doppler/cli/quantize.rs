//! `doppler quantize`.

use std::path::Path;

use doppler_engine::formats::convert::{Recipe, write_gguf};
use doppler_engine::formats::read_checkpoint;
use doppler_engine::source;

use super::Failure;
use super::open::{percent, size};

/// Writes beside `output` first, so that an unfinished file never bears its name.
pub(super) async fn quantize(model: &Path, output: &Path, recipe: Recipe) -> Result<(), Failure> {
    let source = source::open(model)?;
    let checkpoint = read_checkpoint(&*source).await?;
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
    println!("{}: {} from {}", output.display(), size(std::fs::metadata(output)?.len()), size(source.bytes()));
    Ok(())
}
