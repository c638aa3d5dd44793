//! Files that the native host serves: byte ranges over HTTP on the loopback interface, or in messages where that is blocked.
//!
//! Address and token hold for one launch of the host. When a connection breaks, for any reason, the model is reopened and
//! reading continues at the same byte, if it is still the same file.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use doppler_engine::error::{EngineError, Result};
use doppler_engine::source::{Reading, Source};
use doppler_protocol::engine::Transport;
use doppler_protocol::native::{MAX_READ, ModelId, OpenedFile, Read, ReadParams};
use doppler_protocol::reader::RangeHeaders;
use doppler_protocol::worker::{CloseModel, Launch, OpenModel, OpenParams};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, LocalBoxFuture, Shared, select};
use gloo_timers::future::TimeoutFuture;
use wasm_bindgen_futures::spawn_local;

use crate::calls::{self, Calls};
use crate::readers::{Answer, Piece, Readers};

/// Bytes to read ahead: two runs, so that two are fetched at once, each by a reader of its own, or one while the other is used. Browsers
/// fetch a long range two or three times as fast as many short ones.
const AHEAD: u64 = 128 << 20;

/// Times that a range is asked for, and the pause before the second time in milliseconds; it doubles.
const ATTEMPTS: u32 = 5;
const PAUSE_MS: u32 = 50;

type Reopening = Shared<LocalBoxFuture<'static, Result<Rc<Launch>, Rc<EngineError>>>>;

/// A model of the native host, open for as long as this lives.
#[derive(Debug)]
pub(crate) struct HostModel {
    id: String,
    calls: Rc<Calls>,
    /// Workers that fetch; they end with this.
    readers: Readers,
    launch: RefCell<Rc<Launch>>,
    reopening: RefCell<Option<Reopening>>,
    transport: Cell<Transport>,
    /// Whether HTTP has ever delivered bytes.
    proven: Cell<bool>,
}

/// Why a range did not come.
enum Failure {
    /// The file is another one.
    Changed,
    /// The transport failed.
    Lost(String),
}

impl HostModel {
    pub(crate) fn new(id: &str, calls: Rc<Calls>, readers: Readers, launch: Launch) -> Rc<Self> {
        Rc::new(Self {
            id: id.to_owned(),
            calls,
            readers,
            launch: RefCell::new(Rc::new(launch)),
            reopening: RefCell::default(),
            transport: Cell::new(Transport::Loopback),
            proven: Cell::default(),
        })
    }

    /// The transport of its bytes.
    pub(crate) fn transport(&self) -> Transport {
        self.transport.get()
    }

    /// Its files, each a source.
    pub(crate) fn files(self: &Rc<Self>) -> Vec<Box<dyn Source>> {
        let launch = Rc::clone(&self.launch.borrow());
        let file = |(index, file): (usize, &OpenedFile)| {
            let (model, name) = (Rc::clone(self), file.name.clone());
            Box::new(HostFile(Rc::new(File { model, index, name, bytes: file.bytes, etag: file.etag.clone() }))) as Box<dyn Source>
        };
        launch.files.iter().enumerate().map(file).collect()
    }

    /// Reopens the model, once for all readers whose connection to `broken` failed.
    async fn reopen(self: &Rc<Self>, broken: &Rc<Launch>) -> Result<()> {
        if !Rc::ptr_eq(&self.launch.borrow(), broken) {
            return Ok(());
        }
        let this = Rc::clone(self);
        let reopening = self.reopening.borrow_mut().get_or_insert_with(|| this.open_again().boxed_local().shared()).clone();
        reopening.await.map(|_| ()).map_err(|error| match &*error {
            EngineError::ModelStore { code, message } => EngineError::ModelStore { code: code.clone(), message: message.clone() },
            other => EngineError::ModelStore { code: other.code().to_owned(), message: other.to_string() },
        })
    }

    async fn open_again(self: Rc<Self>) -> Result<Rc<Launch>, Rc<EngineError>> {
        let opened = self.calls.call_unread::<OpenModel>(&OpenParams { id: self.id.clone(), again: true }).await;
        *self.reopening.borrow_mut() = None;
        let launch = Rc::new(opened.and_then(calls::read::<Launch>).map_err(Rc::new)?);
        *self.launch.borrow_mut() = Rc::clone(&launch);
        Ok(launch)
    }
}

impl Drop for HostModel {
    fn drop(&mut self) {
        self.calls.notify::<CloseModel>(&ModelId { id: self.id.clone() });
    }
}

/// One file of a model. Reading goes on while it is not polled.
#[derive(Debug)]
struct HostFile(Rc<File>);

#[derive(Debug)]
struct File {
    model: Rc<HostModel>,
    index: usize,
    name: String,
    bytes: u64,
    etag: String,
}

/// Consecutive pieces of a file that have not been delivered.
#[derive(Debug)]
struct Run {
    offset: u64,
    pieces: VecDeque<(usize, oneshot::Sender<Result<Piece>>)>,
}

