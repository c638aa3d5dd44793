//! The store zip: exactly what ships, the same bytes for the same input, and every reference inside it resolved.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::process::step;
use crate::references::{self, Files};

/// Rust crates in the extension's folder; their output is in `extension/pkg`.
const CRATES: [&str; 3] = ["extension/protocol", "extension/ui", "extension/worker"];

/// Endings of files that ship.
const SHIPPED: [&str; 9] = [".js", ".css", ".html", ".json", ".wasm", ".svg", ".png", ".woff2", ".gguf"];

/// Endings of files that stand beside them and stay home; the icons are drawn from `icon.svg` beforehand.
const KEPT: [&str; 4] = [".d.ts", ".md", ".gitignore", "/icon.svg"];

/// Files that ship although their ending stays home: the page API's types.
const ALSO_SHIPPED: [&str; 1] = ["extension/page/doppler.d.ts"];

/// Writes `target/doppler-<version>.zip` and returns its path.
///
/// # Errors
/// When a file of unknown kind is found, a reference does not resolve, or the zip cannot be written.
pub(crate) fn write(root: &Path) -> Result<PathBuf> {
    let files = collect(root)?;
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).context("manifest.json is not JSON")?;
    let version = manifest["version"].as_str().context("manifest.json has no `version`")?;
    let missing = references::missing(&files, &manifest)?;
    if !missing.is_empty() {
        bail!("the package would lack what it refers to:\n  {}", missing.join("\n  "));
    }
    let path = root.join(format!("target/doppler-{version}.zip"));
    let content: usize = files.values().map(Vec::len).sum();
    step(&format!("Packing {} files, {content} bytes", files.len()), || write_zip(&files, &path))?;
    println!("{} bytes zipped", fs::metadata(&path)?.len());
    Ok(path)
}

/// All files that ship.
fn collect(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    for name in ["manifest.json", "LICENSE-MIT", "LICENSE-APACHE"] {
        let content = fs::read(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        files.insert(name.to_owned(), content);
    }
    collect_folder(root, "extension", &mut files)?;
    Ok(files)
}

fn collect_folder(root: &Path, folder: &str, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("cannot read {folder}"))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{folder}/{}", name.to_str().context("a file name is not UTF-8")?);
        let ends = |endings: &[&str]| endings.iter().any(|ending| path.ends_with(ending));
        if CRATES.contains(&path.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect_folder(root, &path, files)?;
        } else if ALSO_SHIPPED.contains(&path.as_str()) || (ends(&SHIPPED) && !ends(&KEPT)) {
            files.insert(path, fs::read(entry.path())?);
        } else if !ends(&KEPT) {
            bail!("{path}: nobody said whether this kind of file ships; see xtask/src/package.rs");
        }
    }
    Ok(())
}

/// Writes `files` in order of their names and with one fixed date, so that equal files make equal zips.
fn write_zip(files: &Files, path: &Path) -> Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(File::create(path)?);
    for (name, content) in files {
        zip.start_file(name.as_str(), options)?;
        zip.write_all(content)?;
    }
    zip.finish()?.sync_all()?;
    Ok(())
}
