//! A pass through the model, and what layers record it with.

use std::rc::Rc;

use super::options::ModelOptions;
use super::padding::padded_width;
use super::scratch::{Arena, Lease, SlotKind};
use super::spec::{ModelSpec, NormSpec};
use super::state::{KvCache, PageCounts};
use crate::error::Result;
use crate::exec::{BufferId, Executor, Recording, Scope};
use crate::kernels::{AttentionPrefill, AttentionTier, Capabilities, Kernel, Splits};

/// A run of positions of a sequence begins at a multiple of so many rows of a pass.
pub const SEGMENT_ROWS: u32 = AttentionPrefill::TILE;

/// How the rows of a pass attend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attend {
    /// Rows of different sequences.
    Decode {
        /// Parts of the longest cache.
        splits: Splits,
    },
    /// Runs of consecutive positions of a sequence, from a multiple of [`SEGMENT_ROWS`] on. Rows between them repeat the last one of a run.
    Prefill,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Keys and values in the cache.
    Cache,
    /// The logits of all rows, in as many rows of [`Buffers::logits`].
    Logits,
    /// The logits of so many rows, whose numbers are in [`Buffers::output_numbers`], in the first rows of [`Buffers::logits`].
    SomeLogits(u32),
    /// The embeddings of so many texts, of whose rows those in [`Buffers::spans`] count, in the first rows of [`Buffers::embeddings`].
    Embeddings(u32),
}

/// One pass through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    /// Rows, in [`Buffers::decode_rows`] or [`Buffers::prefill_rows`].
    pub rows: u32,
    /// Rows that a run of a prefill pass would have in a pass of its own; all runs have as many. Kernels and splits are chosen for so many
    /// rows, so that the result of a run does not depend on those beside it, to the bit. Otherwise all rows.
    pub run: u32,
    /// How they attend.
    pub attend: Attend,
    /// What is wanted.
    pub output: Output,
}

impl Pass {
    /// A prefill pass of one run.
    pub fn prefill(rows: u32, output: Output) -> Self {
        Self { rows, run: rows, attend: Attend::Prefill, output }
    }
}

/// Buffers that the scheduler writes and reads. Shapes in elements.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// `Row (max(prefill_rows, sequences))`: the tokens of a prefill step, or of a step that scores a prompt.
    pub prefill_rows: BufferId,
    /// `Row (sequences)`: the newest token of each sequence.
    pub decode_rows: BufferId,
    /// `u32 (sequences)`: the rows of a pass whose logits are wanted.
    pub output_numbers: BufferId,
    /// `u32 (sequences, pages_per_slot)`.
    pub pages: BufferId,
    /// The same for the layers that see a window, where those have pages of their own.
    pub window_pages: Option<BufferId>,
    /// `f32 (sequences, vocab)`.
    pub logits: BufferId,
    /// `Span (sequences)`: the rows of each text that count, where the model makes embeddings.
    pub spans: BufferId,
    /// `f32 (sequences, row)`: embeddings, padded.
    pub embeddings: BufferId,
}

impl Buffers {
    /// Makes them all.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub(super) fn create(
        executor: &Executor,
        scope: &mut Scope,
        spec: &ModelSpec,
        options: &ModelOptions,
        pages: &PageCounts,
    ) -> Result<Self> {
        let mut buffer = |label: &str, a: u32, b: u32| scope.create_buffer(executor, label, 4 * u64::from(a) * u64::from(b));
        // Encoders make no logits.
        let logit_rows = if spec.is_causal() { options.sequences } else { 0 };
        let texts = if spec.head.pooling.is_some() { options.sequences } else { 0 };
        Ok(Self {
            // A step that scores a prompt has as many rows as there are logits.
            prefill_rows: buffer("prefill rows", options.prefill_rows.max(options.sequences), 4)?,
            decode_rows: buffer("decode rows", options.sequences, 4)?,
            output_numbers: buffer("numbers of outputs", options.sequences, 1)?,
            pages: buffer("pages", options.sequences, pages.per_slot)?,
            window_pages: match pages.windows {
                Some(_) => Some(buffer("pages of windows", options.sequences, pages.per_slot)?),
                None => None,
            },
            logits: buffer("logits", logit_rows, spec.vocab)?,
            spans: buffer("spans of texts", texts, 2)?,
            embeddings: buffer("embeddings", texts, spec.row())?,
        })
    }

    /// The block tables of a layer.
    pub(super) fn pages_of(&self, cache: &KvCache) -> BufferId {
        self.window_pages.filter(|_| cache.windowed).unwrap_or(self.pages)
    }

    /// The rows of a pass.
    pub(super) fn rows(&self, attend: Attend) -> BufferId {
        if attend == Attend::Prefill { self.prefill_rows } else { self.decode_rows }
    }
}

