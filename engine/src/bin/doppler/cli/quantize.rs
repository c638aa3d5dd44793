//! `doppler quantize`.

use std::path::Path;

use doppler_engine::formats::convert::{Recipe, write_gguf};
use doppler_engine::model::read_checkpoint;
use doppler_engine::source;
use doppler_files::printable;

use super::Failure;
use super::open::{percent, size};

/// Writes beside `output` first, so that an unfinished file never bears its name.
pub(super) async fn quantize(model: &Path, output: &Path, recipe: Recipe) -> Result<(), Failure> {
    let source = source::open(model)?;
    let checkpoint = read_checkpoint(&*source).await?;
    for (wanted, got, tensors) in recipe.fallbacks(&checkpoint)? {
        println!("note: {tensors} matrices stay in {got}: their rows are no multiple of {}, which {wanted} needs", wanted.block_size());
    }
    for note in &checkpoint.notes {
        println!("note: {}", printable(note));
    }
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
    println!("{}: {} from {}", printable(&output.display().to_string()), size(std::fs::metadata(output)?.len()), size(source.bytes()));
    Ok(())
}
