//! An open model file that notices when it is no longer the one that was opened.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::change_time;
use crate::config::Config;
use crate::error::{HostError, Result};

/// What tells one state of one file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    /// The device, and the inode there; on Windows the time of creation in the place of both.
    file: [u64; 2],
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    /// When contents or attributes last changed: a time of writing that was put back shows here.
    changed: [i64; 2],
}

impl Identity {
    fn new(metadata: &Metadata, changed: [i64; 2]) -> Self {
        #[cfg(unix)]
        let file = [std::os::unix::fs::MetadataExt::dev(metadata), std::os::unix::fs::MetadataExt::ino(metadata)];
        #[cfg(windows)]
        let file = [0, std::os::windows::fs::MetadataExt::creation_time(metadata)];
        Self { file, bytes: metadata.len(), modified: since_1970(metadata).as_nanos(), changed }
    }

    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self::new(&metadata, change_time::of(file, &metadata)?))
    }

    /// The identity of the regular file at `path`, which is not followed; `None` for anything else.
    #[cfg(unix)]
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(metadata.is_file().then(|| Self::new(&metadata, change_time::of_metadata(&metadata))))
    }

    /// The identity of the regular file at `path`, which is not followed; `None` for anything else.
    #[cfg(windows)]
    fn at(path: &Path) -> io::Result<Option<Self>> {
        use std::os::windows::fs::OpenOptionsExt;

        use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES};
        let flags = FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS;
        let file = OpenOptions::new().access_mode(FILE_READ_ATTRIBUTES).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() { Self::of(&file).map(Some) } else { Ok(None) }
    }
}

/// When a file was last written, as time since 1970.
pub(crate) fn since_1970(metadata: &Metadata) -> std::time::Duration {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An open file of a model.
#[derive(Debug)]
pub struct ModelFile {
    /// Its name, within the model's folder if there is one.
    pub name: String,
    /// Its entity tag with quotes: another one for every state of the file.
    pub etag: String,
    path: PathBuf,
    file: File,
    identity: Identity,
}

impl ModelFile {
    /// Opens the regular file at the canonical `path`. Nothing else is opened, neither a FIFO nor a device.
    ///
    /// # Errors
    /// [`HostError::NotAModel`] for what is no regular file, [`HostError::Changed`] when it is replaced at this moment,
    /// [`HostError::Unreadable`] otherwise.
    pub fn open(path: &Path, name: &str, config: &Config) -> Result<Self> {
        let unreadable = |problem| HostError::Unreadable { name: name.to_owned(), problem };
        let Some(identity) = Identity::at(path).map_err(unreadable)? else {
            return Err(HostError::NotAModel { name: name.to_owned(), problem: "no regular file".to_owned() });
        };
        let mut options = OpenOptions::new();
        options.read(true);
        // Should a FIFO or a link take its place right now: neither waited for nor followed.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOFOLLOW);
        let file = options.open(path).map_err(unreadable)?;
        let unchanged = Identity::of(&file).map_err(unreadable)? == identity;
        if !unchanged || fs::canonicalize(path).map_err(unreadable)? != path {
            return Err(HostError::Changed { name: name.to_owned() });
        }
        let etag = format!("\"{}\"", config.opaque("etag", format!("{identity:?}").as_bytes()));
        Ok(Self { name: name.to_owned(), etag, path: path.to_owned(), file, identity })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.identity.bytes
    }

    /// The open file, for mapping.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the file under the name is still the one that was opened, unchanged.
    ///
    /// # Errors
    /// [`HostError::Changed`] when it is not.
    pub fn check(&self) -> Result<()> {
        match Identity::at(&self.path) {
            Ok(Some(identity)) if identity == self.identity => Ok(()),
            _ => Err(HostError::Changed { name: self.name.clone() }),
        }
    }

    /// Copies `bytes` bytes from `offset`, and makes sure that they are of the file that was opened.
    ///
    /// # Errors
    /// [`HostError::Changed`] when they are not, [`HostError::Unreadable`] when reading fails.
    pub fn read(&self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let read = read_exact_at(&self.file, &mut buffer, offset);
        self.check()?;
        read.map_err(|problem| HostError::Unreadable { name: self.name.clone(), problem })?;
        Ok(buffer)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
