//! What the engine and the native host both know of files: what lies under a model's name without being a model, and how names are
//! printed. No dependencies, no I/O.

/// Name of the file with the parameters that Ollama keeps for a model, JSON.
pub const OLLAMA_PARAMETERS: &str = "ollama-parameters.json";
/// Name of the file with the system prompt that Ollama keeps for a model.
pub const OLLAMA_SYSTEM: &str = "ollama-system.txt";

mod gguf;
mod instead;
mod printed;

pub use gguf::{Purpose, no_model};
pub use instead::{instead, instead_of_gguf};
pub use printed::printable;
