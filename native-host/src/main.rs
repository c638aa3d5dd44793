//! `doppler-host`: started by a browser it converses with the extension, by anyone else it is a command line.

use std::process::ExitCode;
use std::sync::Arc;

use doppler_files::printable;
use doppler_host::error::HostError;
use doppler_host::host::Host;
use doppler_host::places::Places;
use doppler_host::server::{Limits, Server};
use doppler_host::{bus, extension_id, messages, origin};

mod cli;

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    let extension = first.as_ref().and_then(|argument| extension_id(argument.to_str()?)).map(origin);
    let result = match extension {
        Some(origin) => converse(origin),
        None => cli::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("doppler-host: {}", printable(&error.to_string()));
        ExitCode::FAILURE
    })
}

/// Serves the extension of `origin` until the browser ends it.
fn converse(origin: String) -> Result<ExitCode, HostError> {
    bus::explain_sigbus();
    let failed = |error: std::io::Error| HostError::Command(format!("the loopback server cannot be started: {error}"));
    let host = Arc::new(Host::new(Places::of_user()?.config_file()));
    // Transfers wait for the disk where pages were not there in time; four at once keep a browser's connections busy.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().map_err(failed)?;
    let server = runtime.block_on(Server::bind(Arc::clone(&host), origin, Limits::default())).map_err(failed)?;
    let address = server.address();
    runtime.spawn(server.run());
    let clean = runtime.block_on(messages::converse(host, address, std::io::stdin(), std::io::stdout()));
    // A disk that does not answer must not keep the process.
    runtime.shutdown_background();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
