//! Files that change under the host: an error, never bytes of two files, and never the end of the host.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::process::{Home, Response, Running, gguf, sparse_gguf};

/// Larger than what sockets and the host's windows hold together, so that a transfer that is not read stops in the middle.
const BYTES: u64 = 96 << 20;

struct Opened {
    home: Home,
    host: Running,
    id: String,
    path: String,
    etag: String,
}

impl Opened {
    /// A model of `BYTES` bytes `A`, open.
    fn new() -> Self {
        let home = Home::new();
        gguf(&home.models().join("one.gguf"), &vec![b'A'; BYTES as usize - 4]);
        let mut host = home.start();
        let model = host.open("one.gguf");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let (id, file) = (text(&model["id"]), &model["files"][0]);
        let (path, etag) = (text(&file["path"]), text(&file["etag"]));
        Self { home, host, id, path, etag }
    }

    fn file(&self) -> PathBuf {
        self.home.models().join("one.gguf")
    }

    fn get(&self) -> Response {
        self.host.request(&format!("GET {}", self.path), &[])
    }

    fn read(&mut self) -> String {
        self.host.code("read", json!({ "id": self.id, "file": 0, "offset": 0, "bytes": 4, "etag": self.etag }))
    }

    /// Another file in its place, as downloads and editors do it.
    fn replace(&self) {
        let other = self.home.path("other");
        gguf(&other, &vec![b'B'; BYTES as usize - 4]);
        fs::rename(other, self.file()).expect("a rename");
    }

    fn truncate(&self, bytes: u64) {
        File::options().write(true).open(self.file()).and_then(|file| file.set_len(bytes)).expect("a shorter file");
    }

    /// Other bytes near the end of the same file.
    fn overwrite(&self) {
        let mut file = File::options().write(true).open(self.file()).expect("a file");
        file.seek(SeekFrom::End(-10)).and_then(|_| file.write_all(b"BBBB")).expect("other bytes");
    }
}

type Change = (&'static str, fn(&mut Opened));

const CHANGES: [Change; 6] = [
    ("replaced", |open| open.replace()),
    ("cut", |open| open.truncate(1 << 20)),
    ("cut within a page", |open| open.truncate((50 << 20) + 77)),
    ("overwritten", |open| open.overwrite()),
    ("overwritten, its time put back", |open| {
        let modified = fs::metadata(open.file()).and_then(|metadata| metadata.modified()).expect("a time");
        open.overwrite();
        File::options().write(true).open(open.file()).and_then(|file| file.set_modified(modified)).expect("the old time");
    }),
    ("removed", |open| fs::remove_file(open.file()).expect("a file")),
];

#[test]
fn file_changed_between_requests_is_412() {
    for (name, change) in CHANGES {
        let mut open = Opened::new();
        assert_eq!(open.get().bytes(5), b"GGUFA");
        change(&mut open);
        for line in ["GET", "HEAD"] {
            let response = open.host.request(&format!("{line} {}", open.path), &["Range: bytes=0-3"]);
            assert_eq!((response.status, response.headers.get("etag")), (412, None), "{name}");
        }
        assert_eq!(open.read(), "changed", "{name}");
        // Opened again it is another state of the file, if there is one; the old one stays refused.
        match open.host.call("models.open", json!({ "id": open.id })) {
            Ok(model) => {
                assert_ne!(model["files"][0]["etag"], json!(open.etag), "{name}");
                let old = open.host.request(&format!("GET {}", open.path), &[&format!("If-Match: {}", open.etag)]);
                assert_eq!(old.status, 412, "{name}");
                assert_eq!(open.host.request(&format!("GET {}", open.path), &["Range: bytes=0-3"]).body(), b"GGUF", "{name}");
            }
            Err(error) => assert_eq!((name, &error["code"]), ("removed", &json!("not_found"))),
        }
    }
}

/// The answer breaks off before its end, and what came until then is of the file that was opened.
#[test]
fn file_changed_during_request_cuts_answer() {
    for (name, change) in CHANGES {
        let mut open = Opened::new();
        let mut response = open.get();
        assert_eq!(response.bytes(5), b"GGUFA", "{name}");
        change(&mut open);
        // Zeros: the rest of a page of which a part was cut off. Only the end of the answer would make them count.
        let mut foreign = 0;
        let complete = response.drain(|bytes| foreign += bytes.iter().filter(|&&byte| byte != b'A' && byte != 0).count());
        assert!(!complete, "{name}: the answer went on to its end");
        assert_eq!(foreign, 0, "{name}: bytes of two files");
        assert_eq!(open.host.must("ping", json!({})), json!({}), "{name}: the host lives");
    }
}

/// Closing a model ends what is on its way.
#[test]
fn close_ends_transfers() {
    let mut open = Opened::new();
    let mut response = open.get();
    assert_eq!(response.bytes(5), b"GGUFA");
    open.host.must("models.close", json!({ "id": open.id }));
    assert!(!response.drain(|_| ()), "the answer went on to its end");
    assert_eq!(open.get().status, 404);
}

/// Opening what is open and unchanged disturbs nobody.
#[test]
fn reopen_keeps_transfers() {
    let mut open = Opened::new();
    let mut response = open.get();
    assert_eq!(response.bytes(5), b"GGUFA");
    open.host.must("models.open", json!({ "id": open.id }));
    assert!(response.drain(|_| ()));
}

/// Should a mapped page ever be touched after all, the browser's log has a line that says why the host is gone.
#[cfg(unix)]
#[test]
fn sigbus_ends_with_explanation() {
    let mut open = Opened::new();
    let killed = Command::new("kill").args(["-BUS", &open.host.child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    assert_eq!(open.host.ended().code(), Some(1));
    let mut log = String::new();
    open.host.child.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
    assert!(log.contains("a model file was cut") && log.lines().count() == 1, "{log}");
}

/// However large the file is, the host holds some windows of it.
#[cfg(target_os = "linux")]
#[test]
fn transfer_memory_is_bounded() {
    let home = Home::new();
    let bytes = 2 << 30;
    sparse_gguf(&home.models().join("one.gguf"), bytes);
    let mut host = home.start();
    let model = host.open("one.gguf");
    let path = model["files"][0]["path"].as_str().expect("a path");
    let mut response = host.request(&format!("GET {path}"), &[]);
    assert!(response.left == bytes && response.drain(|_| ()));
    let status = fs::read_to_string(format!("/proc/{}/status", host.child.id())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.expect("the peak in kB");
    assert!(peak < 64 << 10, "{peak} kB for a file of {} kB", bytes >> 10);
}
