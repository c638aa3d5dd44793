//! How one browser is told of the host: a manifest in its folder, on Windows a key of the registry that names a manifest.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::write_file;
use crate::error::{HostError, Result};
use crate::{HOST_NAME, origin};

/// What browsers read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`HOST_NAME`].
    pub name: String,
    /// For people.
    pub description: String,
    /// The program, absolute.
    pub path: PathBuf,
    /// `stdio`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Extensions that may start it, as `chrome-extension://<id>/`.
    pub allowed_origins: Vec<String>,
}

impl Manifest {
    /// That `extensions` may start `program`.
    pub fn new<'a>(program: &Path, extensions: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: HOST_NAME.to_owned(),
            description: "DOPPLER reads the model files that you chose".to_owned(),
            path: program.to_owned(),
            kind: "stdio".to_owned(),
            allowed_origins: extensions.into_iter().map(|id| format!("{}/", origin(id))).collect(),
        }
    }

    /// Reads the manifest at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(HostError::at(path))?;
        serde_json::from_slice(&bytes).map_err(|error| HostError::Path { path: path.to_owned(), problem: error.into() })
    }
}

/// One place where a browser looks for the host.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The browser.
    pub title: &'static str,
    /// Where the manifest is or would be.
    pub manifest: PathBuf,
    /// Whose registry, and the browser's key there.
    #[cfg(windows)]
    pub(crate) key: Option<(crate::places::Scope, &'static str)>,
}

impl Registration {
    /// Whether the browser has been used here: its own folder or key is there.
    pub fn is_found(&self) -> bool {
        #[cfg(windows)]
        if let Some((scope, browser)) = self.key {
            return registry::exists(scope, browser);
        }
        self.manifest.ancestors().nth(2).is_some_and(Path::is_dir)
    }

    /// The manifest that the browser would read, if it knows of the host.
    pub fn registered(&self) -> Option<PathBuf> {
        #[cfg(windows)]
        if let Some((scope, browser)) = self.key {
            return registry::get(scope, browser);
        }
        self.manifest.symlink_metadata().is_ok().then(|| self.manifest.clone())
    }

    /// Tells the browser of the host; again is the same as once.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn add(&self, manifest: &Manifest) -> Result<()> {
        let json = serde_json::to_vec_pretty(manifest).map_err(|error| HostError::Command(error.to_string()))?;
        write_file(&self.manifest, &json, 0o644).map_err(HostError::at(&self.manifest))?;
        #[cfg(windows)]
        if let Some((scope, browser)) = self.key {
            registry::set(scope, browser, &self.manifest).map_err(HostError::at(&self.manifest))?;
        }
        Ok(())
    }

    /// Makes the browser forget the host, which it may not know; whether it did.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self) -> Result<bool> {
        let known = self.registered().is_some();
        #[cfg(windows)]
        if let Some((scope, browser)) = self.key {
            registry::delete(scope, browser).map_err(HostError::at(&self.manifest))?;
            // The manifest is that of the other browsers too; it goes with the program.
            return Ok(known);
        }
        remove_file(&self.manifest)?;
        Ok(known)
    }
}

/// Removes a file, and its folder if that is then empty; both may be gone already.
///
/// # Errors
/// When the file is there and cannot be removed.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    let gone = |error: io::Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_file(path).or_else(gone).map_err(HostError::at(path))?;
    if let Some(folder) = path.parent() {
        // Not empty: others use it.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// The default value of `<browser>\NativeMessagingHosts\com.doppler.host`.
#[cfg(windows)]
mod registry {
    use std::ffi::OsString;
    use std::io::{self, ErrorKind};
    use std::path::{Path, PathBuf};

    use winreg::RegKey;
    use winreg::enums::{HKEY_CURRENT_USER, HKEY_LOCAL_MACHINE};

    use crate::HOST_NAME;
    use crate::places::Scope;

    fn hive(scope: Scope) -> RegKey {
        RegKey::predef(if scope == Scope::User { HKEY_CURRENT_USER } else { HKEY_LOCAL_MACHINE })
    }

    fn name(browser: &str) -> String {
        format!(r"{browser}\NativeMessagingHosts\{HOST_NAME}")
    }

    pub(super) fn exists(scope: Scope, browser: &str) -> bool {
        hive(scope).open_subkey(browser).is_ok()
    }

    pub(super) fn get(scope: Scope, browser: &str) -> Option<PathBuf> {
        hive(scope).open_subkey(name(browser)).ok()?.get_value::<OsString, _>("").ok().map(PathBuf::from)
    }

    pub(super) fn set(scope: Scope, browser: &str, manifest: &Path) -> io::Result<()> {
        let (key, _) = hive(scope).create_subkey(name(browser))?;
        key.set_value("", &manifest.as_os_str())
    }

    pub(super) fn delete(scope: Scope, browser: &str) -> io::Result<()> {
        match hive(scope).delete_subkey(name(browser)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
