//! What the engine and the native host both know of files: what lies under a model's name without being a model, and how names are
//! printed. No dependencies, no I/O.

mod gguf;
mod instead;
mod printed;

pub use gguf::{Purpose, no_model};
pub use instead::{instead, instead_of_gguf};
pub use printed::printable;
