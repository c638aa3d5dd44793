//! The models in the chosen folders.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use doppler_files::{Purpose, instead, instead_of_gguf};
pub use doppler_protocol::native::Format;

use crate::config::Config;
use crate::error::{HostError, Result};
use crate::file::{ModelFile, since_1970};
use crate::layouts::{self, Manifest};

/// Folders deep that are looked through.
const MAX_DEPTH: usize = 8;
/// Entries of folders in one scan.
const MAX_ENTRIES: usize = 200_000;
/// Models in one list, so that it fits a message.
const MAX_MODELS: usize = 1_000;
/// Problems told of one scan.
const MAX_PROBLEMS: usize = 50;

/// Bytes at the start of a file that tell what it is.
const START: u64 = 16 << 10;

/// Bytes of a chat template or system prompt.
const MAX_TEXT: u64 = 1 << 20;

/// What the files of a model folder are called, besides `*.safetensors`.
const FOLDER_FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "chat_template.jinja",
    "1_Pooling/config.json",
];

/// A file of a model.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name, within the model's folder if there is one.
    pub name: String,
    /// Where it is: canonical and within a chosen folder.
    pub path: PathBuf,
    bytes: u64,
    /// Milliseconds since 1970.
    modified: u64,
    /// What it is instead of a model, and what for.
    purpose: Option<&'static str>,
}

/// A model of the list.
#[derive(Debug, Clone)]
pub struct Model {
    /// 32 hexadecimal digits: the same as long as the files stay where they are.
    pub id: String,
    /// What the user knows it by.
    pub name: String,
    /// How it is stored.
    pub format: Format,
    /// Its files, in their order.
    pub parts: Vec<Part>,
    /// What belongs to it and is not used, a sentence each.
    pub notes: Vec<String>,
}

