//! `doppler-host`: lets the extension read the model files of folders that the user chose, and nothing else.
//!
//! The browser starts it ([`messages`]: native messaging on stdin and stdout) and learns a loopback address and a token, by which the
//! engine reads byte ranges ([`server`]) of files that [`catalog`] found. On the command line it registers itself with browsers
//! ([`install`]), looks for what is wrong ([`doctor`]) and keeps the list of folders ([`config`]).

pub mod browsers;
pub mod bus;
pub mod catalog;
mod change_time;
pub mod config;
pub mod connections;
pub mod doctor;
pub mod error;
pub mod file;
pub mod frame;
pub mod host;
pub mod install;
pub mod layouts;
pub mod messages;
pub mod places;
pub mod range;
pub mod registration;
pub mod server;
mod transfer;
mod window;

pub use doppler_protocol::native::{HOST_NAME, PROTOCOL};

/// The extension that may start it: the hash of the `key` in the repository's `manifest.json`.
pub const EXTENSION_ID: &str = "blpdmpmmcoebgabjpadedfdhkfgghpnn";

/// The origin of the extension `id`, as browsers give it to the host and in `Origin`.
pub fn origin(id: &str) -> String {
    format!("chrome-extension://{id}")
}

/// The extension's id in the origin with which a browser starts the host.
pub fn extension_id(argument: &str) -> Option<&str> {
    let id = argument.strip_prefix("chrome-extension://")?;
    let id = id.strip_suffix('/').unwrap_or(id);
    (id.len() == 32 && id.bytes().all(|byte| (b'a'..=b'p').contains(&byte))).then_some(id)
}
