//! Requests to the native host's server. `@HOST@`, `@TOKEN@` and `@PATH@` stand for the real ones, which change from run to run.
#![no_main]

use std::sync::LazyLock;

use doppler_fuzz::{NativeHost, replace};
use doppler_host::range;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static NATIVE: LazyLock<NativeHost> = LazyLock::new(NativeHost::start);

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = std::str::from_utf8(data)
        && let Some(range) = range::parse(header, 1_000)
    {
        assert!(range.start < range.end && range.end <= 1_000, "{range:?}");
    }
    let address = NATIVE.server.address();
    let host = address.base().replace("http://", "");
    let mut request = data.to_vec();
    for (mark, value) in [("@HOST@", host.as_str()), ("@TOKEN@", address.token()), ("@PATH@", &NATIVE.path)] {
        request = replace(&request, mark.as_bytes(), value.as_bytes());
    }
    let mut answer = Vec::new();
    NATIVE.runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let send = async {
            // The server may hang up first.
            let _ = writer.write_all(&request).await;
            let _ = writer.shutdown().await;
        };
        let (_, _, _) = tokio::join!(NATIVE.server.service().connection(server, std::sync::Arc::default()), send, reader.read_to_end(&mut answer));
    });
    let trusted = request.windows(address.token().len()).any(|window| window == address.token().as_bytes());
    let given = answer.windows(11).any(|window| window == b"HTTP/1.1 20");
    assert!(trusted || !given, "an answer without the token");
    assert!(!answer.windows(15).any(|window| window.eq_ignore_ascii_case(b"access-control-")), "a header for pages");
});
