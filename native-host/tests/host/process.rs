//! The program in a home folder of its own, and raw HTTP to it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use doppler_host::frame::{self, Frame};
use doppler_host::{EXTENSION_ID, origin};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A user's home with a folder of models.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(home.models()).expect("a folder");
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.path("models")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path(".config/doppler/host.json")
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path(".local/share/doppler/doppler-host")
    }

    /// The program with arguments, in this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doppler-host"));
        command.args(arguments).env_clear().env("HOME", self.folder.path());
        command
    }

    /// What a command prints and whether it succeeds.
    pub(crate) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().expect("a run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).expect("text"))
    }

    /// The same for a command that must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments);
        assert!(success, "{arguments:?}: {text}");
        text
    }

    /// The host as a browser starts it, with the folder of models chosen.
    pub(crate) fn start(&self) -> Running {
        self.must(&["models", "add", self.models().to_str().expect("text")]);
        let mut running = Running::start(self.command(&[&format!("{}/", origin(EXTENSION_ID))]));
        running.hello();
        running
    }
}

/// Writes a file that begins like GGUF, with its folders.
pub(crate) fn gguf(path: &Path, rest: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, [b"GGUF", rest].concat()).expect("a file");
}

/// Makes that file `bytes` long, without writing them.
pub(crate) fn sparse_gguf(path: &Path, bytes: u64) {
    gguf(path, b"");
    File::options().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("a file");
}

/// A running host.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: Option<ChildStdout>,
    pub(crate) token: String,
    pub(crate) port: u16,
    next: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Those that ended by themselves cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a start");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Self { child, input, output, token: String::new(), port: 0, next: 0 }
    }

    pub(crate) fn hello(&mut self) {
        let hello = self.must("hello", json!({ "protocol": 1 }));
        hello["token"].as_str().expect("a token").clone_into(&mut self.token);
        let port = hello["base"].as_str().and_then(|base| base.strip_prefix("http://127.0.0.1:")).expect("a loopback address");
        self.port = port.parse().expect("a port");
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("an open pipe");
        input.write_all(bytes).and_then(|()| input.flush()).expect("a listening host");
    }

    /// Sends a request without waiting for its answer; its id.
    pub(crate) fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.next += 1;
        let request = json!({ "id": self.next, "method": method, "params": params });
        frame::write(self.input.as_mut().expect("an open pipe"), &request).expect("a listening host");
        self.next
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Value {
        match frame::read(self.output.as_mut().expect("an open pipe")).expect("a frame") {
            Frame::Message(bytes) => serde_json::from_slice(&bytes).expect("JSON"),
            other => panic!("{other:?} instead of an answer"),
        }
    }

    /// What a request ends with: `done`, or the `error`.
    #[allow(clippy::needless_pass_by_value, reason = "calls read better")]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, &params);
        let mut answer = self.answer();
        assert_eq!(answer["id"], json!(id));
        answer.get_mut("done").map(Value::take).ok_or_else(|| answer["error"].clone())
    }

    pub(crate) fn must(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The code of an error that a request must end with.
    pub(crate) fn code(&mut self, method: &str, params: Value) -> String {
        let error = self.call(method, params).expect_err("an error");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
        error["code"].as_str().expect("a code").to_owned()
    }

    /// The models' names and ids.
    pub(crate) fn ids(&mut self) -> HashMap<String, String> {
        let list = self.must("models.list", json!({}));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        list["models"].as_array().expect("a list").iter().map(|model| (text(&model["name"]), text(&model["id"]))).collect()
    }

    /// Opens the model of this name.
    pub(crate) fn open(&mut self, name: &str) -> Value {
        let id = self.ids()[name].clone();
        self.must("models.open", json!({ "id": id }))
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("its end", || self.child.try_wait().expect("a child"))
    }

    /// Sends a request head as it is, with the right `Host` and token unless it has others.
    pub(crate) fn request(&self, line: &str, headers: &[&str]) -> Response {
        let defaults = [format!("Host: 127.0.0.1:{}", self.port), format!("Authorization: Bearer {}", self.token)];
        let name = |header: &str| header.split(':').next().map(str::to_owned);
        let missing = defaults.iter().map(String::as_str).filter(|header| !headers.iter().any(|given| name(given) == name(header)));
        // A header without a value stands for one that is left out.
        let given = headers.iter().copied().filter(|header| !header.ends_with(':'));
        let head: String = missing.chain(given).map(|header| format!("{header}\r\n")).collect::<Vec<_>>().concat();
        let mut stream = connect(self.port);
        stream.write_all(format!("{line} HTTP/1.1\r\n{head}\r\n").as_bytes()).expect("a listening server");
        Response::read(stream)
    }
}

/// A connection that does not wait for ever.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// The head of an answer, and the connection with its body.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    /// Bytes of the announced body that are not read yet.
    pub(crate) left: u64,
    body: BufReader<TcpStream>,
}

impl Response {
    /// # Panics
    /// When there is none.
    pub(crate) fn read(stream: TcpStream) -> Self {
        Self::try_read(stream).expect("an answer")
    }

    /// `None` when the connection ends instead.
    pub(crate) fn try_read(stream: TcpStream) -> Option<Self> {
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        body.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().expect("a status");
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            body.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_owned(), value.to_owned());
        }
        let left = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
        Some(Self { status, headers, left, body })
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.body.read_exact(&mut bytes).expect("a body");
        self.left -= count as u64;
        bytes
    }

    /// The whole body.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        self.bytes(self.left as usize)
    }

    /// Reads to the announced end or until the connection breaks, handing on each piece; whether the end came.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let mut buffer = vec![0; 1 << 20];
        while self.left > 0 {
            let want = self.left.min(buffer.len() as u64) as usize;
            match self.body.read(&mut buffer[..want]) {
                Ok(0) | Err(_) => return false,
                Ok(read) => {
                    each(&buffer[..read]);
                    self.left -= read as u64;
                }
            }
        }
        true
    }
}

/// Waits until there is a value.
pub(crate) fn wait_for<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
