//! The body of an answer: a range of a model file, a window of it in memory at a time.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::Stream;
use futures::stream::try_unfold;
use hyper::body::Frame;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::HostError;
use crate::file::ModelFile;
use crate::window::Window;

/// Bytes mapped at a time. A transfer holds two windows: the one that is sent and the next.
const WINDOW: u64 = 4 << 20;

/// The last bytes of a range are read only when all before them are with the kernel, and go out only if the file is then still the one
/// that was opened: an answer that is complete holds bytes of that file alone.
const TAIL: u64 = 64 << 10;

type Piece = (Bytes, Option<oneshot::Receiver<()>>);

struct Transfer {
    /// Weak: closing the model ends its transfers.
    file: Weak<ModelFile>,
    rest: Range<u64>,
    /// The next piece, on its way from the disk.
    next: Option<JoinHandle<io::Result<Piece>>>,
    /// Ends when the piece before it is with the kernel.
    sent: Option<oneshot::Receiver<()>>,
}

/// The bytes of `range`; `busy` is kept until they are read. Fails, which breaks the connection, when the file is closed or changed meanwhile.
pub(crate) fn stream<G: Send + Sync>(
    file: &Arc<ModelFile>,
    range: Range<u64>,
    busy: G,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + use<G> {
    let transfer = Transfer { file: Arc::downgrade(file), rest: range, next: None, sent: None };
    try_unfold((transfer, busy), |(mut transfer, busy)| async move {
        let piece = transfer.advance().await?;
        Ok(piece.map(|bytes| (Frame::data(bytes), (transfer, busy))))
    })
}

impl Transfer {
    async fn advance(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(sent) = self.sent.take() {
            // Dropped, never sent: its end is the message.
            let _ = sent.await;
        }
        if self.next.is_none() && !self.begin() {
            return Ok(None);
        }
        let (bytes, sent) = self.next.take().expect("just begun").await??;
        self.sent = sent;
        if self.rest.end - self.rest.start > TAIL {
            self.begin();
        }
        Ok(Some(bytes))
    }

    /// Begins to prepare the next piece of what is left; whether there is one.
    fn begin(&mut self) -> bool {
        let left = self.rest.end - self.rest.start;
        let bytes = if left > TAIL { (left - TAIL).min(WINDOW) } else { left };
        let range = self.rest.start..self.rest.start + bytes;
        self.rest.start = range.end;
        let file = self.file.clone();
        self.next = (bytes > 0).then(|| spawn_blocking(move || prepare(&file, range, left <= TAIL)));
        bytes > 0
    }
}

/// The bytes of `range`: the tail copied and vouched for, all else as a window.
fn prepare(file: &Weak<ModelFile>, range: Range<u64>, tail: bool) -> io::Result<Piece> {
    let file = file.upgrade().ok_or_else(|| io::Error::other(HostError::NotFound))?;
    if tail {
        let bytes = file.read(range.start, (range.end - range.start) as usize).map_err(io::Error::other)?;
        return Ok((bytes.into(), None));
    }
    file.check().map_err(io::Error::other)?;
    let (window, sent) = Window::map(file.file(), range)?;
    Ok((Bytes::from_owner(window), Some(sent)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use futures::{StreamExt, poll};

    use super::*;
    use crate::config::Config;

    /// The tail is not even read as long as bytes before it wait to be sent.
    #[test]
    fn transfer_tail_is_read_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("a folder").join("model.gguf");
        fs::write(&path, vec![7; 3 * TAIL as usize]).expect("a file");
        let config = Config::load(Path::new("none")).expect("a new list");
        let file = Arc::new(ModelFile::open(&path, "model.gguf", &config).expect("a file"));
        // One thread: what is begun is done before what is begun later.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let mut stream = std::pin::pin!(stream(&file, 0..3 * TAIL, ()));
            let window = stream.next().await.expect("a window").expect("bytes");
            assert_eq!(window.data_ref().map(Bytes::len), Some(2 * TAIL as usize));
            let mut tail = stream.next();
            assert!(poll!(&mut tail).is_pending());
            spawn_blocking(|| ()).await.expect("a thread");
            File::options().write(true).open(&path).and_then(|file| file.set_len(4 * TAIL)).expect("a longer file");
            drop(window);
            assert!(tail.await.expect("an end").is_err(), "a tail of another state of the file");
        });
    }
}
