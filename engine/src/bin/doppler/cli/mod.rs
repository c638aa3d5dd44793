//! The commands, a module each.

mod args;
mod bench;
mod embed;
mod eval;
mod generate;
mod inspect;
mod load;
mod open;
mod quantize;
mod run;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use doppler_files::printable;

type Failure = Box<dyn std::error::Error>;

pub(super) fn main() -> ExitCode {
    match pollster::block_on(run(Cli::parse().command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("doppler: {}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run { model, prompt, sampling } => run::run(&model, &prompt, &sampling).await?,
        Command::Chat { model, sampling } => run::chat(&model, &sampling).await?,
        Command::Bench(args) => bench::bench(args).await?,
        Command::Embed { model, texts } => embed::embed(&model, &texts).await?,
        Command::Inspect { model, tensors, json } => inspect::inspect(&model, tensors, json).await?,
        Command::Generate { shape, quant, output } => generate::generate(&shape, quant, &output)?,
        Command::Quantize { model, output, recipe } => quantize::quantize(&model, &output, recipe).await?,
        Command::Verify { model, references } => return verify::verify(&model, &references).await,
        Command::Eval { model, questions, json } => eval::eval(&model, &questions, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}
