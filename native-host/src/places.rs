//! Where on this machine things are kept.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::error::{HostError, Result};

/// This program as a command for a shell, wherever it is: its folder is seldom where a shell looks for programs.
pub fn program() -> String {
    std::env::current_exe().map_or_else(|_| "doppler-host".to_owned(), |program| format!("\"{}\"", program.display()))
}

/// The same for the extension's eyes: without the name of the user that the path of a home folder has in it.
pub fn program_from_home() -> String {
    let program = std::env::current_exe().ok().and_then(|program| {
        let home = Places::of_user().ok()?.home;
        let program = program.strip_prefix(home).ok()?.display();
        // PowerShell runs a path in quotes behind & only, and the older shell of Windows knows no $HOME.
        Some(if cfg!(windows) { format!("& \"$HOME\\{program}\"") } else { format!("\"$HOME/{program}\"") })
    });
    program.unwrap_or_else(|| "doppler-host".to_owned())
}

/// Whose browsers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the user who runs the command.
    User,
    /// Those of every user of this machine.
    System,
}

/// The user's folders.
#[derive(Debug, Clone)]
pub struct Places {
    /// The home folder.
    pub home: PathBuf,
    /// Settings: `~/.config`, `~/Library/Preferences`, `%APPDATA%`.
    pub config: PathBuf,
    /// Data: `~/.local/share`, `~/Library/Application Support`, `%APPDATA%`.
    pub data: PathBuf,
    /// What may be deleted: `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`.
    pub cache: PathBuf,
}

impl Places {
    /// Those of the current user, by the conventions of the system; `XDG_CONFIG_HOME` and its like count on Linux.
    ///
    /// # Errors
    /// When there is no home folder.
    pub fn of_user() -> Result<Self> {
        let base = etcetera::base_strategy::choose_native_strategy()
            .map_err(|_| HostError::Command("the home folder is not known: set HOME".to_owned()))?;
        Ok(Self { home: base.home_dir().to_owned(), config: base.config_dir(), data: base.data_dir(), cache: base.cache_dir() })
    }

    /// The list of folders and the secret of this user.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("doppler").join("host.json")
    }

    /// The folder of the binary that browsers start.
    pub fn program_folder(&self, scope: Scope) -> PathBuf {
        match scope {
            Scope::User => self.data.join("doppler"),
            Scope::System if cfg!(windows) => PathBuf::from(r"C:\Program Files\doppler"),
            Scope::System if cfg!(target_os = "macos") => PathBuf::from("/Library/Application Support/doppler"),
            Scope::System => PathBuf::from("/opt/doppler"),
        }
    }

    /// That binary.
    pub fn program(&self, scope: Scope) -> PathBuf {
        self.program_folder(scope).join(format!("doppler-host{}", std::env::consts::EXE_SUFFIX))
    }
}
