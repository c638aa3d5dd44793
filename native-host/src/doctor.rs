//! What is wrong with an installation, found by doing what a browser does.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{HostError, Result};
use crate::frame::{self, Frame};
use crate::install::Selection;
use crate::places::{Places, program};
use crate::registration::{Manifest, Registration};
use crate::{EXTENSION_ID, HOST_NAME, PROTOCOL, origin};

/// What the host may take for the whole conversation; a disk may have to wake up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// What is wrong, and what to do.
    Bad(String, String),
}

/// Examines each registration among the chosen browsers, and the list of folders.
///
/// # Errors
/// When a browser's name is unknown.
pub fn examine(places: &Places, selection: &Selection) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for registration in selection.registrations(places)? {
        if let Some(path) = registration.registered() {
            findings.push(examine_registration(&registration, &path));
        } else if registration.is_found() {
            findings.push(bad(format!("{} does not know the host", registration.title), &format!("run {} install", program())));
        }
    }
    if findings.is_empty() {
        findings.push(bad("no browser knows the host", &format!("run {} install", program())));
    }
    match Config::load(&places.config_file()) {
        Ok(config) => {
            let catalog = Catalog::scan(&config);
            let mend = format!("see {} models list", program());
            findings.extend(catalog.problems.into_iter().map(|problem| bad(problem, &mend)));
            if config.roots.is_empty() {
                findings.push(bad("no folder is chosen", &format!("run {0} models find, then {0} models add DIR", program())));
            } else {
                findings.push(Finding::Good(format!(
                    "{} in {}",
                    counted(catalog.models.len(), "model"),
                    counted(config.roots.len(), "folder")
                )));
            }
        }
        Err(error) => findings.push(bad(error.to_string(), &format!("correct or delete {}", places.config_file().display()))),
    }
    Ok(findings)
}

/// `1 model`, `2 models`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn bad(what: impl Into<String>, mend: &str) -> Finding {
    Finding::Bad(what.into(), mend.to_owned())
}

/// Starts what the manifest names and asks it everything that the extension would.
fn examine_registration(registration: &Registration, path: &Path) -> Finding {
    let title = registration.title;
    let again = &format!("run {} install again", program());
    let manifest = match Manifest::read(path) {
        Ok(manifest) => manifest,
        Err(error) => return bad(format!("{title}: {error}"), again),
    };
    if manifest.name != HOST_NAME || manifest.kind != "stdio" || !manifest.path.is_absolute() {
        return bad(format!("{title}: {} is not ours", path.display()), again);
    }
    if !manifest.allowed_origins.contains(&format!("{}/", origin(EXTENSION_ID))) {
        return bad(format!("{title}: the extension is not among those that may start the host"), again);
    }
    if !manifest.path.is_file() {
        return bad(format!("{title}: {} is gone", manifest.path.display()), again);
    }
    match probe(&manifest.path) {
        Ok(version) => Finding::Good(format!("{title}: the host {version} answers messages and HTTP")),
        Err(problem) => bad(format!("{title}: {}: {problem}", manifest.path.display()), again),
    }
}

/// Ends the process with the value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `program` as a browser does and converses with it; its version.
///
/// # Errors
/// What it did not do.
pub fn probe(program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(format!("{}/", origin(EXTENSION_ID))).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut started = Started(command.spawn().map_err(|error| HostError::Command(format!("it cannot be started: {error}")))?);
    let (input, output) = (started.0.stdin.take(), started.0.stdout.take());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let result = input.zip(output).ok_or_else(|| io::Error::other("it has no pipes")).and_then(|(mut input, mut output)| {
            let hello = ask(&mut input, &mut output, "hello", &json!({ "protocol": PROTOCOL }))?;
            ask(&mut input, &mut output, "ping", &json!({}))?;
            let text =
                |name: &str| hello[name].as_str().map(str::to_owned).ok_or_else(|| io::Error::other(format!("its hello has no {name}")));
            request(&text("base")?, &text("token")?)?;
            text("version")
        });
        // Nobody waits any more after `PATIENCE`.
        let _ = sender.send(result);
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result.map_err(|error| HostError::Command(error.to_string())),
        Err(_) => Err(HostError::Command(format!("it did not answer in {} seconds", PATIENCE.as_secs()))),
    }
}

/// One request and its answer.
fn ask(input: &mut impl Write, output: &mut impl io::Read, method: &str, params: &Value) -> io::Result<Value> {
    let gone = || io::Error::other(format!("it ended without an answer to `{method}`"));
    frame::write(input, &json!({ "id": 1, "method": method, "params": params })).map_err(|_| gone())?;
    let Frame::Message(answer) = frame::read(output)? else { return Err(gone()) };
    let answer: Value = serde_json::from_slice(&answer)?;
    match answer.get("done") {
        Some(done) => Ok(done.clone()),
        None => Err(io::Error::other(format!("it answered `{method}` with {}", answer["error"]["message"]))),
    }
}

/// A request over HTTP for a model that is not open: 404 with the token, 401 without.
fn request(base: &str, token: &str) -> io::Result<()> {
    let address = base.strip_prefix("http://").ok_or_else(|| io::Error::other("its address is not understood"))?;
    for (authorization, expected) in [(format!("Authorization: Bearer {token}\r\n"), "404"), (String::new(), "401")] {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let path = format!("/v1/models/{}/0", "0".repeat(32));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        if line.split(' ').nth(1) != Some(expected) {
            return Err(io::Error::other(format!("its HTTP server answers `{}` instead of {expected}", line.trim_end())));
        }
    }
    Ok(())
}
