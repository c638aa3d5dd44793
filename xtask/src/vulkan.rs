//! Mesa's software Vulkan adapter (lavapipe), on which the native GPU tests run by default.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::apt;
use crate::process::entries;

/// Environment variable by which the tests choose an adapter: part of its name, upper or lower case.
const ADAPTER: &str = "DOPPLER_ADAPTER";

/// What lavapipe's adapter is called.
const LAVAPIPE: &str = "llvmpipe";

/// Where Vulkan drivers describe themselves.
const DRIVER_FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// The adapter that the native tests use.
pub(crate) enum Adapter {
    /// The one named by `DOPPLER_ADAPTER`.
    Chosen(String),
    /// lavapipe, described by this file.
    Lavapipe(PathBuf),
    /// Whatever the system offers first: this system has no lavapipe (macOS, Windows).
    System,
}

impl Adapter {
    /// The adapter to test on; lavapipe is installed where that is possible.
    ///
    /// # Errors
    /// When a Linux system has no lavapipe; the message says what to run.
    pub(crate) fn ensure() -> Result<Self> {
        if let Ok(name) = std::env::var(ADAPTER) {
            return Ok(Self::Chosen(name));
        }
        if !cfg!(target_os = "linux") {
            return Ok(Self::System);
        }
        if lavapipe().is_none() && apt::may_install() {
            apt::install(&["mesa-vulkan-drivers"])?;
        }
        match lavapipe() {
            Some(driver) => Ok(Self::Lavapipe(driver)),
            None => bail!(
                "no software Vulkan adapter: run `sudo apt-get install mesa-vulkan-drivers` (Fedora: \
                 `sudo dnf install mesa-vulkan-drivers`, Arch: `sudo pacman -S vulkan-swrast`), \
                 or set {ADAPTER} to part of the name of the adapter to test on"
            ),
        }
    }

    /// Makes the tests that `command` runs use this adapter.
    pub(crate) fn apply(&self, command: &mut Command) {
        if let Self::Lavapipe(driver) = self {
            // The second name is the one older Vulkan loaders know.
            command.env(ADAPTER, LAVAPIPE).env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver);
        }
    }

    /// Names the adapter for the summary.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Chosen(name) => format!("adapter `{name}`"),
            Self::Lavapipe(_) => "lavapipe".to_owned(),
            Self::System => "the system's adapter".to_owned(),
        }
    }
}

fn lavapipe() -> Option<PathBuf> {
    DRIVER_FOLDERS.iter().flat_map(|folder| entries(folder.as_ref(), "lvp_icd", ".json")).next()
}
