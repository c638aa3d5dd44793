//! What counts as a model, and what does not leave the chosen folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use doppler_files::{OLLAMA_PARAMETERS, OLLAMA_SYSTEM};
use doppler_host::catalog::{Catalog, Format, Model};
use doppler_host::config::Config;
use tempfile::TempDir;

use crate::process::{gguf, sparse_gguf};

/// A scan of folders in a temporary one.
struct Disk {
    folder: TempDir,
    config: Config,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::load(&folder.path().join("none")).expect("a new list");
        Self { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    fn gguf(&self, name: &str) {
        gguf(&self.path(name), name.as_bytes());
    }

    fn safetensors(&self, name: &str) {
        self.write(name, b"\x02\0\0\0\0\0\0\0{}");
    }

    #[cfg(unix)]
    fn link(&self, name: &str, target: impl AsRef<Path>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink(target, path).expect("a link");
    }

    fn scan(&self, roots: &[&str]) -> Catalog {
        let catalog = Catalog::scan(&self.config.with_roots(roots.iter().map(|root| self.path(root)).collect()));
        let secret = self.folder.path().to_str().expect("text");
        assert!(!catalog.problems.iter().any(|problem| problem.contains(secret)), "a path in {:?}", catalog.problems);
        catalog
    }
}

fn names(catalog: &Catalog) -> Vec<&str> {
    catalog.models.iter().map(|model| model.name.as_str()).collect()
}

fn parts(model: &Model) -> Vec<&str> {
    model.parts.iter().map(|part| part.name.as_str()).collect()
}

fn assert_problem(catalog: &Catalog, words: &[&str]) {
    let told = catalog.problems.iter().any(|problem| words.iter().all(|word| problem.contains(word)));
    assert!(told, "nothing about {words:?} in {:?}", catalog.problems);
}

#[test]
fn catalog_recognises_models_by_magic() {
    let disk = Disk::new();
    disk.gguf("a/one.gguf");
    disk.gguf("a/deep/er/TWO.GGUF");
    disk.gguf("a/mmproj-one.gguf");
    disk.gguf("a/three.bin");
    disk.write("a/text.gguf", b"hello, world");
    disk.write("a/short.gguf", b"GG");
    disk.write("a/empty.gguf", b"");
    let catalog = disk.scan(&["a"]);
    assert_eq!(names(&catalog), ["TWO.GGUF", "one.gguf"]);
    for (name, what) in [("text.gguf", "text, perhaps"), ("short.gguf", "text, perhaps"), ("empty.gguf", "it is empty")] {
        assert_problem(&catalog, &[name, what]);
    }
    let one = &catalog.models[1];
    assert_eq!((one.format, one.bytes(), one.id.len()), (Format::Gguf, 4 + "a/one.gguf".len() as u64, 32));
    assert!(one.id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
}

/// The same file has the same id in every scan and by every way to it, and another one on another machine.
#[test]
fn model_ids_are_stable_and_opaque() {
    let disk = Disk::new();
    disk.gguf("a/b/one.gguf");
    disk.gguf("a/two.gguf");
    let first = disk.scan(&["a"]);
    let again = disk.scan(&["a/b", "a", "a"]);
    let ids = |catalog: &Catalog| catalog.models.iter().map(|model| model.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&first), first.models.len()), (ids(&again), 2));
    assert_ne!(ids(&first)[0], ids(&first)[1]);
    let other = Disk { folder: disk.folder, config: Config::load(Path::new("none")).expect("a new list") };
    assert_ne!(ids(&first), ids(&other.scan(&["a"])));
}

#[test]
fn catalog_joins_split_files() {
    let disk = Disk::new();
    for part in 1..=3 {
        disk.gguf(&format!("a/whole-0000{part}-of-00003.gguf"));
    }
    disk.gguf("a/half-00001-of-00002.gguf");
    disk.gguf("a/one-of-many.gguf");
    let catalog = disk.scan(&["a"]);
    assert_eq!(names(&catalog), ["one-of-many.gguf", "whole.gguf"]);
    assert_eq!(parts(&catalog.models[1]), ["whole-00001-of-00003.gguf", "whole-00002-of-00003.gguf", "whole-00003-of-00003.gguf"]);
    assert_problem(&catalog, &["half", "2 parts", "only 1"]);
}

