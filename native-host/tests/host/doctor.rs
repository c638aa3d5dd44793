//! What the doctor finds, by doing what a browser does.

use std::fs;

use doppler_host::HOST_NAME;

use crate::process::{Home, gguf};

fn manifest(home: &Home) -> std::path::PathBuf {
    home.path(&format!(".config/chromium/NativeMessagingHosts/{HOST_NAME}.json"))
}

fn installed() -> Home {
    let home = Home::new();
    gguf(&home.models().join("one.gguf"), b"");
    home.must(&["models", "add", home.models().to_str().expect("text")]);
    home.must(&["install", "--browser", "chromium"]);
    home
}

#[test]
fn doctor_good_installation_is_healthy() {
    let home = installed();
    let report = home.must(&["doctor"]);
    assert!(report.contains("Chromium: the host 0.1.0 answers messages and HTTP") && report.contains("1 model in 1 folder\n"), "{report}");
}

fn edit(home: &Home, from: &str, to: &str) {
    let text = fs::read_to_string(manifest(home)).expect("a manifest");
    assert!(text.contains(from), "{text}");
    fs::write(manifest(home), text.replace(from, to)).expect("a manifest");
}

/// What the report must say, and what makes it so.
type Damage = (&'static str, fn(&Home));

#[test]
fn doctor_finds_each_damage() {
    let damages: [Damage; 9] = [
        ("no browser knows the host", |home| fs::remove_dir_all(home.path(".config/chromium")).expect("a folder")),
        ("Chromium does not know the host", |home| fs::remove_file(manifest(home)).expect("a file")),
        ("is gone", |home| fs::remove_file(home.program()).expect("a file")),
        ("expected", |home| fs::write(manifest(home), "x").expect("a file")),
        ("is not ours", |home| edit(home, "stdio", "pipe")),
        ("the extension is not among those", |home| edit(home, "chrome-extension://b", "chrome-extension://a")),
        ("ended without an answer", |home| edit(home, home.program().to_str().expect("text"), "/bin/true")),
        ("cannot be read", |home| fs::remove_dir_all(home.models()).expect("a folder")),
        ("list of folders is unusable", |home| fs::write(home.config(), "{}").expect("a file")),
    ];
    for (words, spoil) in damages {
        let home = installed();
        spoil(&home);
        let (healthy, report) = home.run(&["doctor"]);
        assert!(!healthy && report.contains("BAD") && report.contains(words), "{words}: {report}");
    }
    let home = installed();
    home.must(&["models", "remove", home.models().to_str().expect("text")]);
    let (healthy, report) = home.run(&["doctor"]);
    assert!(!healthy && report.contains("no folder is chosen"), "{report}");
}
