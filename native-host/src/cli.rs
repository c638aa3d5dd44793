//! The command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use doppler_files::printable;
use doppler_host::catalog::{Catalog, Format};
use doppler_host::config::Config;
use doppler_host::doctor::{self, Finding, counted};
use doppler_host::error::{HostError, Result};
use doppler_host::install::{self, Selection};
use doppler_host::layouts::known_folders;
use doppler_host::places::{self, Places, Scope};

/// Gives the DOPPLER extension the model files of folders that you choose.
#[derive(Parser)]
#[command(name = "doppler-host", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Registers this program with every browser that is found.
    Install {
        #[command(flatten)]
        browsers: Browsers,
        /// Another extension that may start it, by its id (a development build).
        #[arg(long = "extension", value_name = "ID")]
        extensions: Vec<String>,
    },
    /// Takes away all that `install` and `models` left.
    Uninstall {
        #[command(flatten)]
        browsers: Browsers,
        /// Keeps the list of folders.
        #[arg(long)]
        keep_models: bool,
    },
    /// Says which browsers know the host.
    Status(Browsers),
    /// Starts the host as each browser would, and says how to mend what is wrong.
    Doctor(Browsers),
    /// The folders whose models the extension may read.
    #[command(subcommand)]
    Models(Models),
}

#[derive(Args)]
struct Browsers {
    /// Only this browser: chrome, chromium, edge, brave or vivaldi.
    #[arg(long = "browser", value_name = "NAME")]
    names: Vec<String>,
    /// The browser that is started with this folder.
    #[arg(long, value_name = "DIR")]
    user_data_dir: Option<PathBuf>,
    /// For all users of this machine.
    #[arg(long)]
    system: bool,
}

impl From<Browsers> for Selection {
    fn from(browsers: Browsers) -> Self {
        let scope = if browsers.system { Scope::System } else { Scope::User };
        Self { browsers: browsers.names, user_data_dir: browsers.user_data_dir, scope }
    }
}

#[derive(Subcommand)]
enum Models {
    /// Adds a folder with all that is in it.
    Add {
        /// The folder.
        folder: PathBuf,
    },
    /// Takes a folder from the list; its files stay as they are.
    Remove {
        /// The folder.
        folder: PathBuf,
    },
    /// Shows folders and models.
    List,
    /// Looks for folders of LM Studio, Ollama, Hugging Face and llama.cpp, and adds none.
    Find,
}

/// Does what the arguments say.
pub(crate) fn run() -> Result<ExitCode> {
    let command = Cli::parse().command;
    let places = Places::of_user()?;
    let lines = match command {
        Command::Install { browsers, extensions } => {
            let program =
                std::env::current_exe().map_err(|error| HostError::Command(format!("this program's file is not known: {error}")))?;
            install::install(&places, &browsers.into(), &program, &extensions)?
        }
        Command::Uninstall { browsers, keep_models } => install::uninstall(&places, &browsers.into(), keep_models)?,
        Command::Status(browsers) => install::status(&places, &browsers.into())?,
        Command::Doctor(browsers) => return Ok(report(&doctor::examine(&places, &browsers.into())?)),
        Command::Models(models) => models.run(&places)?,
    };
    for line in lines {
        println!("{}", printable(&line));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the doctor's findings; a failure when one is bad.
fn report(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        match finding {
            Finding::Good(what) => println!("ok    {}", printable(what)),
            Finding::Bad(what, mend) => println!("BAD   {}\n      {}", printable(what), printable(mend)),
        }
    }
    let healthy = findings.iter().all(|finding| matches!(finding, Finding::Good(_)));
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Models {
    fn run(self, places: &Places) -> Result<Vec<String>> {
        let file = places.config_file();
        let mut config = Config::load(&file)?;
        match self {
            Self::Add { folder } => {
                let folder = fs::canonicalize(&folder).map_err(HostError::at(&folder))?;
                if !folder.is_dir() || folder.to_str().is_none() {
                    return Err(HostError::Command(format!("{} is no folder that can be listed: choose another", folder.display())));
                }
                if !config.roots.contains(&folder) {
                    config.roots.push(folder.clone());
                    config.save(&file)?;
                }
                Ok(describe(&config, Some(&folder)))
            }
            Self::Remove { folder } => {
                let canonical = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
                let before = config.roots.len();
                config.roots.retain(|root| *root != folder && *root != canonical);
                if config.roots.len() == before {
                    return Err(HostError::Command(format!(
                        "{} is not in the list: see {} models list",
                        folder.display(),
                        places::program()
                    )));
                }
                config.save(&file)?;
                Ok(vec![format!("{} is no longer read", canonical.display())])
            }
            Self::List => Ok(describe(&config, None)),
            Self::Find => Ok(find(&config, places)),
        }
    }
}

/// Folders and their models, or those of one folder.
fn describe(config: &Config, only: Option<&Path>) -> Vec<String> {
    let roots = config.roots.iter().filter(|root| only.is_none_or(|only| only == root.as_path())).cloned().collect();
    let config = config.with_roots(roots);
    let catalog = Catalog::scan(&config);
    let mut lines: Vec<String> = config.roots.iter().map(|root| format!("folder {}", root.display())).collect();
    lines.extend(catalog.models.iter().flat_map(|model| {
        let format = match model.format {
            Format::Gguf => "GGUF",
            Format::Safetensors => "safetensors",
        };
        let line = format!("{:>8.2} GB  {format:<11}  {}", model.bytes() as f64 / 1e9, model.name);
        std::iter::once(line).chain(model.notes.iter().map(|note| format!("{:26}note: {note}", "")))
    }));
    lines.extend(catalog.problems.into_iter().map(|problem| format!("note: {problem}")));
    lines.push(counted(catalog.models.len(), "model"));
    lines
}

/// What other programs have.
fn find(config: &Config, places: &Places) -> Vec<String> {
    let describe = |(program, folder): (&str, PathBuf)| {
        let added = config.roots.contains(&folder);
        let models = Catalog::scan(&config.with_roots(vec![folder.clone()])).models.len();
        let hint = if added { "in the list".to_owned() } else { format!("{} models add \"{}\"", places::program(), folder.display()) };
        format!("{program}: {}: {hint}", counted(models, "model"))
    };
    let lines: Vec<String> = known_folders(places).into_iter().map(describe).collect();
    if lines.is_empty() { vec!["no other program keeps models in its usual place".to_owned()] } else { lines }
}