#[test]
fn catalog_lists_safetensors_folders() {
    let disk = Disk::new();
    disk.safetensors("a/qwen/model-00001-of-00002.safetensors");
    disk.safetensors("a/qwen/model-00002-of-00002.safetensors");
    disk.write("a/qwen/config.json", b" {}");
    disk.write("a/qwen/tokenizer.json", b"{}");
    disk.write("a/qwen/1_Pooling/config.json", b"{}");
    disk.write("a/qwen/passwords.json", b"{}");
    disk.write("a/qwen/train.py", b"");
    disk.safetensors("a/adapter/model.safetensors");
    disk.write("a/fake/config.json", b"{}");
    disk.write("a/fake/model.safetensors", b"\xff\xff\0\0\0\0\0\0{}");
    let catalog = disk.scan(&["a"]);
    assert_eq!(names(&catalog), ["qwen"]);
    let files =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"];
    assert_eq!((parts(&catalog.models[0]), catalog.models[0].format), (files.to_vec(), Format::Safetensors));
    assert_problem(&catalog, &["model.safetensors", "cut off"]);
}

#[cfg(unix)]
#[test]
fn catalog_links_outside_folders_are_skipped() {
    let disk = Disk::new();
    disk.gguf("outside/secret.gguf");
    disk.gguf("a/real.gguf");
    disk.gguf("b/other.gguf");
    disk.link("a/inside.gguf", "real.gguf");
    disk.link("a/absolute.gguf", disk.path("outside/secret.gguf"));
    disk.link("a/relative.gguf", "../outside/secret.gguf");
    disk.link("a/device.gguf", "/dev/zero");
    disk.link("a/dangling.gguf", "nothing");
    disk.link("a/loop.gguf", "loop.gguf");
    disk.link("a/folder", disk.path("outside"));
    disk.link("a/around", ".");
    let catalog = disk.scan(&["a"]);
    assert_eq!(catalog.models.len(), 1, "{:?}", names(&catalog));
    for name in ["absolute.gguf", "relative.gguf", "device.gguf"] {
        assert_problem(&catalog, &[name, "outside the folders"]);
    }
    assert_problem(&catalog, &["dangling.gguf"]);
    assert_problem(&catalog, &["loop.gguf"]);
    // From one chosen folder into another is within.
    disk.link("a/other.gguf", "../b/other.gguf");
    assert_eq!(disk.scan(&["a", "b"]).models.len(), 2);
    // A link itself may be chosen: the user did.
    disk.link("chosen", "outside");
    assert_eq!(names(&disk.scan(&["chosen"])), ["secret.gguf"]);
}

