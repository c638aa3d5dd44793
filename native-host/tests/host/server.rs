//! What the data plane gives to whom.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use doppler_host::host::Host;
use doppler_host::server::{Limits, Server};
use doppler_host::{EXTENSION_ID, origin};
use serde_json::json;

use crate::process::{Home, Response, Running, connect, gguf, sparse_gguf, wait_for};

/// Random enough that a byte in the wrong place is seen.
fn contents() -> Vec<u8> {
    (0..9_000_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

fn open(home: &Home) -> (Running, String, String) {
    gguf(&home.models().join("one.gguf"), &contents());
    let mut host = home.start();
    let model = host.open("one.gguf");
    let text = |name: &str| model["files"][0][name].as_str().expect("text").to_owned();
    let (path, etag) = (text("path"), text("etag"));
    (host, path, etag)
}

#[test]
fn server_ranges_equal_file_bytes() {
    let home = Home::new();
    let (host, path, etag) = open(&home);
    let whole = [b"GGUF", &contents()[..]].concat();
    let length = whole.len();
    // Around the sizes of the copied tail and of a window.
    let sizes = [1, 4, 65_535, 65_536, 65_537, 4_194_304, 4_259_839, 4_259_840, 4_259_841, 8_454_144, 8_454_145];
    let mut ranges: Vec<_> = sizes.iter().map(|&size| (4_095, 4_095 + size)).collect();
    ranges.extend([(0, length), (length - 1, length), (length - 70_000, length)]);
    for (first, end) in ranges {
        let mut response = host.request(&format!("GET {path}"), &[&format!("Range: bytes={first}-{}", end - 1)]);
        assert_eq!(response.status, 206);
        assert_eq!(response.headers["content-range"], format!("bytes {first}-{}/{length}", end - 1));
        assert!(response.body() == whole[first..end], "other bytes in {first}..{end}");
    }
    let mut response = host.request(&format!("GET {path}"), &[&format!("If-Match: {etag}"), &format!("Origin: {}", origin(EXTENSION_ID))]);
    assert_eq!((response.status, response.left), (200, length as u64));
    assert!(response.body() == whole);
    for (name, value) in [
        ("etag", etag.as_str()),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(response.headers[name], value, "{name}");
    }
    let head = host.request(&format!("HEAD {path}"), &["Range: bytes=5-9"]);
    assert_eq!((head.status, head.left, head.headers["content-range"].as_str()), (206, 5, format!("bytes 5-9/{length}").as_str()));
}

/// One connection serves one request after the other.
#[test]
fn server_keeps_connections_alive() {
    let home = Home::new();
    let (host, path, _) = open(&home);
    let whole = contents();
    let mut stream = connect(host.port);
    for first in [4_usize, 1_000, 5_000_000] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n", host.port, host.token);
        write!(stream, "{head}Range: bytes={first}-{}\r\n\r\n", first + 99).expect("a listening server");
        let mut response = Response::read(stream.try_clone().expect("a socket"));
        assert!(response.body() == whole[first - 4..first + 96]);
    }
}

/// Every other request gets nothing, and never a header that lets a page read it.
#[test]
fn server_refuses_other_origins_and_tokens() {
    let home = Home::new();
    let (mut host, path, etag) = open(&home);
    gguf(&home.models().join("closed.gguf"), b"");
    let closed = host.ids()["closed.gguf"].clone();
    let (own, port, token) = (origin(EXTENSION_ID), host.port, host.token.clone());
    let get = format!("GET {path}");
    let id = path.split('/').nth(3).expect("an id");
    let cases: Vec<(u16, String, Vec<String>)> = vec![
        (401, get.clone(), vec!["Authorization:".into()]),
        (401, get.clone(), vec!["Authorization: Bearer".into()]),
        (401, get.clone(), vec![format!("Authorization: Bearer {}", "A".repeat(43))]),
        (401, get.clone(), vec![format!("Authorization: Bearer {}", &token[..42])]),
        (401, get.clone(), vec![format!("Authorization: Bearer {token}A")]),
        (401, get.clone(), vec![format!("Authorization: Basic {token}")]),
        (401, get.clone(), vec![format!("Authorization: Bearer {token}"), format!("Authorization: Bearer {token}")]),
        (401, format!("GET {path}?token={token}"), vec!["Authorization:".into()]),
        // DNS rebinding: a name that leads to 127.0.0.1.
        (403, get.clone(), vec![format!("Host: evil.example:{port}")]),
        (403, get.clone(), vec![format!("Host: localhost:{port}")]),
        (403, get.clone(), vec![format!("Host: [::1]:{port}")]),
        (403, get.clone(), vec!["Host: 127.0.0.1".into()]),
        (403, get.clone(), vec![format!("Host: 127.0.0.1:{port}.evil.example")]),
        (403, get.clone(), vec![format!("Host: 127.0.0.1:{port}"), "Host: evil.example".into()]),
        (403, get.clone(), vec!["Host:".into()]),
        (403, format!("GET http://evil.example{path}"), vec![]),
        (403, get.clone(), vec!["Origin: https://evil.example".into()]),
        (403, get.clone(), vec!["Origin: null".into()]),
        (403, get.clone(), vec![format!("Origin: {}", origin(&"a".repeat(32)))]),
        (403, get.clone(), vec![format!("Origin: {own}.evil.example")]),
        (403, get.clone(), vec![format!("Origin: {own}"), "Origin: https://evil.example".into()]),
        (405, format!("POST {path}"), vec![]),
        (405, format!("PUT {path}"), vec![]),
        (405, format!("DELETE {path}"), vec![]),
        (405, format!("OPTIONS {path}"), vec![format!("Origin: {own}"), "Access-Control-Request-Method: GET".into()]),
        (405, format!("TRACE {path}"), vec![]),
        (404, "GET /".into(), vec![]),
        (404, format!("GET /v1/models/{id}"), vec![]),
        (404, format!("GET /v1/models/{id}/"), vec![]),
        (404, format!("GET /v1/models/{id}/1"), vec![]),
        (404, format!("GET /v1/models/{id}/-1"), vec![]),
        (404, format!("GET /v1/models/{id}/0/0"), vec![]),
        (404, format!("GET {path}?x"), vec![]),
        (404, format!("GET /v1/models/{closed}/0"), vec![]),
        (404, format!("GET /v1/models/{}/0", id.to_uppercase()), vec![]),
        (404, "GET /v1/models/../../../../etc/passwd".into(), vec![]),
        (404, "GET /v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd/0".into(), vec![]),
        (404, format!("GET /v1/models//{id}/0"), vec![]),
        (404, format!("GET /v1/models/{}/0", home.models().join("one.gguf").display()), vec![]),
        (412, get.clone(), vec!["If-Match: \"other\"".into()]),
        (412, get.clone(), vec![format!("If-Match: W/{etag}")]),
        (412, get.clone(), vec!["If-Range: \"other\"".into(), "Range: bytes=0-1".into()]),
        (416, get.clone(), vec!["Range: bytes=0-1,3-4".into()]),
        (416, get.clone(), vec!["Range: bytes=0-1".into(), "Range: bytes=3-4".into()]),
        (416, get.clone(), vec!["Range: bytes=9000004-".into()]),
        (416, get.clone(), vec!["Range: bytes=2-1".into()]),
        (416, get.clone(), vec!["Range: lines=1-2".into()]),
        (431, get.clone(), vec![format!("X: {}", "x".repeat(17 << 10))]),
        (431, get.clone(), (0..200).map(|n| format!("X{n}: x")).collect()),
    ];
    for (status, line, headers) in cases {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let response = host.request(&line, &headers);
        assert_eq!(response.status, status, "{line} {headers:.60?}");
        assert_eq!(response.left, 0, "{line}");
        let cors = response.headers.keys().find(|name| name.starts_with("access-control"));
        assert_eq!(cors, None, "{line}");
        let closed = response.headers.get("connection").is_some_and(|value| value == "close");
        assert!(closed || ![401, 403].contains(&status), "{line} {headers:.60?}");
    }
    assert_eq!(host.request(&get, &["Range: bytes=0-3"]).body(), b"GGUF");
}

/// What is no HTTP ends its connection and nothing else.
#[test]
fn server_survives_malformed_requests() {
    let home = Home::new();
    let (host, path, _) = open(&home);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzzzz",
    ] {
        let mut stream = connect(host.port);
        stream.write_all(bytes).expect("a listening server");
        stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{bytes:?}");
    }
    assert_eq!(host.request(&format!("GET {path}"), &["Range: bytes=0-3"]).body(), b"GGUF");
}