impl Run {
    /// Bytes that are missing.
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(bytes, _)| *bytes as u64).sum()
    }

    /// The length of the next piece, if anybody still wants it.
    fn next(&self) -> Option<usize> {
        self.pieces.front().filter(|(_, wanted)| !wanted.is_canceled()).map(|(bytes, _)| *bytes)
    }

    /// Hands the next piece over, or the reason why there is none.
    fn deliver(&mut self, piece: Result<Piece>) {
        if let Some((bytes, wanted)) = self.pieces.pop_front() {
            self.offset += bytes as u64;
            // The reader may have been dropped.
            let _ = wanted.send(piece);
        }
    }
}

impl Source for HostFile {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    fn ahead(&self) -> u64 {
        AHEAD
    }

    fn read(&self, offset: u64, bytes: usize) -> Reading<'_> {
        self.read_run(offset, &[bytes]).remove(0)
    }

    fn read_run(&self, offset: u64, lengths: &[usize]) -> Vec<Reading<'_>> {
        let (pieces, readings) = lengths
            .iter()
            .map(|&bytes| {
                let (wanted, piece) = oneshot::channel::<Result<Piece>>();
                let reading = async move { Ok(piece.await.map_err(|_| EngineError::Aborted)??.into_vec()) };
                ((bytes, wanted), reading.boxed_local())
            })
            .unzip();
        let file = Rc::clone(&self.0);
        spawn_local(async move { file.fetch_run(Run { offset, pieces }).await });
        readings
    }
}

impl File {
    /// Fetches a run's pieces; the first that cannot be fetched gets the error.
    async fn fetch_run(&self, mut run: Run) {
        let mut attempt = 1;
        while run.next().is_some() {
            let launch = Rc::clone(&self.model.launch.borrow());
            let transport = self.model.transport.get();
            let begin = run.offset;
            let result = match launch.files.get(self.index) {
                Some(file) if file.etag == self.etag && file.bytes == self.bytes => match transport {
                    Transport::Loopback => self.fetch_over_http(&launch, &file.path, &mut run).await,
                    Transport::Messages => self.fetch_in_messages(&mut run).await,
                },
                _ => Err(Failure::Changed),
            };
            let reason = match result {
                Ok(()) => return,
                Err(Failure::Changed) => return run.deliver(Err(EngineError::ModelChanged { name: self.name.clone() })),
                Err(Failure::Lost(reason)) => reason,
            };
            if run.offset > begin {
                attempt = 1;
            }
            if attempt == ATTEMPTS {
                let (name, offset, bytes) = (self.name.clone(), run.offset, run.bytes());
                return run.deliver(Err(EngineError::Source { name, offset, bytes, reason }));
            }
            TimeoutFuture::new(PAUSE_MS << attempt >> 1).await;
            if let Err(error) = self.model.reopen(&launch).await {
                return run.deliver(Err(error));
            }
            // The host reopened the model twice and HTTP never worked: the browser or the system blocks the loopback interface.
            if transport == Transport::Loopback && attempt >= 2 && !self.model.proven.get() {
                self.model.transport.set(Transport::Messages);
            }
            attempt += 1;
        }
    }

    /// Fetches a run over HTTP, as one range.
    async fn fetch_over_http(&self, launch: &Launch, path: &str, run: &mut Run) -> Result<(), Failure> {
        let headers = RangeHeaders {
            authorization: format!("Bearer {}", launch.token),
            range: format!("bytes={}-{}", run.offset, run.offset + run.bytes() - 1),
            if_match: self.etag.clone(),
        };
        let lengths = run.pieces.iter().map(|(bytes, _)| *bytes).collect();
        let fetching = self.model.readers.fetch(format!("{}{path}", launch.base), headers, lengths);
        let mut fetching = fetching.map_err(|reason| Failure::Lost(format!("{reason:?}")))?;
        while let Some((_, wanted)) = run.pieces.front_mut() {
            match select(pin!(fetching.next()), wanted.cancellation()).await {
                Either::Left((Answer::Piece(piece), _)) => run.deliver(Ok(piece)),
                Either::Left((Answer::Status(412), _)) => return Err(Failure::Changed),
                Either::Left((Answer::Status(status), _)) => {
                    return Err(Failure::Lost(format!("the native host answered with status {status}")));
                }
                Either::Left((Answer::Lost(reason), _)) => return Err(Failure::Lost(reason)),
                // The rest is not wanted.
                Either::Right(_) => break,
            }
            self.model.proven.set(true);
        }
        Ok(())
    }

    /// Fetches a run in native messages.
    async fn fetch_in_messages(&self, run: &mut Run) -> Result<(), Failure> {
        while let Some(bytes) = run.next() {
            let mut data = Vec::with_capacity(bytes);
            while data.len() < bytes {
                let (offset, bytes) = (run.offset + data.len() as u64, ((bytes - data.len()) as u64).min(MAX_READ));
                let params = ReadParams { id: self.model.id.clone(), file: self.index, offset, bytes, etag: self.etag.clone() };
                let answer = self.model.calls.call::<Read>(&params).await.map_err(|error| match error.code() {
                    "changed" => Failure::Changed,
                    _ => Failure::Lost(error.to_string()),
                })?;
                let piece = BASE64_STANDARD.decode(answer.data).ok().filter(|piece| piece.len() as u64 == bytes);
                data.extend(piece.ok_or_else(|| Failure::Lost("the native host sent something else".to_owned()))?);
            }
            run.deliver(Ok(Piece::from(&*data)));
        }
        Ok(())
    }
}
