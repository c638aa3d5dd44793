//! Requests that only prefill: scores of a prompt's tokens, and embeddings.

use std::ops::Range;

use super::batch::{Segments, bucket};
use super::programs::ProgramKey;
use super::scheduler::{Scheduler, allocate_pages};
use super::sequence::{Event, FinishReason, Sequence, Task};
use crate::error::{EngineError, Result};
use crate::exec::Executor;
use crate::kernels::Span;
use crate::model::{Model, Output, Pass, Pooling, SEGMENT_ROWS};

impl Scheduler {
    /// Prefills the next chunk of a sequence of [`Self::prefilling`] whose tokens are scored, and waits for its logits. Nothing may be in
    /// flight: it overwrites those of the batch.
    pub(super) async fn score(&mut self, executor: &Executor, model: &Model, index: usize) -> Result<()> {
        let sequence = &mut self.prefilling[index];
        let b = &model.buffers;
        let begin = sequence.prefilled;
        let rows = (sequence.prompt_len() - begin).min(model.options.sequences);
        sequence.prefilled += rows;
        allocate_pages(&mut self.pages, executor, model, sequence, begin..begin + rows);
        executor.write(b.prefill_rows, 0, bytemuck::cast_slice(&sequence.rows(begin..begin + rows)));
        let pass = self.programs.get(executor, model, ProgramKey::Pass(Pass::prefill(rows, Output::Logits)));
        let bytes = executor.submit_and_read(&[&pass], b.logits, 0, 4 * u64::from(rows * model.spec.vocab))?.wait().await?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);

        let sequence = &mut self.prefilling[index];
        let next = sequence.job.prompt[begin as usize + 1..].iter();
        let rows = values.chunks_exact(model.spec.vocab as usize);
        // After a loss of the device the prompt is prefilled from its beginning, and scores that were sent are not sent again.
        let sent = sequence.progress.scored.saturating_sub(begin) as usize;
        let scores: Vec<f32> = rows.zip(next).skip(sent).map(|(row, token)| log_softmax(row, *token)).collect();
        sequence.progress.scored += scores.len() as u32;
        if scores.iter().any(|score| score.is_nan()) {
            sequence.fail(EngineError::NotFinite);
            return Ok(());
        }
        sequence.job.events.send(Ok(Event::Scores(scores)));
        if !sequence.prefilling() {
            sequence.finish(FinishReason::Length);
        }
        Ok(())
    }

    /// Prefills the next chunk of a sequence of [`Self::prefilling`] that is embedded, beside whole texts of its bucket, up to `budget`
    /// tokens together, and waits for the embeddings.
    pub(super) async fn embed(&mut self, executor: &Executor, model: &Model, index: usize, budget: u32) -> Result<()> {
        let b = &model.buffers;
        let (run, chosen) = self.choose_texts(model, index, budget);
        let mut segments = Segments::default();
        let (mut chunks, mut spans) = (Vec::new(), Vec::new());
        for index in chosen {
            let sequence = &mut self.prefilling[index];
            let begin = sequence.prefilled;
            let rows = sequence.num_uncomputed().min(run);
            sequence.prefilled += rows;
            allocate_pages(&mut self.pages, executor, model, sequence, begin..begin + rows);
            let last = segments.push(sequence.rows(begin..begin + rows));
            spans.push(counting(model.spec.head.pooling, last + 1 - rows, rows));
            chunks.push((index, begin..begin + rows));
        }
        let rows = bucket(segments.len().max(run), model.options.prefill_rows);
        let texts = bucket(chunks.len() as u32, model.options.sequences);
        spans.resize(texts as usize, Span { first: 0, count: 1 });
        executor.write(b.prefill_rows, 0, bytemuck::cast_slice(&segments.padded(rows)));
        executor.write(b.spans, 0, bytemuck::cast_slice(&spans));
        let pass = Pass { run, ..Pass::prefill(rows, Output::Embeddings(texts)) };
        let pass = self.programs.get(executor, model, ProgramKey::Pass(pass));
        let bytes = executor.submit_and_read(&[&pass], b.embeddings, 0, 4 * u64::from(texts * model.spec.row()))?.wait().await?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        for ((index, chunk), row) in chunks.into_iter().zip(values.chunks_exact(model.spec.row() as usize)) {
            let sequence = &mut self.prefilling[index];
            let share = share(model.spec.head.pooling, &chunk, sequence.prompt_len());
            let embedding = &mut sequence.progress.embedding;
            if chunk.start == 0 {
                *embedding = vec![0.0; model.spec.dim as usize];
            }
            // What follows pooling is linear.
            embedding.iter_mut().zip(row).for_each(|(sum, value)| *sum += if share > 0.0 { share * value } else { 0.0 });
            if sequence.prefilling() {
                continue;
            }
            let embedding = std::mem::take(&mut sequence.progress.embedding);
            if embedding.iter().all(|value| value.is_finite()) {
                sequence.job.events.send(Ok(Event::Embedding(embedding)));
                sequence.finish(FinishReason::Length);
            } else {
                sequence.fail(EngineError::NotFinite);
            }
        }
        Ok(())
    }

    /// The bucket of a sequence's next chunk, and the sequences whose whole texts have that bucket, it among them.
    fn choose_texts(&self, model: &Model, index: usize, budget: u32) -> (u32, Vec<usize>) {
        let most = model.options.prefill_rows;
        // Kernels of fewer rows add in another order than those of a pass with several texts.
        let run_of = |sequence: &Sequence| bucket(sequence.num_uncomputed().max(SEGMENT_ROWS), most);
        let run = run_of(&self.prefilling[index]);
        let others = self.prefilling.iter().enumerate().filter(|(i, sequence)| {
            *i != index && sequence.job.task == Task::Embed && sequence.num_uncomputed() <= most && run_of(sequence) == run
        });
        let mut left = budget.saturating_sub(self.prefilling[index].num_uncomputed());
        let mut chosen = vec![index];
        for (i, sequence) in others.take((most / run).saturating_sub(1) as usize) {
            if sequence.num_uncomputed() <= left {
                left -= sequence.num_uncomputed();
                chosen.push(i);
            }
        }
        (run, chosen)
    }
}

