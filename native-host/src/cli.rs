//! x
use std::process::ExitCode;
use doppler_host::error::HostError;
pub fn run() -> Result<ExitCode, HostError> { todo!() }
