//! Where other programs keep models.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::places::Places;

/// Folders of other programs that exist here, with the program's name. They are offered; nobody but the user adds them.
pub fn known_folders(places: &Places) -> Vec<(&'static str, PathBuf)> {
    let home = &places.home;
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let candidates = [
        ("LM Studio", Some(home.join(".lmstudio/models"))),
        ("LM Studio", Some(home.join(".cache/lm-studio/models"))),
        ("Ollama", variable("OLLAMA_MODELS")),
        ("Ollama", Some(home.join(".ollama/models"))),
        ("Ollama", Some(PathBuf::from("/usr/share/ollama/.ollama/models"))),
        ("Hugging Face", variable("HF_HUB_CACHE")),
        ("Hugging Face", variable("HF_HOME").map(|folder| folder.join("hub"))),
        ("Hugging Face", Some(home.join(".cache/huggingface/hub"))),
        ("llama.cpp", variable("LLAMA_CACHE")),
        ("llama.cpp", Some(places.cache.join("llama.cpp"))),
    ];
    let mut found: Vec<(_, PathBuf)> = Vec::new();
    for (program, folder) in candidates {
        if let Some(folder) = folder.and_then(|folder| fs::canonicalize(folder).ok())
            && folder.is_dir()
            && !found.iter().any(|(_, known)| *known == folder)
        {
            found.push((program, folder));
        }
    }
    found
}

/// The repository whose folder in the cache of Hugging Face's hub is called so: `models--org--name` is `org/name`.
pub(crate) fn hub_repository(folder: &str) -> Option<String> {
    Some(folder.strip_prefix("models--")?.replace("--", "/"))
}

/// A manifest of Ollama, as far as it matters.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// The longest manifest in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Models of a folder of Ollama, by the name that its commands use: `manifests/<registry>/<owner>/<model>/<tag>` names the blobs of
/// a model by their hashes. A name's blob may be anything: it is checked like every other file.
pub(crate) fn ollama(folder: &Path) -> Vec<(String, io::Result<PathBuf>)> {
    let mut models = Vec::new();
    for registry in names(&folder.join("manifests")) {
        let path = folder.join("manifests").join(&registry);
        for owner in names(&path) {
            for model in names(&path.join(&owner)) {
                for tag in names(&path.join(&owner).join(&model)) {
                    let name = match (registry.as_str(), owner.as_str()) {
                        ("registry.ollama.ai", "library") => format!("{model}:{tag}"),
                        ("registry.ollama.ai", owner) => format!("{owner}/{model}:{tag}"),
                        (registry, owner) => format!("{registry}/{owner}/{model}:{tag}"),
                    };
                    let blob = weights(&path.join(&owner).join(&model).join(&tag));
                    models.push((name, blob.map(|blob| folder.join("blobs").join(blob))));
                }
            }
        }
    }
    models
}

/// The file name of the blob with the weights.
fn weights(manifest: &Path) -> io::Result<String> {
    let metadata = fs::symlink_metadata(manifest)?;
    if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
        return Err(io::Error::other("its manifest is no small file"));
    }
    let manifest: Manifest = serde_json::from_slice(&fs::read(manifest)?)?;
    let layer = manifest.layers.iter().find(|layer| layer.media_type == "application/vnd.ollama.image.model");
    let hash = layer.and_then(|layer| layer.digest.strip_prefix("sha256:"));
    let hash = hash.filter(|hash| hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
    hash.map(|hash| format!("sha256-{hash}")).ok_or_else(|| io::Error::other("its manifest names no weights"))
}

/// Names in a folder, in order; none where it cannot be read. Manifests are few and in four levels.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(10_000).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