/// The limit on connections: while as many have answers on their way, others get nothing; when some end there is room again.
#[test]
fn server_connections_are_bounded() {
    let home = Home::new();
    sparse_gguf(&home.models().join("one.gguf"), 1 << 30);
    let mut host = home.start();
    let path = host.open("one.gguf")["files"][0]["path"].as_str().expect("a path").to_owned();
    let served = || {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n", host.port, host.token);
        let mut stream = connect(host.port);
        // Refused ones may be closed before.
        let _ = write!(stream, "{head}\r\n");
        Response::try_read(stream).filter(|response| response.status == 200)
    };
    let mut busy = Vec::new();
    // Nobody reads the answers, so the server gets full at 32; who comes then is refused.
    while let Some(response) = served() {
        busy.push(response);
        assert!(busy.len() <= 32, "more than the limit");
    }
    assert_eq!(busy.len(), 32);
    assert!(served().is_none());
    drop(busy);
    wait_for("room", served);
}

/// Idle connections keep nobody out: strangers' are ended first, then the one that has been idle the longest.
#[test]
fn server_closes_idle_connections_for_new_ones() {
    let home = Home::new();
    let (host, path, _) = open(&home);
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\n", host.port, host.token);
    let ask = |mut stream: TcpStream| {
        let _ = write!(stream, "{head}Range: bytes=0-3\r\n\r\n");
        Response::try_read(stream.try_clone().expect("a socket"))
            .is_some_and(|mut response| response.status == 206 && response.body() == b"GGUF")
    };
    let kept = connect(host.port);
    assert!(ask(kept.try_clone().expect("a socket")));
    let strangers: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = connect(host.port);
            // Some say nothing, some begin a request that never ends, some have no token.
            let _ = stream.write_all([&b""[..], b"GET / HTTP/1.1\r\nHost: ", b"GET / HTTP/1.1\r\n\r\n"][n % 3]);
            stream
        })
        .collect();
    assert!(ask(connect(host.port)), "no room");
    assert!(ask(kept.try_clone().expect("a socket")), "a connection that had the token was ended before others");
    let own: Vec<TcpStream> = (0..40).map(|_| connect(host.port)).inspect(|own| assert!(ask(own.try_clone().expect("a socket")))).collect();
    assert!(ask(connect(host.port)), "no room among idle connections with the token");
    drop(own);
    drop(strangers);
}

