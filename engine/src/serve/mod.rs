//! Serving: many sequences share one model. Prefill steps of one sequence alternate with decode steps of all others.

mod pages;
#[cfg(test)]
mod policy;
mod scheduler;
mod scoring;
mod sequence;

pub use scheduler::Scheduler;
pub use sequence::{Event, FinishReason, Job, Task, Timings};