/// The rows of a chunk, which begins at row `first` of a pass, that its embedding is made of.
fn counting(pooling: Option<Pooling>, first: u32, rows: u32) -> Span {
    match pooling {
        Some(Pooling::First) => Span { first, count: 1 },
        Some(Pooling::Last) => Span { first: first + rows - 1, count: 1 },
        Some(Pooling::Mean) | None => Span { first, count: rows },
    }
}

/// The weight of a chunk's embedding in that of a text of so many tokens.
fn share(pooling: Option<Pooling>, chunk: &Range<u32>, tokens: u32) -> f32 {
    let counts = match pooling {
        Some(Pooling::First) => chunk.start == 0,
        Some(Pooling::Last) => chunk.end == tokens,
        Some(Pooling::Mean) | None => return (chunk.end - chunk.start) as f32 / tokens as f32,
    };
    if counts { 1.0 } else { 0.0 }
}

/// The logarithm of the probability of `token`; NaN where a logit is NaN or infinity, or all are -infinity.
fn log_softmax(logits: &[f32], token: u32) -> f32 {
    let maximum = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - maximum).exp()).sum();
    (f64::from(logits.get(token as usize).copied().unwrap_or(f32::MIN) - maximum) - sum.ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_make_the_embedding_of_the_whole_text() {
        let chunks = [0..4, 4..8, 8..10];
        let tenths = |pooling| chunks.clone().map(|chunk| (10.0 * share(Some(pooling), &chunk, 10)).round() as u32);
        assert_eq!([Pooling::Mean, Pooling::First, Pooling::Last].map(tenths), [[4, 4, 2], [10, 0, 0], [0, 0, 10]]);
        let span = |pooling| counting(Some(pooling), 32, 7);
        assert_eq!(span(Pooling::Mean), Span { first: 32, count: 7 });
        assert_eq!((span(Pooling::First).first, span(Pooling::Last).first), (32, 38));
    }
}
