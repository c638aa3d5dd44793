//! Workers that fetch, so that streams are emptied while the engine's own thread packs weights. Each runs `offscreen/reader.js`, which
//! says what goes to and fro.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use doppler_protocol::reader::{AbortRange, FetchRange, RangeHeaders};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use js_sys::{Array, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{ErrorEvent, Event, MessageEvent, Worker, WorkerOptions, WorkerType};

use crate::frames::to_js;

/// Most of them at a time: as many as there are long ranges on their way.
const READERS: usize = 2;

/// Bytes outside of the wasm module, whose memory never shrinks.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Uint8Array,
    /// The reader that gets the buffer back.
    reader: Option<Worker>,
}

impl Piece {
    /// The bytes in the module's memory.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        let data = self.bytes.to_vec();
        if let Some(reader) = self.reader {
            let buffer = self.bytes.buffer();
            // A reader that has ended needs it no more.
            let _ = reader.post_message_with_transfer(&buffer, &Array::of1(&buffer));
        }
        data
    }
}

impl From<&[u8]> for Piece {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: Uint8Array::from(bytes), reader: None }
    }
}

/// A part of a range's answer.
pub(crate) enum Answer {
    /// The next piece.
    Piece(Piece),
    /// No bytes but this status.
    Status(u16),
    /// The reason why no more will come.
    Lost(String),
}

/// Workers that are started when there is something to read, and ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Readers {
    script: String,
    started: RefCell<Vec<Reader>>,
    next: Cell<u32>,
}

impl Readers {
    /// `script` is the URL of the workers' program.
    pub(crate) fn new(script: &str) -> Self {
        Self { script: script.to_owned(), started: RefCell::default(), next: Cell::default() }
    }

    /// Asks for `url` with these headers, one of which is the range, and wants it in pieces of these lengths.
    ///
    /// # Errors
    /// When the browser starts no worker.
    pub(crate) fn fetch(&self, url: String, headers: RangeHeaders, lengths: Vec<usize>) -> Result<Fetching, JsValue> {
        let id = self.next.replace(self.next.get().wrapping_add(1));
        let mut started = self.started.borrow_mut();
        started.retain(|reader| reader.load().is_some());
        if started.len() < READERS && started.iter().all(|reader| reader.load() > Some(0)) {
            started.push(Reader::start(&self.script)?);
        }
        let reader = started.iter().min_by_key(|reader| reader.load()).expect("one was started if there was none");
        reader.fetch(&FetchRange { id, url, headers, lengths })
    }
}

/// Receivers by range; `None`: the worker has failed.
type Waiting = Rc<RefCell<Option<HashMap<u32, UnboundedSender<Answer>>>>>;

#[derive(Debug)]
struct Reader {
    worker: Worker,
    waiting: Waiting,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_failure: Closure<dyn FnMut(Event)>,
}

#[derive(Deserialize)]
struct Message {
    id: u32,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    piece: JsValue,
    status: Option<u16>,
    error: Option<String>,
}

impl Reader {
    fn start(script: &str) -> Result<Self, JsValue> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        options.set_name("doppler-reader");
        let worker = Worker::new_with_options(script, &options)?;
        let waiting: Waiting = Rc::new(RefCell::new(Some(HashMap::new())));
        let on_message = Closure::new({
            let (waiting, reader) = (Rc::clone(&waiting), worker.clone());
            move |event: MessageEvent| match serde_wasm_bindgen::from_value(event.data()) {
                Ok(message) => deliver(&waiting, &reader, message),
                Err(problem) => log::error!("unreadable message of a reader: {problem}"),
            }
        });
        let on_failure = Closure::new({
            let waiting = Rc::clone(&waiting);
            move |event: Event| fail(&waiting, &event)
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_failure.as_ref().unchecked_ref()));
        worker.set_onmessageerror(Some(on_failure.as_ref().unchecked_ref()));
        Ok(Self { worker, waiting, _on_message: on_message, _on_failure: on_failure })
    }

    /// Ranges on their way, unless it has failed.
    fn load(&self) -> Option<usize> {
        self.waiting.borrow().as_ref().map(HashMap::len)
    }

    fn fetch(&self, range: &FetchRange) -> Result<Fetching, JsValue> {
        self.worker.post_message(&to_js(range)?)?;
        let id = range.id;
        let (sender, answers) = unbounded();
        if let Some(waiting) = &mut *self.waiting.borrow_mut() {
            waiting.insert(id, sender);
        }
        Ok(Fetching { id, worker: self.worker.clone(), waiting: Rc::clone(&self.waiting), answers })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.worker.terminate();
    }
}

fn deliver(waiting: &Waiting, reader: &Worker, Message { id, piece, status, error }: Message) {
    let answer = match (status, error) {
        (Some(status), _) => Answer::Status(status),
        (_, Some(reason)) => Answer::Lost(reason),
        _ => Answer::Piece(Piece { bytes: piece.unchecked_into(), reader: Some(reader.clone()) }),
    };
    if let Some(wanted) = waiting.borrow().as_ref().and_then(|waiting| waiting.get(&id)) {
        // It was given up a moment ago, and what was sent before that still comes.
        let _ = wanted.unbounded_send(answer);
    }
}

/// Tells all who wait; the next range starts another worker.
fn fail(waiting: &Waiting, event: &Event) {
    // Otherwise it would count as the engine's own failure.
    event.prevent_default();
    let message = event.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).filter(|message| !message.is_empty());
    let reason = format!("a worker that reads failed: {}", message.as_deref().unwrap_or("its program could not be started"));
    log::error!("{reason}");
    for wanted in waiting.borrow_mut().take().into_iter().flat_map(HashMap::into_values) {
        // It may be given up at this moment.
        let _ = wanted.unbounded_send(Answer::Lost(reason.clone()));
    }
}

/// A range on its way; dropped, the rest of it is given up.
pub(crate) struct Fetching {
    id: u32,
    worker: Worker,
    waiting: Waiting,
    answers: UnboundedReceiver<Answer>,
}

impl Fetching {
    /// The next part of the answer.
    pub(crate) async fn next(&mut self) -> Answer {
        self.answers.next().await.unwrap_or_else(|| Answer::Lost("the worker that reads was ended".to_owned()))
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.waiting.borrow_mut() {
            waiting.remove(&self.id);
        }
        // A worker that is through with it, or ended, does not mind.
        let _ = to_js(&AbortRange { id: self.id }).map(|end| self.worker.post_message(&end));
    }
}
