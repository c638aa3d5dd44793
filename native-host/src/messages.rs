//! The conversation with the browser: requests `{id, method, params}`, each with one answer `{id, done}` or `{id, error}`, in any order.

use std::io::{self, Read, Write};
use std::sync::Arc;

use doppler_protocol::Method;
use doppler_protocol::native::{Greeting, Hello, HelloParams};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::PROTOCOL;
use crate::error::{HostError, Result};
use crate::frame::{self, Frame};
use crate::host::{Host, arguments};
use crate::server::Address;

/// Requests that are worked on at a time; the browser's next ones wait in the pipe.
const MAX_PENDING: usize = 16;

/// A request. What its method does not ask for is passed over, and no tree is made of it.
#[derive(Deserialize)]
struct Request {
    id: serde_json::Number,
    method: String,
    params: Option<Box<RawValue>>,
}

impl Request {
    fn params(&self) -> &str {
        self.params.as_deref().map_or("{}", RawValue::get)
    }
}

/// Converses until the browser closes a pipe; whether it spoke as browsers do to the end.
pub async fn converse(host: Arc<Host>, address: Address, input: impl Read + Send + 'static, mut output: impl Write) -> bool {
    let mut frames = read_frames(input);
    let mut pending = JoinSet::new();
    let mut greeted = false;
    loop {
        let answer = tokio::select! {
            frame = frames.recv(), if pending.len() < MAX_PENDING => match frame {
                Some(Ok(Frame::Message(bytes))) => match serde_json::from_slice::<Request>(&bytes) {
                    Ok(request) if request.method == Hello::NAME => {
                        let done = hello(&address, request.params());
                        greeted |= done.is_ok();
                        answer(&json!(request.id), done)
                    }
                    Ok(Request { id, .. }) if !greeted => answer(&json!(id), Err(HostError::HelloFirst)),
                    Ok(request) => {
                        let host = Arc::clone(&host);
                        pending.spawn_blocking(move || answer(&json!(request.id), host.call(&request.method, request.params())));
                        continue;
                    }
                    Err(error) => answer(&Value::Null, Err(HostError::Malformed { problem: error.to_string() })),
                },
                Some(Ok(Frame::Skipped(length))) => answer(&Value::Null, Err(too_long(length))),
                Some(Ok(Frame::TooLong(length))) => {
                    // The browser may be gone: there is no one else to tell.
                    let _ = frame::write(&mut output, &answer(&Value::Null, Err(too_long(length))));
                    return false;
                }
                Some(Ok(Frame::Closed) | Err(_)) | None => return true,
            },
            Some(answer) = pending.join_next() => answer.expect("requests do not panic"),
        };
        let written = frame::write(&mut output, &answer).or_else(|error| match error.kind() {
            io::ErrorKind::InvalidInput => frame::write(&mut output, &self::answer(&answer["id"], Err(HostError::TooLarge))),
            _ => Err(error),
        });
        if written.is_err() {
            return true;
        }
    }
}

/// Reads frames on a thread of its own, because pipes cannot be waited for otherwise on every system.
fn read_frames(mut input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Frame>> {
    let (sender, frames) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let frame = frame::read(&mut input);
            let last = !matches!(frame, Ok(Frame::Message(_) | Frame::Skipped(_)));
            if sender.blocking_send(frame).is_err() || last {
                return;
            }
        }
    });
    frames
}

fn too_long(length: u32) -> HostError {
    HostError::Malformed { problem: format!("a message of {length} bytes is longer than {}", frame::MAX_INPUT) }
}

fn hello(address: &Address, params: &str) -> Result<Value> {
    let HelloParams { protocol: theirs, .. } = arguments(params)?;
    if theirs != PROTOCOL {
        return Err(HostError::Protocol { theirs });
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(json!(Greeting { protocol: PROTOCOL, version, base: address.base(), token: address.token().to_owned() }))
}

fn answer(id: &Value, result: Result<Value>) -> Value {
    match result {
        Ok(done) => json!({ "id": id, "done": done }),
        Err(error) => json!({ "id": id, "error": error.to_failure() }),
    }
}
