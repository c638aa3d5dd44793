//! Requests that only prefill: scores of a prompt's tokens, and embeddings.

use super::programs::ProgramKey;
use super::scheduler::{Scheduler, allocate_pages};
use super::sequence::{Event, FinishReason, Task};
use crate::error::{EngineError, Result};
use crate::exec::Executor;
use crate::model::{Model, Output, Pass};

impl Scheduler {
    /// Prefills the next chunk of a sequence of [`Self::prefilling`] and waits for its result. Nothing may be in flight: it overwrites the
    /// logits of the batch.
    pub(super) async fn score_or_embed(&mut self, executor: &Executor, model: &Model, index: usize) -> Result<()> {
        let sequence = &mut self.prefilling[index];
        let b = &model.buffers;
        let embeds = sequence.job.task == Task::Embed;
        let (max_rows, output) =
            if embeds { (model.options.prefill_rows, Output::Embedding) } else { (model.options.sequences, Output::Logits) };
        let begin = sequence.prefilled;
        let rows = (sequence.prompt_len() - begin).min(max_rows);
        sequence.prefilled += rows;
        allocate_pages(&mut self.pages, executor, model, sequence, begin + rows);
        executor.write(b.prefill_rows, 0, bytemuck::cast_slice(&sequence.rows(begin..begin + rows)));
        let (from, elements) = if embeds { (b.embedding, model.spec.dim) } else { (b.logits, rows * model.spec.vocab) };
        let pass = self.programs.get(executor, model, ProgramKey::Pass(Pass::prefill(rows, output)));
        let bytes = executor.submit_and_read(&[&pass], from, 0, 4 * u64::from(elements))?.wait().await?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);

        let sequence = &mut self.prefilling[index];
        let event = if embeds {
            values.iter().all(|value| value.is_finite()).then_some(Event::Embedding(values))
        } else {
            let next = sequence.job.prompt[begin as usize + 1..].iter();
            let rows = values.chunks_exact(model.spec.vocab as usize);
            // After a loss of the device the prompt is prefilled from its beginning, and scores that were sent are not sent again.
            let sent = sequence.progress.scored.saturating_sub(begin) as usize;
            let scores: Vec<f32> = rows.zip(next).skip(sent).map(|(row, token)| log_softmax(row, *token)).collect();
            sequence.progress.scored += scores.len() as u32;
            (!scores.iter().any(|score| score.is_nan())).then_some(Event::Scores(scores))
        };
        if let Some(event) = event {
            // A closed channel is a cancelled request: the scheduler looks for those itself.
            let _ = sequence.job.events.unbounded_send(Ok(event));
            if !sequence.prefilling() {
                sequence.finish(FinishReason::Length);
            }
        } else {
            sequence.fail(EngineError::NotFinite);
        }
        Ok(())
    }
}

/// The logarithm of the probability of `token`; NaN where a logit is NaN or infinity, or all are -infinity.
fn log_softmax(logits: &[f32], token: u32) -> f32 {
    let maximum = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - maximum).exp()).sum();
    (f64::from(logits.get(token as usize).copied().unwrap_or(f32::MIN) - maximum) - sum.ln()) as f32
}
