//! Registering with browsers, and leaving nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use doppler_host::registration::Manifest;
use doppler_host::{EXTENSION_ID, HOST_NAME};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::process::{Home, gguf};

const CHROMIUM: &str = ".config/chromium";
const VIVALDI: &str = ".config/vivaldi";

fn hosts(browser: &str) -> String {
    format!("{browser}/NativeMessagingHosts/{HOST_NAME}.json")
}

/// All files below a folder with their bytes; folders with none.
fn tree(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                found.insert(name, Some(fs::read(path).expect("a file")));
            }
        }
    }
    found
}

/// A home in which browsers of these folders have been used.
fn with(browsers: &[&str]) -> Home {
    let home = Home::new();
    for folder in browsers.iter().chain(&[".config", ".local/share"]) {
        fs::create_dir_all(home.path(folder)).expect("a folder");
    }
    home
}

/// The id is the hash of the key that makes it so in every browser.
#[test]
fn extension_id_equals_hash_of_key() {
    let manifest = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifest.json")).expect("the extension's manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let key = STANDARD.decode(manifest["key"].as_str().expect("a key")).expect("base64");
    let hash = Sha256::digest(key);
    let digits = hash[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    assert_eq!(digits.map(|digit| char::from(b'a' + digit)).collect::<String>(), EXTENSION_ID);
}

#[test]
fn install_registers_only_found_browsers() {
    let home = with(&[CHROMIUM, VIVALDI]);
    let before = tree(&home.path(""));
    let said = home.must(&["install"]);
    assert!(said.contains(&format!("\"{}\" models add", home.program().display())), "{said}");
    let after = tree(&home.path(""));
    for browser in [CHROMIUM, VIVALDI] {
        let manifest = Manifest::read(&home.path(&hosts(browser))).expect("a manifest");
        assert_eq!((manifest.name.as_str(), manifest.kind.as_str(), &manifest.path), (HOST_NAME, "stdio", &home.program()));
        assert_eq!(manifest.allowed_origins, [format!("chrome-extension://{EXTENSION_ID}/")]);
    }
    assert!(fs::read(home.program()).expect("a program") == fs::read(env!("CARGO_BIN_EXE_doppler-host")).expect("a program"));
    let new: Vec<&String> =
        after.iter().filter(|(name, bytes)| bytes.is_some() && !before.contains_key(*name)).map(|(name, _)| name).collect();
    assert_eq!(new, [&hosts(CHROMIUM), ".config/doppler/host.json", &hosts(VIVALDI), ".local/share/doppler/doppler-host"]);
    #[cfg(unix)]
    for (path, mode) in [(home.program(), 0o755), (home.config(), 0o600), (home.path(&hosts(CHROMIUM)), 0o644)] {
        let metadata = fs::metadata(&path).expect("a file");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, mode, "{}", path.display());
    }
    // Again, also by the program that was installed, is the same as once.
    home.must(&["install"]);
    assert!(std::process::Command::new(home.program()).arg("install").env("HOME", home.path("")).status().expect("a run").success());
    assert!(tree(&home.path("")) == after);
    let status = home.must(&["status"]);
    assert!(status.contains("Chromium: registered") && status.contains("Brave: not found"), "{status}");

    home.must(&["uninstall"]);
    assert_eq!(tree(&home.path("")).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(home.must(&["status"]).contains("Chromium: not registered"));
    home.must(&["uninstall"]);
}

#[test]
fn install_without_browser_fails_with_hint() {
    let home = with(&[]);
    let before = tree(&home.path(""));
    let (success, text) = home.run(&["install"]);
    assert!(!success && text.contains("--browser"), "{text}");
    let (success, text) = home.run(&["install", "--browser", "netscape"]);
    assert!(!success && text.contains("vivaldi"), "{text}");
    let (success, text) = home.run(&["install", "--browser", "edge", "--extension", "not-an-id"]);
    assert!(!success && text.contains("32 letters"), "{text}");
    assert!(tree(&home.path("")) == before);
}

#[test]
fn install_registers_named_browser_and_folder() {
    let home = with(&[CHROMIUM]);
    let data = home.path("profile");
    let other = "abcdefghijklmnopabcdefghijklmnop";
    home.must(&["install", "--browser", "edge", "--user-data-dir", data.to_str().expect("text"), "--extension", other]);
    for folder in [".config/microsoft-edge", "profile"] {
        let manifest = Manifest::read(&home.path(&hosts(folder))).expect("a manifest");
        assert_eq!(manifest.allowed_origins[1..], [format!("chrome-extension://{other}/")]);
    }
    assert!(!home.path(&hosts(CHROMIUM)).exists());
    // The program stays as long as a browser uses it.
    home.must(&["uninstall", "--user-data-dir", data.to_str().expect("text")]);
    assert!(!home.path("profile/NativeMessagingHosts").exists() && home.program().exists());
    home.must(&["models", "add", home.models().to_str().expect("text")]);
    assert!(!home.must(&["install"]).contains("models add"));
    home.must(&["uninstall", "--keep-models"]);
    assert!(!home.program().exists() && home.config().exists());
    home.must(&["uninstall"]);
    assert!(!home.config().parent().expect("a folder").exists());
}

/// Ids are taken as people copy them, and installing again keeps those that are registered.
#[test]
fn install_keeps_further_extensions() {
    let home = with(&[CHROMIUM]);
    let ids = ["abcdefghijklmnopabcdefghijklmnop", "ponmlkjihgfedcbaponmlkjihgfedcba"];
    let origins = || Manifest::read(&home.path(&hosts(CHROMIUM))).expect("a manifest").allowed_origins;
    let expected = |count: usize| {
        [&[EXTENSION_ID][..], &ids[..count]].concat().iter().map(|id| format!("chrome-extension://{id}/")).collect::<Vec<_>>()
    };
    home.must(&["install", "--extension", &format!("{}/", ids[0])]);
    assert_eq!(origins(), expected(1));
    home.must(&["install"]);
    assert_eq!(origins(), expected(1));
    home.must(&["install", "--extension", &format!("chrome-extension://{}/", ids[1]), "--extension", ids[0], "--extension", EXTENSION_ID]);
    assert_eq!(origins(), expected(2));
    // What is no id in a manifest that others wrote is not kept.
    let path = home.path(&hosts(CHROMIUM));
    let text = fs::read_to_string(&path).expect("a manifest").replace(&format!("{}/", ids[1]), &format!("{}//", ids[1]));
    fs::write(&path, text).expect("a manifest");
    home.must(&["install"]);
    assert_eq!(origins(), expected(1));
    for id in ["", "/", "abc", &"q".repeat(32), &format!("{}//", ids[0]), &format!("{}/x", ids[0]), "https://a.example/"] {
        let (success, text) = home.run(&["install", "--extension", id]);
        assert!(!success && text.contains("32 letters"), "{id}: {text}");
    }
    assert_eq!(origins(), expected(1));
}

/// Control characters of names and arguments reach no terminal.
#[cfg(unix)]
#[test]
fn printed_names_have_no_escapes() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    gguf(&home.models().join("\u{1b}]0;title\u{7}\u{9b}2J\n.gguf"), b"");
    let text = home.must(&["models", "add", home.models().to_str().expect("text")]);
    assert!(text.contains(r"\u{1b}]0;title\u{7}\u{9b}2J\u{a}.gguf") && text.contains("1 model\n"), "{text:?}");
    let (success, text) = home.run(&["models", "add", "no\u{1b}[31mthing"]);
    assert!(!success && text.contains(r"no\u{1b}[31mthing"), "{text:?}");
    // An argument that is no text is an error with a name, not a panic.
    for arguments in
        [vec![std::ffi::OsStr::from_bytes(b"\xff\xfe")], vec!["models".as_ref(), "add".as_ref(), std::ffi::OsStr::from_bytes(b"\xff")]]
    {
        let output = home.command(&[]).args(arguments).output().expect("a run");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success()
                && !error.contains("panicked")
                && error.to_lowercase().contains("error") | error.contains("doppler-host:"),
            "{error}"
        );
    }
}

