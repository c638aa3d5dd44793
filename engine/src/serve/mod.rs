//! Serving: many sequences share one model. Prefill steps of one sequence alternate with decode steps of all others.

mod pages;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the scheduler does not ask it yet"))]
mod policy;
mod scheduler;
mod scoring;
mod sequence;

pub use policy::Priority;
pub use scheduler::Scheduler;
pub use sequence::{Event, FinishReason, Job, Task, Timings};
