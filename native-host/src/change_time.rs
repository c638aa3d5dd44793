//! When a file was last changed in any way: unlike the time of its last write no program sets this back by the usual means.
#![cfg_attr(windows, allow(unsafe_code, reason = "a question to the system for which std has no stable function"))]

use std::fs::{File, Metadata};
use std::io;

/// The time of the last change of contents or attributes, in the system's units.
#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn of(_: &File, metadata: &Metadata) -> io::Result<[i64; 2]> {
    Ok(of_metadata(metadata))
}

/// The same of a file that is not open.
#[cfg(unix)]
pub(crate) fn of_metadata(metadata: &Metadata) -> [i64; 2] {
    use std::os::unix::fs::MetadataExt;
    [metadata.ctime(), metadata.ctime_nsec()]
}

/// The time of the last change of contents or attributes, in the system's units.
#[cfg(windows)]
pub(crate) fn of(file: &File, _: &Metadata) -> io::Result<[i64; 2]> {
    use std::os::windows::io::AsRawHandle;

    use windows_sys::Win32::Storage::FileSystem::{FILE_BASIC_INFO, FileBasicInfo, GetFileInformationByHandleEx};
    let mut info = FILE_BASIC_INFO::default();
    let size = size_of::<FILE_BASIC_INFO>() as u32;
    // SAFETY: the handle is open as long as `file` lives, and the buffer is of the size that is stated.
    let read = unsafe { GetFileInformationByHandleEx(file.as_raw_handle(), FileBasicInfo, (&raw mut info).cast(), size) };
    if read == 0 { Err(io::Error::last_os_error()) } else { Ok([info.ChangeTime, 0]) }
}