impl Model {
    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// When the last of its files was written, in milliseconds since 1970.
    pub fn modified(&self) -> u64 {
        self.parts.iter().map(|part| part.modified).max().unwrap_or_default()
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Catalog {
    /// By name.
    pub models: Vec<Model>,
    /// What could not be read or does not fit, a sentence each, without paths.
    pub problems: Vec<String>,
}

impl Catalog {
    /// Looks through the chosen folders.
    pub fn scan(config: &Config) -> Self {
        let mut scan = Scan { config, roots: Vec::new(), seen: HashSet::new(), entries: 0, catalog: Self::default() };
        for root in &config.roots {
            match fs::canonicalize(root) {
                Ok(path) if path.is_dir() => scan.roots.push(path),
                Ok(_) => scan.problem(format!("{} is no folder", base_name(root))),
                Err(error) => scan.problem(format!("the folder {} cannot be read: {}", base_name(root), error.kind())),
            }
        }
        for root in scan.roots.clone() {
            scan.folder(&root, "", 0);
        }
        let mut catalog = scan.catalog;
        catalog.models.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        catalog
    }

    /// The model `id`.
    ///
    /// # Errors
    /// [`HostError::NotFound`] when there is none.
    pub fn take(self, id: &str) -> Result<Model> {
        self.models.into_iter().find(|model| model.id == id).ok_or(HostError::NotFound)
    }
}

/// The last part of a path.
pub(crate) fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A part of a split file: `name-00001-of-00003.gguf` as `(name, 1, 3)`.
fn split_name(name: &str) -> Option<(&str, u32, u32)> {
    let (stem, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse().ok())?;
    Some((stem, digits(number)?, digits(count)?))
}

/// What may be a model.
#[derive(Default)]
struct Found {
    name: String,
    format: Format,
    /// Where its files are.
    folder: PathBuf,
    files: Vec<String>,
    /// Further files, by the names that the engine knows.
    beside: Vec<(&'static str, PathBuf)>,
    notes: Vec<String>,
    /// Other names of the same files are other models.
    by_name: bool,
}

struct Scan<'a> {
    config: &'a Config,
    roots: Vec<PathBuf>,
    /// What models are known by, canonical paths mostly: folders may lie in each other and links lead to the same file.
    seen: HashSet<Vec<u8>>,
    entries: usize,
    catalog: Catalog,
}

impl Scan<'_> {
    fn problem(&mut self, problem: String) {
        if self.catalog.problems.len() < MAX_PROBLEMS && !self.catalog.problems.contains(&problem) {
            self.catalog.problems.push(problem);
        }
    }

    /// Looks through `folder`; the names of its models begin with `prefix`.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let (files, folders) = match self.entries(folder) {
            Ok(entries) => entries,
            Err(error) => return self.problem(format!("the folder {} cannot be read: {}", base_name(folder), error.kind())),
        };
        if folders.contains("manifests") && folders.contains("blobs") {
            return self.ollama(folder);
        }
        self.gguf(folder, &files, prefix);
        let weights = || files.iter().filter(|name| name.ends_with(".safetensors"));
        if files.contains("config.json") && weights().next().is_some() {
            let names = FOLDER_FILES.iter().map(|name| (*name).to_owned()).filter(|name| folder.join(name).exists());
            let names = weights().cloned().chain(names).collect();
            let name = if prefix.is_empty() { base_name(folder) } else { prefix.trim_end_matches('/').to_owned() };
            self.add(folder, Found { name, format: Format::Safetensors, folder: folder.to_owned(), files: names, ..Found::default() });
        }
        if depth >= MAX_DEPTH {
            return;
        }
        for name in folders {
            let inner = folder.join(&name);
            match layouts::hub_repository(&name) {
                Some(repository) => self.hub(&inner.join("snapshots"), &repository, depth + 1),
                None if prefix.is_empty() => self.folder(&inner, "", depth + 1),
                None => self.folder(&inner, &format!("{prefix}{name}/"), depth + 1),
            }
        }
    }

    /// Names of the files (and links) and of the folders in `folder`; folders that are links are left out.
    fn entries(&mut self, folder: &Path) -> io::Result<(BTreeSet<String>, BTreeSet<String>)> {
        let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                self.problem(format!("only the first {MAX_ENTRIES} files were looked at: choose smaller folders"));
                break;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let names = if entry.file_type()?.is_dir() { &mut folders } else { &mut files };
            names.insert(name);
        }
        Ok((files, folders))
    }

    /// The GGUF files among `files`, the parts of a split one together.
    fn gguf(&mut self, folder: &Path, files: &BTreeSet<String>, prefix: &str) {
        let mut splits: BTreeMap<(&str, u32), Vec<(u32, &String)>> = BTreeMap::new();
        // llama.cpp calls the projectors of vision models so: no models by themselves.
        for name in files.iter().filter(|name| name.to_ascii_lowercase().ends_with(".gguf") && !name.starts_with("mmproj")) {
            match split_name(name) {
                Some((stem, number, count)) => splits.entry((stem, count)).or_default().push((number, name)),
                None => self.single(&folder.join(name), Found { name: format!("{prefix}{name}"), ..Found::default() }),
            }
        }
        for ((stem, count), parts) in splits {
            if parts.iter().map(|part| part.0).eq(1..=count) {
                let names: Vec<String> = parts.into_iter().map(|part| part.1.clone()).collect();
                let key = folder.join(&names[0]);
                self.add(&key, Found { name: format!("{prefix}{stem}.gguf"), folder: folder.to_owned(), files: names, ..Found::default() });
            } else {
                self.problem(format!("of {stem}, which has {count} parts, only {} are there", parts.len()));
            }
        }
    }

    /// A model of one file.
    fn single(&mut self, path: &Path, found: Found) {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        self.add(path, Found { folder, files: vec![base_name(path)], ..found });
    }

    /// The snapshots of a repository in the cache of Hugging Face's hub: folders of links into its `blobs`.
    fn hub(&mut self, snapshots: &Path, repository: &str, depth: usize) {
        match self.entries(snapshots) {
            Ok((_, revisions)) => {
                for name in revisions {
                    self.folder(&snapshots.join(name), &format!("{repository}/"), depth + 2);
                }
            }
            // A repository of which nothing was downloaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.problem(format!("{repository} cannot be read: {}", error.kind())),
        }
    }

    /// The models of a folder of Ollama, by its manifests. Several names of the same weights are several models.
    fn ollama(&mut self, folder: &Path) {
        for (name, manifest) in layouts::ollama(folder) {
            match manifest {
                Ok(Manifest { weights, beside, notes }) => {
                    let blobs = folder.join("blobs");
                    let beside = beside.into_iter().map(|(name, blob)| (name, blobs.join(blob))).collect();
                    self.single(&blobs.join(weights), Found { name, beside, notes, by_name: true, ..Found::default() });
                }
                Err(problem) => self.problem(format!("{name} cannot be read: {problem}")),
            }
        }
    }

    /// Adds a model unless it is known; `key` is what it is known by, together with its name if that counts.
    fn add(&mut self, key: &Path, found: Found) {
        let Found { name, format, folder, files, beside, notes, by_name } = found;
        let added = fs::canonicalize(key).map_err(|problem| HostError::Unreadable { name: name.clone(), problem }).and_then(|key| {
            let mut key = key.into_os_string().into_encoded_bytes();
            if by_name {
                key.push(0);
                key.extend(name.as_bytes());
            }
            if self.seen.contains(&key) {
                return Ok(());
            }
            let mut parts = files.into_iter().map(|name| self.part(&folder.join(&name), name)).collect::<Result<Vec<_>>>()?;
            if let [Part { purpose: Some(what), name, .. }] = parts.as_slice() {
                return Err(HostError::NotAModel { name: name.clone(), problem: (*what).to_owned() });
            }
            if self.catalog.models.len() == MAX_MODELS {
                self.problem(format!("only the first {MAX_MODELS} models are listed: choose smaller folders"));
                return Ok(());
            }
            for (file, path) in beside {
                match self.part(&path, file.to_owned()) {
                    Ok(part) => parts.push(part),
                    Err(error) => {
                        self.problem(format!("{name} cannot be read: {error}"));
                        return Ok(());
                    }
                }
            }
            let id = self.config.opaque("model", &key);
            self.seen.insert(key);
            self.catalog.models.push(Model { id, name, format, parts, notes });
            Ok(())
        });
        match added {
            // Every model that sees pictures has one beside it: not worth a word.
            Err(HostError::NotAModel { problem, .. }) if problem.contains("(mmproj)") => {}
            Err(error) => self.problem(error.to_string()),
            Ok(()) => {}
        }
    }

    /// The file behind `path`, if it lies in a chosen folder and is what its name says.
    fn part(&self, path: &Path, name: String) -> Result<Part> {
        let path = fs::canonicalize(path).map_err(|problem| HostError::Unreadable { name: name.clone(), problem })?;
        if !self.roots.iter().any(|root| path.starts_with(root)) {
            return Err(HostError::NotAModel { name, problem: "a link to outside the folders you chose".to_owned() });
        }
        let file = ModelFile::open(&path, &name, self.config)?;
        let purpose = check_start(&file)?;
        let modified = since_1970(&fs::metadata(&path).map_err(|problem| HostError::Unreadable { name: name.clone(), problem })?);
        Ok(Part { name, path, bytes: file.bytes(), modified: modified.as_millis() as u64, purpose })
    }
}

