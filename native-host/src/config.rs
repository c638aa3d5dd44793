//! The folders that the user chose, and the secret that makes ids of models opaque: one JSON file.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{HostError, Result};

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 256 random bits in base64url.
    secret: String,
    /// Folders whose models the extension may read, canonical when they were added.
    pub roots: Vec<PathBuf>,
}

impl Config {
    /// Reads the file; where there is none yet, no folders and a new secret, which is not written.
    ///
    /// # Errors
    /// [`HostError::Config`] when it cannot be read or understood.
    pub fn load(path: &Path) -> Result<Self> {
        Self::read(path)?.map_or_else(Self::new, Ok)
    }

    /// Reads the file; where there is none yet it is made.
    ///
    /// # Errors
    /// [`HostError::Config`] when it cannot be read, understood or made.
    pub fn ensure(path: &Path) -> Result<Self> {
        if let Some(config) = Self::read(path)? {
            return Ok(config);
        }
        let config = Self::new()?;
        config.save(path)?;
        Ok(config)
    }

    fn new() -> Result<Self> {
        let secret = random_text().map_err(|error| HostError::Config { problem: error.to_string() })?;
        Ok(Self { secret, roots: Vec::new() })
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let unusable = |problem: String| HostError::Config { problem };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unusable(error.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    /// Writes the file, for the user's eyes only; a reader sees the old or the new one.
    ///
    /// # Errors
    /// [`HostError::Config`] when it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| HostError::Config { problem: error.to_string() })?;
        // Its text has the path, which the extension must not learn.
        write_file(path, &json, 0o600).map_err(|error| HostError::Config { problem: format!("it cannot be written: {}", error.kind()) })
    }

    /// The same secret, and so the same ids, with other folders.
    #[must_use]
    pub fn with_roots(&self, roots: Vec<PathBuf>) -> Self {
        Self { roots, ..self.clone() }
    }

    /// 128 bits of a keyed hash as 32 hexadecimal digits: the same for the same `kind` and `data`, and nothing that could be guessed back.
    pub fn opaque(&self, kind: &str, data: &[u8]) -> String {
        let mut hash = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length is a key");
        hash.update(kind.as_bytes());
        hash.update(&[0]);
        hash.update(data);
        let hash = hash.finalize().into_bytes();
        format!("{:032x}", u128::from_be_bytes(*hash.first_chunk().expect("256 bits")))
    }
}

/// 256 bits from the system's generator as 43 characters of base64url.
///
/// # Errors
/// When the system has none.
pub fn random_text() -> std::result::Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Writes a whole file with the permissions `mode` (on Unix) in the place of what was there before, its folders too.
///
/// # Errors
/// When it cannot be written; what was there before stays then.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    #[cfg(not(unix))]
    let _ = mode;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