/// Rows of floats on the device. Their slot of the scratch is free once all clones are dropped.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) buffer: BufferId,
    /// First element.
    pub(super) offset: u32,
    pub(super) rows: u32,
    /// Elements from a row to the next.
    pub(super) stride: u32,
    /// `None`: a buffer of [`Buffers`].
    _lease: Option<Rc<Lease>>,
}

impl Act {
    /// Rows of a buffer of [`Buffers`].
    pub(super) fn named(buffer: BufferId, offset: u32, rows: u32, stride: u32) -> Self {
        Self { buffer, offset, rows, stride, _lease: None }
    }
}

/// Records a pass, layer by layer.
#[derive(Debug)]
pub(super) struct PassRecorder<'a> {
    /// The pass.
    pub(super) pass: Pass,
    pub(super) capabilities: &'a Capabilities,
    /// Kernel of attention in prefill.
    pub(super) tier: AttentionTier,
    pub(super) options: &'a ModelOptions,
    /// The norms of whole rows.
    pub(super) norm: NormSpec,
    pub(super) buffers: &'a Buffers,
    /// The rows of the pass.
    pub(super) rows_buffer: BufferId,
    /// Row length of [`Buffers::pages`].
    pub(super) pages_per_slot: u32,
    /// Slots for activations.
    pub(super) arena: Arena,
    /// The kernels so far.
    pub(super) recording: Recording,
}

impl PassRecorder<'_> {
    /// Appends a kernel.
    pub(super) fn dispatch<K: Kernel + 'static>(&mut self, kernel: K, bindings: K::Bindings) {
        self.recording.dispatch(kernel, bindings);
    }

    /// The rows of a run, if so many rows are those of the pass.
    pub(super) fn run_of(&self, rows: u32) -> u32 {
        if rows == self.pass.rows { self.pass.run } else { rows }
    }

    /// Activations for the rows of the pass. What they hold is undefined.
    pub(super) fn act(&self, width: u32) -> Act {
        self.rows(self.pass.rows, width)
    }

    /// Activations for so many rows. What they hold is undefined.
    pub(super) fn rows(&self, rows: u32, width: u32) -> Act {
        self.take_rows(SlotKind::Any, rows, width, width)
    }

    /// Activations for the rows of the pass, to be multiplied by a matrix with the padded width.
    pub(super) fn rows_to_multiply(&self, width: u32) -> Act {
        let padded = padded_width(width);
        self.take_rows(if padded == width { SlotKind::Any } else { SlotKind::OverRead }, self.pass.rows, width, padded)
    }

    /// Bytes that a kernel needs on the way to its output.
    ///
    /// Taken behind the output and released with the kernel, so that whether there is one moves no other slot.
    pub(super) fn workspace(&self, bytes: u64) -> Lease {
        self.arena.take(SlotKind::Any, bytes)
    }

    /// The last row has room for `last` elements.
    fn take_rows(&self, kind: SlotKind, rows: u32, width: u32, last: u32) -> Act {
        let elements = u64::from(rows) * u64::from(width) + u64::from(last - width);
        let lease = self.arena.take(kind, 4 * elements);
        Act { buffer: lease.buffer, offset: 0, rows, stride: width, _lease: Some(Rc::new(lease)) }
    }
}
