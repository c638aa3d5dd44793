//! A mapped piece of a model file, only ever handed to the kernel.
#![allow(unsafe_code, reason = "memory maps of files that others may change")]

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Mmap, MmapOptions};
use tokio::sync::oneshot;

/// Bytes of a file as the body of an answer. Nothing but a vectored socket write may touch them: for a page that the file has lost
/// meanwhile the kernel says EFAULT there, where our own access would be a SIGBUS.
pub(crate) struct Window {
    map: Mmap,
    /// Closes when the window is dropped, which is when all of it is with the kernel.
    _sent: oneshot::Sender<()>,
}

impl Window {
    /// Maps `range` of `file` and brings it into memory; the receiver ends when the window is dropped.
    pub(crate) fn map(file: &File, range: Range<u64>) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let length = (range.end - range.start) as usize;
        // SAFETY: read only; the contents are never looked at here (see above), so that they may change is no matter.
        let map = unsafe { MmapOptions::new().offset(range.start).len(length).map(file)? };
        // The whole window in one request to the disk. Where a system lacks the second call, the write waits for the pages instead.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::WillNeed);
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::PopulateRead);
        let (sent, receiver) = oneshot::channel();
        Ok((Self { map, _sent: sent }, receiver))
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}