/// Checks that a file begins as its name promises; names without a known suffix are those of GGUF blobs. Where it is GGUF and no model,
/// what it is.
///
/// # Errors
/// [`HostError::NotAModel`] when it does not.
pub(crate) fn check_start(file: &ModelFile) -> Result<Option<&'static str>> {
    let start = file.read(0, file.bytes().min(START) as usize)?;
    let known = |otherwise: &str| instead(&start).unwrap_or(otherwise).to_owned();
    let problem = match Path::new(&file.name).extension().and_then(OsStr::to_str) {
        Some("safetensors") => {
            let header = start.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
            let fits = start.get(8) == Some(&b'{') && header <= file.bytes() - 8;
            let cut = || "cut off: its header is longer than the file; download it again".to_owned();
            (!fits).then(|| if start.get(8) == Some(&b'{') { cut() } else { known("something else: it has no header of safetensors") })
        }
        Some("json") => (!start.trim_ascii_start().starts_with(b"{")).then(|| known("no JSON object")),
        Some("jinja" | "txt") => (file.bytes() > MAX_TEXT).then(|| "longer than a template or system prompt".to_owned()),
        _ if start.starts_with(b"GGUF") => return Ok(Purpose::read(&start).no_model()),
        _ => Some(instead_of_gguf(&start)),
    };
    problem.map_or(Ok(None), |problem| Err(HostError::NotAModel { name: file.name.clone(), problem }))
}
