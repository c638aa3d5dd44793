//! The programs of a model that is served, kept by the shape of a step.

use std::collections::HashMap;
use std::rc::Rc;

use super::batch::RING;
use crate::error::Result;
use crate::exec::{BufferId, Executor, Program, Recording, Scope};
use crate::kernels::{BatchRows, BatchRowsBindings, Group, Row, SampleBindings, Sampler, Sampling};
use crate::model::{Model, Output, Pass};

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProgramKey {
    /// A pass through the model.
    Pass(Pass),
    /// The next token of so many rows; `draws`: some of them draw from all tokens.
    Sample {
        /// Of the batch, or of [`State::joining`].
        joining: bool,
        rows: u32,
        draws: bool,
    },
    /// Sequences join the batch and leave it.
    BatchRows,
}

/// State of the sequences on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// `Sampler (slots)`.
    pub(super) samplers: BufferId,
    /// `u32 (slots, vocab)`: see [`Sampling::counts`].
    pub(super) counts: BufferId,
    /// `Group (sequences, groups)`.
    groups: BufferId,
    /// `u32 (slots, RING)`.
    pub(super) sampled: BufferId,
    /// `Row (sequences)`: the rows of sequences that end their prefill with a pass.
    pub(super) joining: BufferId,
    /// `u32 (sequences)`: see [`BatchRows`].
    pub(super) sources: BufferId,
}

impl State {
    /// Makes the buffers in `scope`.
    ///
    /// # Errors
    /// When they do not fit.
    pub(super) fn create(executor: &Executor, scope: &mut Scope, model: &Model) -> Result<Self> {
        let (sequences, vocab) = (u64::from(model.options.sequences), model.spec.vocab);
        let mut buffer = |label, elements: u64, size: usize| scope.create_buffer(executor, label, elements * size as u64);
        Ok(Self {
            samplers: buffer("samplers", sequences, size_of::<Sampler>())?,
            counts: buffer("token counts", sequences * u64::from(vocab), 4)?,
            groups: buffer("token groups", sequences * u64::from(Sampling::groups(vocab)), size_of::<Group>())?,
            sampled: buffer("sampled", sequences * u64::from(RING), 4)?,
            joining: buffer("joining rows", sequences, size_of::<Row>())?,
            sources: buffer("sources of rows", sequences, 4)?,
        })
    }
}

/// Programs that are kept: more than a mixture of prompts and answers needs, few enough that those of rare shapes take no memory to speak of.
const MOST_PROGRAMS: usize = 128;

/// Compiled programs. Steps come in buckets of rows, so that programs recur; the least recently used is evicted.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) state: State,
    /// Each with the number of its last use.
    compiled: HashMap<ProgramKey, (Rc<Program>, u64)>,
    uses: u64,
}

impl Programs {
    pub(super) fn new(state: State) -> Self {
        Self { state, compiled: HashMap::new(), uses: 0 }
    }

    /// The program of a step.
    pub(super) fn get(&mut self, executor: &Executor, model: &Model, key: ProgramKey) -> Rc<Program> {
        self.uses += 1;
        if let Some((program, used)) = self.compiled.get_mut(&key) {
            *used = self.uses;
            return Rc::clone(program);
        }
        let label = match key {
            ProgramKey::Pass(_) => "pass",
            ProgramKey::Sample { .. } => "sample",
            ProgramKey::BatchRows => "batch rows",
        };
        let program = Rc::new(executor.compile(label, self.record(model, key)));
        if self.compiled.len() == MOST_PROGRAMS
            && let Some(oldest) = self.compiled.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)
        {
            self.compiled.remove(&oldest);
        }
        self.compiled.insert(key, (Rc::clone(&program), self.uses));
        program
    }

    fn record(&self, model: &Model, key: ProgramKey) -> Recording {
        let mut recording = Recording::new();
        let State { samplers, counts, groups, sampled, joining, sources } = self.state;
        let batch = model.buffers.decode_rows;
        match key {
            ProgramKey::Pass(pass) => return model.record(&pass),
            ProgramKey::Sample { joining: joins, rows, draws } => {
                let sampling = Sampling { vocab: model.spec.vocab, first_row: 0, rows, ring: RING };
                let rows = if joins { joining } else { batch };
                let bindings = SampleBindings { logits: model.buffers.logits, counts, samplers, rows, groups, sampled };
                recording.sample(sampling, draws, bindings);
            }
            ProgramKey::BatchRows => {
                recording.dispatch(BatchRows { rows: model.options.sequences }, BatchRowsBindings { sources, joining, batch });
            }
        }
        recording
    }

    /// Recordings of single requests by the kernel variants that they need: those of every request, and those of very short and long
    /// prompts, long contexts, random sampling and concurrent answers.
    pub(super) fn usual_recordings(&self, model: &Model) -> [Vec<Recording>; 2] {
        const SHORT_PROMPT: u32 = 64;
        let generates = model.spec.is_causal();
        let output = if generates { Output::SomeLogits(1) } else { Output::Embeddings(1) };
        let most = model.options.prefill_rows;
        let prefill = |rows: u32| ProgramKey::Pass(Pass::prefill(rows.min(most), output));
        let decode = |rows, positions| ProgramKey::Pass(model.decode_pass(rows, positions));
        let sample = |draws| ProgramKey::Sample { joining: false, rows: 1, draws };
        let (mut every, mut some) = (vec![prefill(SHORT_PROMPT)], vec![prefill(1), prefill(4), prefill(32), prefill(most)]);
        if generates {
            every.extend([decode(1, 1), sample(false), ProgramKey::BatchRows]);
            some.extend([decode(1, model.options.context), sample(true)]);
            // Kernels differ by the bucket of rows.
            some.extend([2, 4, 8, 16, 32].into_iter().filter(|rows| *rows <= model.options.sequences).map(|rows| decode(rows, 1)));
        }
        [every, some].map(|keys| keys.into_iter().map(|key| self.record(model, key)).collect())
    }
}
