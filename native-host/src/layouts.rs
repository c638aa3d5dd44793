//! Where other programs keep models.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use doppler_files::{OLLAMA_PARAMETERS, OLLAMA_SYSTEM};
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

/// What a manifest of Ollama says.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The file name of the blob with the weights.
    pub(crate) weights: String,
    /// Names that the engine knows and the file names of the blobs: parameters and system prompt.
    pub(crate) beside: Vec<(&'static str, String)>,
    /// What else it names and what is not used, a sentence.
    pub(crate) notes: Vec<String>,
}

/// The manifest's layers: a blob each.
#[derive(Deserialize)]
struct Layers {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

impl Layer {
    /// What it is for, such as `model`; media types of others as they are.
    fn kind(&self) -> &str {
        let kind = self.media_type.split(';').next().unwrap_or_default().trim();
        kind.strip_prefix("application/vnd.ollama.image.").unwrap_or(kind)
    }

    /// The file name of its blob, if its hash is one.
    fn blob(&self) -> Option<String> {
        let hash = self.digest.strip_prefix("sha256:")?;
        (hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| format!("sha256-{hash}"))
    }
}

/// The longest manifest in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Models of a folder of Ollama, by the name that its commands use: `manifests/<registry>/<owner>/<model>/<tag>` names the blobs of
/// a model by their hashes. A name's blob may be anything: it is checked like every other file.
pub(crate) fn ollama(folder: &Path) -> Vec<(String, io::Result<Manifest>)> {
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
                    models.push((name, manifest(&path.join(&owner).join(&model).join(&tag))));
                }
            }
        }
    }
    models
}

/// Reads a manifest. Every layer is used, told of, or a reason to refuse the model: with an adapter it would be another one.
fn manifest(path: &Path) -> io::Result<Manifest> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
        return Err(io::Error::other("its manifest is no small file"));
    }
    let Layers { layers } = serde_json::from_slice(&fs::read(path)?)?;
    if layers.iter().any(|layer| layer.kind() == "adapter") {
        return Err(io::Error::other("it has a LoRA adapter, which is not applied here; choose the model that it was made from"));
    }
    if layers.iter().any(|layer| layer.kind() == "tensor") {
        return Err(io::Error::other("its weights are no GGUF file; pull another tag of the model"));
    }
    let mut weights = layers.iter().filter(|layer| layer.kind() == "model");
    let blob = weights.next().and_then(Layer::blob).ok_or_else(|| io::Error::other("its manifest names no weights"))?;
    if weights.next().is_some() {
        return Err(io::Error::other("its weights are in several files, which is not supported"));
    }
    let mut beside = Vec::new();
    for (kind, name) in [("params", OLLAMA_PARAMETERS), ("system", OLLAMA_SYSTEM)] {
        // The last one counts, as in Ollama.
        if let Some(layer) = layers.iter().rfind(|layer| layer.kind() == kind) {
            beside.push((name, layer.blob().ok_or_else(|| io::Error::other("its manifest names a blob by no hash"))?));
        }
    }
    let mut unused: Vec<&str> = layers.iter().filter_map(|layer| not_used(layer.kind())).collect();
    unused.dedup();
    let note = format!("of what Ollama keeps for it, {} not used here", list(&unused));
    Ok(Manifest { weights: blob, beside, notes: if unused.is_empty() { Vec::new() } else { vec![note] } })
}

/// What a layer of this kind is called, unless it is used or needs no word.
fn not_used(kind: &str) -> Option<&str> {
    match kind {
        "model" | "license" | "system" | "params" => None,
        // In Go's language; GGUF files have their own.
        "template" => Some("its template (the file's own is used)"),
        "messages" => Some("its first messages"),
        "projector" => Some("its projector for pictures"),
        other => Some(other),
    }
}

/// `a is`, `a and b are`, `a, b and c are`.
fn list(items: &[&str]) -> String {
    match items {
        [first @ .., last] if !first.is_empty() => format!("{} and {last} are", first.join(", ")),
        items => format!("{} is", items.concat()),
    }
}

/// Names in a folder, in order; none where it cannot be read. Manifests are few and in four levels.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(10_000).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