/// A server in this process with limits that a test can wait for.
fn impatient(home: &Home, limits: Limits) -> (Arc<Host>, tokio::runtime::Runtime, u16, String) {
    home.must(&["models", "add", home.models().to_str().expect("text")]);
    let host = Arc::new(Host::new(home.config()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = runtime.block_on(Server::bind(Arc::clone(&host), origin(EXTENSION_ID), limits)).expect("a server");
    let address = server.address();
    runtime.spawn(server.run());
    let port = address.base().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    (host, runtime, port, address.token().to_owned())
}

/// Whoever sends nothing, or a header without an end, is shown out; so is who has had an answer and asks no more.
#[test]
fn server_closes_slow_request_heads() {
    let home = Home::new();
    let limits = Limits { head: Duration::from_millis(300), ..Limits::default() };
    let (_host, _runtime, port, _) = impatient(&home, limits);
    for start in ["", "GET / HTTP/1.1\r\nHost: ", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = connect(port);
        stream.write_all(start.as_bytes()).expect("a listening server");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an end within the test's patience");
        assert_eq!(answer.contains(" 403 "), start.ends_with("\r\n\r\n"), "{answer}");
    }
}

/// A client that takes no bytes is cut off: its connection makes room for another.
#[test]
fn server_stalled_client_is_cut_off() {
    let home = Home::new();
    sparse_gguf(&home.models().join("one.gguf"), 1 << 30);
    let limits = Limits { connections: 1, stall: Duration::from_millis(500), ..Limits::default() };
    let (host, _runtime, port, token) = impatient(&home, limits);
    let list = host.call("models.list", "{}").expect("a list");
    let model = host.call("models.open", &json!({ "id": list["models"][0]["id"] }).to_string()).expect("a model");
    let path = model["files"][0]["path"].as_str().expect("a path");
    let request = || {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a listening server");
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n");
        Response::try_read(stream).filter(|response| response.status == 200)
    };
    let mut stalled = request().expect("the first connection");
    wait_for("the end of the stalled connection", request);
    assert!(!stalled.drain(|_| ()), "it was cut off");
}
