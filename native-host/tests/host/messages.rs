//! The program's conversation with a browser.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use doppler_host::frame::{MAX_FRAME, MAX_INPUT};
use doppler_host::{EXTENSION_ID, origin};
use serde_json::{Value, json};

use crate::process::{Home, Running, gguf};

fn start(home: &Home) -> Running {
    Running::start(home.command(&[&format!("{}/", origin(EXTENSION_ID))]))
}

#[test]
fn hello_is_required_with_matching_version() {
    let home = Home::new();
    let mut host = start(&home);
    assert_eq!(host.code("ping", json!({})), "protocol");
    let error = host.call("hello", json!({ "protocol": 2 })).expect_err("another version");
    assert_eq!((&error["code"], &error["data"]), (&json!("protocol"), &json!({ "protocol": 1 })));
    assert!(error["message"].as_str().is_some_and(|message| message.contains("update the host")), "{error}");
    let error = host.call("hello", json!({ "protocol": 0 })).expect_err("another version");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("update the extension")), "{error}");
    assert_eq!(host.code("models.list", json!({})), "protocol");
    let hello = host.must("hello", json!({ "protocol": 1, "extension": "0.1.0" }));
    assert_eq!((&hello["protocol"], &hello["version"]), (&json!(1), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(hello["token"].as_str().map(str::len), Some(43));
    assert_eq!(host.must("ping", json!({})), json!({}));
}

#[test]
fn malformed_messages_are_answered_with_error() {
    let home = Home::new();
    let mut host = home.start();
    for text in ["", "{", "nonsense", "[]", "3", "null", "{}", r#"{"id":1}"#, r#"{"id":"1","method":"ping"}"#, "\u{feff}{}"] {
        host.write(&(text.len() as u32).to_ne_bytes());
        host.write(text.as_bytes());
        let answer = host.answer();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!("malformed")), "{text}");
    }
    host.write(&[2, 0, 0, 0, 0xff, 0xfe]);
    assert_eq!(host.answer()["error"]["code"], "malformed");
    assert_eq!(host.code("models.delete", json!({})), "unknown_method");
    for params in [json!({}), json!({ "id": 3 }), json!([]), json!(null)] {
        assert_eq!(host.code("models.open", params), "malformed");
    }
    for id in ["", "../../etc/passwd", "/etc/passwd", &"0".repeat(32), &"a".repeat(100_000)] {
        assert_eq!(host.code("models.open", json!({ "id": id })), "not_found");
        assert_eq!(host.code("models.stat", json!({ "id": id })), "not_found");
        assert_eq!(host.must("models.close", json!({ "id": id })), json!({}));
    }
    assert_eq!(host.must("ping", json!({})), json!({}));
}

#[test]
fn frame_too_long_ends_host_with_error() {
    let home = Home::new();
    let mut host = home.start();
    host.write(&(MAX_FRAME + 1).to_ne_bytes());
    let answer = host.answer();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!("malformed")));
    assert_eq!(host.ended().code(), Some(1));
}

#[test]
fn host_ends_when_pipe_closes() {
    let home = Home::new();
    // The pipe closes between frames, within a length and within a message.
    for rest in [&b""[..], b"\x05\0", b"\x05\0\0\0{"] {
        let mut host = home.start();
        host.write(rest);
        drop(host.input.take());
        assert_eq!(host.ended().code(), Some(0));
        assert!(TcpStream::connect(("127.0.0.1", host.port)).is_err(), "its server is still there");
    }
    let mut host = home.start();
    drop(host.output.take());
    host.send("ping", &json!({}));
    assert_eq!(host.ended().code(), Some(0));
}

/// More requests at once than are worked on, answered in any order, each once.
#[test]
fn requests_overlapping_are_all_answered() {
    let home = Home::new();
    gguf(&home.models().join("one.gguf"), b"1");
    let mut host = home.start();
    let mut sent: BTreeSet<u64> = (0..100).map(|n| host.send(if n % 3 == 0 { "models.list" } else { "ping" }, &json!({}))).collect();
    while !sent.is_empty() {
        let answer = host.answer();
        assert!(answer["done"].is_object() && sent.remove(&answer["id"].as_u64().expect("an id")), "{answer}");
    }
}

