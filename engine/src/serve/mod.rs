//! Serving: many sequences share one model. A prefill pass has chunks of several prompts, a decode pass the newest token of each answer.

mod batch;
mod events;
#[cfg(test)]
mod null_device;
mod pages;
mod policy;
mod programs;
mod scheduler;
mod scoring;
mod sequence;
mod windows;

pub(crate) use events::{EventReceiver, events};
pub use events::{EventSender, Message};
pub use policy::Priority;
pub use scheduler::Scheduler;
pub use sequence::{Event, FinishReason, Job, Task, Timings};