#[cfg(unix)]
#[test]
fn catalog_skips_files_that_are_not_regular() {
    let disk = Disk::new();
    disk.gguf("a/real.gguf");
    // Opening it would wait for a writer.
    assert!(Command::new("mkfifo").arg(disk.path("a/pipe.gguf")).status().expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(disk.path("a/socket.gguf")).expect("a socket");
    fs::create_dir(disk.path("a/folder.gguf")).expect("a folder");
    let catalog = disk.scan(&["a"]);
    assert_eq!(names(&catalog), ["real.gguf"]);
    assert_problem(&catalog, &["pipe.gguf", "no regular file"]);
    assert_problem(&catalog, &["socket.gguf", "no regular file"]);
}

/// The cache of Hugging Face's hub: snapshots link to blobs by their hashes, and several snapshots share them.
#[cfg(unix)]
#[test]
fn catalog_lists_hub_cache_snapshots() {
    let disk = Disk::new();
    let repository = "hub/models--org--name-GGUF";
    disk.gguf(&format!("{repository}/blobs/aaaa"));
    disk.gguf(&format!("{repository}/blobs/bbbb"));
    for (revision, link, blob) in [("r1", "small.gguf", "aaaa"), ("r2", "small.gguf", "aaaa"), ("r2", "big/large.gguf", "bbbb")] {
        let up = "../".repeat(2 + link.matches('/').count());
        disk.link(&format!("{repository}/snapshots/{revision}/{link}"), format!("{up}blobs/{blob}"));
    }
    let folder = "hub/models--org--tensors";
    disk.safetensors(&format!("{folder}/blobs/1"));
    disk.write(&format!("{folder}/blobs/2"), b"{}");
    disk.link(&format!("{folder}/snapshots/r/model.safetensors"), "../../blobs/1");
    disk.link(&format!("{folder}/snapshots/r/config.json"), "../../blobs/2");
    fs::create_dir(disk.path("hub/models--org--nothing")).expect("a folder");
    let catalog = disk.scan(&["hub"]);
    assert_eq!(
        (names(&catalog), &catalog.problems),
        (vec!["org/name-GGUF/big/large.gguf", "org/name-GGUF/small.gguf", "org/tensors"], &vec![])
    );
    assert_eq!(parts(&catalog.models[2]), ["model.safetensors", "config.json"]);
}

/// Ollama's manifests name blobs by their hashes, which are not believed.
#[cfg(unix)]
#[test]
fn catalog_lists_ollama_models() {
    let disk = Disk::new();
    let manifest = |name: &str, media_type: &str, digest: &str| {
        let projector = r#"{"mediaType":"application/vnd.ollama.image.projector","digest":"sha256:00","size":1}"#;
        let layers = format!(r#"{{"layers":[{projector},{{"mediaType":"{media_type}","digest":"{digest}","size":1}}]}}"#);
        disk.write(&format!("ollama/manifests/{name}"), layers.as_bytes());
    };
    let hash = |digit: &str| digit.repeat(64);
    let weights = "application/vnd.ollama.image.model";
    disk.gguf(&format!("ollama/blobs/sha256-{}", hash("a")));
    disk.gguf(&format!("ollama/blobs/sha256-{}", hash("b")));
    disk.write(&format!("ollama/blobs/sha256-{}", hash("c")), b"no model");
    disk.gguf("outside/secret.gguf");
    disk.link(&format!("ollama/blobs/sha256-{}", hash("d")), disk.path("outside/secret.gguf"));
    manifest("registry.ollama.ai/library/llama3/8b", weights, &format!("sha256:{}", hash("a")));
    manifest("registry.ollama.ai/me/mine/latest", weights, &format!("sha256:{}", hash("b")));
    manifest("registry.ollama.ai/library/llama3/latest", weights, &format!("sha256:{}", hash("a")));
    manifest("registry.ollama.ai/library/bad/magic", weights, &format!("sha256:{}", hash("c")));
    manifest("registry.ollama.ai/library/bad/link", weights, &format!("sha256:{}", hash("d")));
    manifest("registry.ollama.ai/library/bad/path", weights, "sha256:../../outside/secret.gguf");
    manifest("registry.ollama.ai/library/bad/none", "application/vnd.ollama.image.template", &format!("sha256:{}", hash("a")));
    disk.write("ollama/manifests/registry.ollama.ai/library/bad/json", b"{");
    let catalog = disk.scan(&["ollama"]);
    // Names of the same weights do not hide each other.
    assert_eq!(names(&catalog), ["llama3:8b", "llama3:latest", "me/mine:latest"]);
    assert_ne!(catalog.models[0].id, catalog.models[1].id);
    let again = disk.scan(&["ollama", "ollama"]);
    assert_eq!(
        again.models.iter().map(|model| &model.id).collect::<Vec<_>>(),
        catalog.models.iter().map(|model| &model.id).collect::<Vec<_>>()
    );
    assert_problem(&catalog, &["sha256-cccc", "text, perhaps a server's error"]);
    assert_problem(&catalog, &["sha256-dddd", "outside the folders"]);
    for (name, problem) in [("bad:path", "names no weights"), ("bad:none", "names no weights"), ("bad:json", "EOF")] {
        assert_problem(&catalog, &[name, problem]);
    }
}

/// Every layer of a manifest is used, named, or a reason to refuse the model.
#[test]
fn ollama_layers_become_files() {
    let disk = Disk::new();
    let hash = "a".repeat(64);
    disk.gguf(&format!("ollama/blobs/sha256-{hash}"));
    disk.write(&format!("ollama/blobs/sha256-{}", "b".repeat(64)), br#"{"temperature":0.5}"#);
    disk.write(&format!("ollama/blobs/sha256-{}", "c".repeat(64)), b"Be brief.");
    let manifest = |name: &str, kinds: &[&str]| {
        let layer = |kind: &&str| {
            let digit = match *kind {
                "params" => "b",
                "system" => "c",
                "params/lost" => "d",
                _ => "a",
            };
            let hash = digit.repeat(64);
            let kind = kind.strip_suffix("/lost").unwrap_or(kind);
            let kind = if kind.contains('/') { kind.to_owned() } else { format!("application/vnd.ollama.image.{kind}") };
            format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hash}","size":1}}"#)
        };
        let layers: Vec<String> = kinds.iter().map(layer).collect();
        disk.write(
            &format!("ollama/manifests/registry.ollama.ai/library/{name}/x"),
            format!(r#"{{"layers":[{}]}}"#, layers.join(",")).as_bytes(),
        );
    };
    manifest("bare", &["model", "license", "license"]);
    manifest("full", &["model", "template", "license", "system", "params", "messages"]);
    manifest("new", &["model", "vnd/of.tomorrow"]);
    manifest("lost", &["model", "params/lost"]);
    manifest("tuned", &["model", "adapter"]);
    manifest("mlx", &["tensor; name=a", "tensor; name=b"]);
    manifest("halves", &["model", "model"]);
    let catalog = disk.scan(&["ollama"]);
    assert_eq!(names(&catalog), ["bare:x", "full:x", "new:x"]);
    let notes = |i: usize| catalog.models[i].notes.join(" ");
    assert_eq!(notes(0), "");
    assert_eq!(notes(1), "of what Ollama keeps for it, its template (the file's own is used) and its first messages are not used here");
    assert_eq!(parts(&catalog.models[1])[1..], [OLLAMA_PARAMETERS, OLLAMA_SYSTEM]);
    assert_eq!(catalog.models[1].parts[2].path, disk.path(&format!("ollama/blobs/sha256-{}", "c".repeat(64))));
    assert_problem(&catalog, &["lost:x", OLLAMA_PARAMETERS]);
    assert_eq!(notes(2), "of what Ollama keeps for it, vnd/of.tomorrow is not used here");
    assert_problem(&catalog, &["tuned:x", "LoRA adapter"]);
    assert_problem(&catalog, &["mlx:x", "no GGUF file"]);
    assert_problem(&catalog, &["halves:x", "several files"]);
}

/// What belongs to models but is none is not listed; what was saved in the place of a model is named.
#[test]
fn catalog_skips_gguf_without_model() {
    let disk = Disk::new();
    disk.gguf("a/model.gguf");
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry = |key: &str, value: &str| [string(key), 8_u32.to_le_bytes().to_vec(), string(value)].concat();
    let file = |name: &str, entries: &[Vec<u8>]| {
        let counts = [0_u64.to_le_bytes(), (entries.len() as u64).to_le_bytes()].concat();
        disk.write(name, &[&b"GGUF\x03\0\0\0"[..], &counts, &entries.concat()].concat());
    };
    file("a/llama.gguf", &[entry("general.architecture", "llama"), entry("general.type", "model")]);
    file("a/lora.gguf", &[entry("general.architecture", "llama"), entry("general.type", "adapter")]);
    file("a/vision.gguf", &[entry("general.architecture", "clip")]);
    file("a/imatrix.gguf", &[entry("general.type", "imatrix")]);
    file("a/vector.gguf", &[entry("general.architecture", "controlvector")]);
    disk.write("a/pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n");
    disk.write("a/page.gguf", b"<!doctype html>");
    disk.write("a/zeros.gguf", &[0; 1 << 12]);
    disk.write("a/empty.gguf", b"");
    disk.write("a/zip.gguf", b"PK\x03\x04");
    disk.write("a/hf/config.json", b"{}");
    disk.write("a/hf/model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n");
    let catalog = disk.scan(&["a"]);
    assert_eq!(names(&catalog), ["llama.gguf", "model.gguf"]);
    for (name, words) in [
        ("lora.gguf", "LoRA adapter"),
        ("imatrix.gguf", "importance matrix"),
        ("vector.gguf", "control vector"),
        ("pointer.gguf", "Git LFS pointer"),
        ("page.gguf", "web page"),
        ("zeros.gguf", "zeros"),
        ("empty.gguf", "empty"),
        ("zip.gguf", "zip archive"),
        ("model.safetensors", "Git LFS pointer"),
    ] {
        assert_problem(&catalog, &[name, "is not a model file: it is", words]);
    }
    assert!(!catalog.problems.iter().any(|problem| problem.contains("vision")), "{:?}", catalog.problems);
}

#[test]
fn catalog_unreadable_folder_is_reported() {
    let disk = Disk::new();
    disk.gguf("a/one.gguf");
    disk.write("file", b"");
    let catalog = disk.scan(&["gone", "file", "a"]);
    assert_eq!(names(&catalog), ["one.gguf"]);
    assert_problem(&catalog, &["gone", "cannot be read"]);
    assert_problem(&catalog, &["file", "no folder"]);
}

/// Neither a deep nor a full disk takes for ever.
#[test]
fn catalog_scan_is_bounded() {
    let disk = Disk::new();
    disk.gguf(&format!("a/{}near.gguf", "d/".repeat(8)));
    disk.gguf(&format!("a/{}far.gguf", "d/".repeat(9)));
    disk.gguf(&format!("a/{}models--org--name/snapshots/r/{}farther.gguf", "d/".repeat(7), "d/".repeat(9)));
    assert_eq!(names(&disk.scan(&["a"])), ["near.gguf"]);
    for number in 0..1_005 {
        sparse_gguf(&disk.path(&format!("b/{number}.gguf")), 8);
    }
    let catalog = disk.scan(&["b"]);
    assert_eq!(catalog.models.len(), 1_000);
    assert_problem(&catalog, &["only the first 1000"]);
}