#[test]
fn models_list_open_read_roundtrip() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..800_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    gguf(&home.models().join("one.gguf"), &bytes);
    let whole = [b"GGUF", &bytes[..]].concat();
    let mut host = home.start();
    let list = host.must("models.list", json!({}));
    assert!(!list.to_string().contains(home.models().to_str().expect("text")), "a path in {list}");
    let model = &list["models"][0];
    assert_eq!((&list["problems"], &model["bytes"]), (&json!([]), &json!(whole.len())));
    assert_eq!((&model["name"], &model["format"], &model["files"]), (&json!("one.gguf"), &json!("gguf"), &json!(1)));
    assert!(model["modified"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{model}");

    let id = model["id"].as_str().expect("an id").to_owned();
    let read = |file: usize, offset: u64, bytes: u64, etag: &Value| json!({ "id": id, "file": file, "offset": offset, "bytes": bytes, "etag": etag });
    let stat = host.must("models.stat", json!({ "id": id }));
    let etag = stat["files"][0]["etag"].clone();
    assert_eq!(host.code("read", read(0, 0, 4, &etag)), "not_found", "stat opens nothing");
    assert_eq!(host.must("models.open", json!({ "id": id })), stat);
    assert_eq!(stat["files"][0]["path"], format!("/v1/models/{id}/0"));
    for (offset, count) in [(0, 4), (0, 716_800), (83_204, 716_800), (800_003, 1), (800_004, 0)] {
        let data = host.must("read", read(0, offset, count, &etag));
        let data = STANDARD.decode(data["data"].as_str().expect("text")).expect("base64");
        assert!(data == whole[offset as usize..(offset + count) as usize], "other bytes at {offset}");
    }
    for (offset, count) in [(0, 716_801), (800_004, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(host.code("read", read(0, offset, count, &etag)), "malformed");
    }
    assert_eq!(host.code("read", read(1, 0, 4, &etag)), "not_found");
    assert_eq!(host.code("read", read(0, 0, 4, &json!("\"other\""))), "changed");
    host.must("models.close", json!({ "id": id }));
    assert_eq!(host.code("read", read(0, 0, 4, &etag)), "not_found");
}

/// Folders that the user takes away are closed to the extension at once.
#[test]
fn folder_list_change_applies_at_once() {
    let home = Home::new();
    gguf(&home.models().join("one.gguf"), b"1");
    let mut host = home.start();
    let id = host.ids()["one.gguf"].clone();
    home.must(&["models", "remove", home.models().to_str().expect("text")]);
    let list = host.must("models.list", json!({}));
    assert_eq!(list["models"], json!([]));
    assert!(list["problems"][0].as_str().is_some_and(|problem| problem.contains("models add")), "{list}");
    assert_eq!(host.code("models.open", json!({ "id": id })), "not_found");
    fs::write(home.config(), "{").expect("a file");
    assert_eq!(host.code("models.list", json!({})), "config");
    // A folder that is none can be made by nobody.
    fs::remove_dir_all(home.path(".config")).and_then(|()| fs::write(home.path(".config"), "")).expect("a file");
    let error = host.call("models.list", json!({})).expect_err("no place for the list");
    assert!(error["code"] == "config" && !error.to_string().contains(".config"), "a path in {error}");
    assert_eq!(host.must("ping", json!({})), json!({}));
}

#[test]
fn open_models_are_bounded() {
    let home = Home::new();
    for number in 0..17 {
        gguf(&home.models().join(format!("{number}.gguf")), b"");
    }
    let mut host = home.start();
    let mut ids = host.ids().into_values();
    let last = ids.next().expect("17 models");
    for id in ids {
        host.must("models.open", json!({ "id": id }));
        // Again is no further one.
        host.must("models.open", json!({ "id": id }));
    }
    assert_eq!(host.code("models.open", json!({ "id": last })), "too_many");
}

/// Names that take six bytes for each of theirs in JSON.
#[test]
fn answer_too_long_is_an_error() {
    let home = Home::new();
    for number in 0..1_000 {
        gguf(&home.models().join(format!("{}{number}.gguf", "\u{1}".repeat(240))), b"");
    }
    let mut host = home.start();
    assert_eq!(host.code("models.list", json!({})), "too_large");
    assert_eq!(host.must("ping", json!({})), json!({}));
}

/// The token is nowhere but in the answer to `hello`.
#[test]
fn token_is_required_and_new_for_each_launch() {
    let home = Home::new();
    gguf(&home.models().join("one.gguf"), b"1");
    let mut host = home.start();
    host.open("one.gguf");
    let path = format!("GET /v1/models/{}/0", host.ids()["one.gguf"]);
    assert_eq!(host.request(&path, &[]).status, 200);
    assert_eq!(host.request(&path, &["Authorization: Bearer no"]).status, 401);
    assert_ne!(home.start().token, host.token, "new for every launch");
    #[cfg(target_os = "linux")]
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", host.child.id())).expect("a process");
        assert!(!String::from_utf8_lossy(&bytes).contains(&host.token), "in {file}");
    }
    let config = fs::read_to_string(home.config()).expect("a file");
    assert!(!config.contains(&host.token));
    drop(host.input.take());
    host.ended();
    let mut log = String::new();
    host.child.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
    assert_eq!(log, "", "nothing is logged");
}

/// A message of a megabyte is read without a tree of it, however it is nested; a longer one is refused and nothing of it is kept.
#[test]
fn large_messages_take_bounded_memory() {
    let home = Home::new();
    let mut host = home.start();
    let send = |host: &mut Running, bytes: &[u8]| {
        host.write(&(bytes.len() as u32).to_ne_bytes());
        host.write(bytes);
        host.answer()
    };
    let message = |params: &str| format!(r#"{{"id":7,"method":"ping","params":{params}}}"#);
    for params in
        [format!("[{}0]", "{},".repeat(300_000)), "[".repeat(500_000) + &"]".repeat(500_000), format!("\"{}\"", "x".repeat(1_000_000))]
    {
        assert_eq!(send(&mut host, message(&params).as_bytes()), json!({ "id": 7, "done": {} }), "{params:.20}");
    }
    let objects = message(&format!("[{}0]", "{},".repeat(20 << 20)));
    for bytes in [objects.as_bytes(), &vec![b' '; MAX_INPUT as usize + 1], &vec![b'['; MAX_FRAME as usize]] {
        let answer = send(&mut host, bytes);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!("malformed")));
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains("longer than 1048576")), "{answer}");
    }
    assert_eq!(host.must("ping", json!({})), json!({}));
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{}/status", host.child.id())).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        assert!(peak.is_some_and(|peak| peak < 40 << 10), "{peak:?} kB");
    }
}