/// Whoever reads while it is written sees the old or the new, and nothing is left over.
#[test]
fn install_replaces_files_atomically() {
    let home = with(&[CHROMIUM]);
    home.must(&["install"]);
    let before = tree(&home.path(""));
    let bytes = fs::metadata(home.program()).expect("a program").len();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                Manifest::read(&home.path(&hosts(CHROMIUM))).expect("a whole manifest");
                assert_eq!(fs::metadata(home.program()).expect("a program").len(), bytes);
                reads += 1;
            }
            reads
        });
        for _ in 0..10 {
            home.must(&["install"]);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("no half file") > 0);
    });
    assert!(tree(&home.path("")) == before);
}

#[test]
fn models_find_lists_folders() {
    let home = Home::new();
    gguf(&home.models().join("one.gguf"), b"");
    gguf(&home.path(".lmstudio/models/org/name/two.gguf"), b"");
    let models = home.models().to_str().expect("text").to_owned();
    let found = home.must(&["models", "find"]);
    assert!(
        found.contains("LM Studio: 1 model: ") && found.contains(&format!("\"{}\" models add", env!("CARGO_BIN_EXE_doppler-host"))),
        "{found}"
    );
    assert!(!home.config().exists(), "looking changes nothing");
    assert!(home.must(&["models", "list"]).contains("0 models"));
    for _ in 0..2 {
        assert!(home.must(&["models", "add", &models]).contains("one.gguf"));
    }
    let list = home.must(&["models", "list"]);
    assert_eq!((list.matches("folder ").count(), list.matches(".gguf").count()), (1, 1), "{list}");
    let (success, text) = home.run(&["models", "add", home.path("nothing").to_str().expect("text")]);
    assert!(!success && text.contains("nothing"), "{text}");
    fs::remove_dir_all(home.models()).expect("a folder");
    assert!(home.must(&["models", "list"]).contains("cannot be read"));
    // What is gone can still be taken from the list.
    home.must(&["models", "remove", &models]);
    assert!(!home.run(&["models", "remove", &models]).0);
}
