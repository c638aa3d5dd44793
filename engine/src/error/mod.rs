//! The engine's error types. They lie below the modules that they are about.

mod format;
mod text;

pub use format::FormatError;
pub use text::TextError;

use crate::memory::MemoryUse;

/// Everything that can go wrong between a model file and its answer.
///
/// Each message is one sentence for the person at the screen: what failed, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model file cannot be read as what it claims to be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Bytes of the model could not be fetched.
    #[error("cannot read {bytes} bytes at {offset} of {name}: {reason}; check that the file is still there and try again")]
    Source {
        /// Name of the file.
        name: String,
        /// First byte of the range.
        offset: u64,
        /// Length of the range.
        bytes: u64,
        /// The system's reason.
        reason: String,
    },
    /// The file was replaced or written to while it was read.
    #[error("{name} was changed while it was read; load the model again")]
    ModelChanged {
        /// Name of the file.
        name: String,
    },
    /// The model store refused.
    #[error("{message}")]
    ModelStore {
        /// A word for programs.
        code: String,
        /// One sentence that says what to do.
        message: String,
    },
    /// Another model took the place of this one before it was loaded.
    #[error("another model was chosen while this one was loaded; ask again")]
    ModelSwitched,
    /// A file could not be written.
    #[error("cannot write the file: {reason}; check that there is enough space and try again")]
    Write {
        /// The system's reason.
        reason: String,
    },
    /// There is neither a GPU nor a software adapter. The reason that the browser or the driver's loader gives is of no use to people.
    #[cfg_attr(
        target_arch = "wasm32",
        error("this browser gives pages no GPU; turn on graphics acceleration in its settings, or update the graphics driver")
    )]
    #[cfg_attr(
        not(target_arch = "wasm32"),
        error(
            "no GPU was found; install the graphics driver with its Vulkan (Linux), Metal (macOS) or Direct3D 12 (Windows) part, or a software one such as Mesa's lavapipe"
        )
    )]
    NoAdapter,
    /// None of the adapters is the one asked for.
    #[error("no graphics adapter has {wanted:?} in its name; set DOPPLER_ADAPTER or --adapter to a part of one of these: {}", .names.join(", "))]
    AdapterNotFound {
        /// The name that was asked for.
        wanted: String,
        /// All adapters.
        names: Vec<String>,
    },
    /// The GPU reported an error for an operation.
    #[error("the GPU refused to {operation}: {reason}")]
    Gpu {
        /// The engine's operation.
        operation: String,
        /// The driver's reason.
        reason: String,
    },
    /// The device went away (driver reset, GPU process killed).
    #[error("the GPU was lost ({reason}); ask again, the engine restarts by itself")]
    DeviceLost {
        /// The driver's reason.
        reason: String,
    },
    /// A buffer is larger than the device takes.
    #[error("{what} needs {needed} bytes in one buffer and this device takes at most {limit}; use a smaller model or context")]
    TooLarge {
        /// Name of the buffer.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes possible.
        limit: u64,
    },
    /// The device has too little memory left for a buffer.
    #[error("the device has no memory left{}; unload a model or choose a smaller one", .available.map(|b| format!(" of {}", gigabytes(b))).unwrap_or_default())]
    NoMemory {
        /// Bytes of the device, where they are known.
        available: Option<u64>,
    },
    /// A model does not fit the device.
    #[error(
        "the model needs {} (weights {}, a context of {context} tokens {}, scratch {}){}; {}",
        gigabytes(.memory.total()), gigabytes(.memory.weights), gigabytes(.memory.cache), gigabytes(.memory.scratch),
        match .available { Some(bytes) => format!(" and the device has {}", gigabytes(*bytes)), None => " and the device has less".to_owned() },
        match .fitting {
            Some(fitting) => format!("a context of {fitting} tokens would fit"),
            None => "choose a smaller model".to_owned(),
        }
    )]
    OutOfMemory {
        /// Memory that the model needs.
        memory: MemoryUse,
        /// Positions of a sequence.
        context: u32,
        /// Bytes of the device, where they are known.
        available: Option<u64>,
        /// The longest context that would fit, with a cache for one sequence of it; `None`: none would.
        fitting: Option<u32>,
    },
    /// The checkpoint is well-formed, but the engine has no code for it.
    #[error("{what} {value:?} is not supported yet; supported: {supported}")]
    Unsupported {
        /// Which property.
        what: &'static str,
        /// Its value in the file.
        value: String,
        /// Supported values.
        supported: String,
    },
    /// The checkpoint's family is none that the engine runs.
    #[error("the architecture {name:?} is not supported: {reason}; choose another model")]
    UnsupportedFamily {
        /// `general.architecture`.
        name: String,
        /// The part that would be needed, as the end of a sentence.
        reason: &'static str,
    },
    /// A tensor is absent or of the wrong shape.
    #[error("tensor {name} {problem}; the file is incomplete or damaged, download it again")]
    Tensor {
        /// Name in the file.
        name: String,
        /// The problem, as the end of a sentence.
        problem: String,
    },
    /// The model computes NaN or infinity.
    #[error(
        "the model computes what are no numbers, so its weights are damaged or too large for their type; download the file again or choose another"
    )]
    NotFinite,
    /// The prompt does not fit the context.
    #[error(
        "the prompt has {}{requested} tokens and the context holds {quota}{}; shorten it or start a new chat",
        if *.at_least { "at least " } else { "" },
        if .requested > .quota { "" } else { " with the answer" }
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        requested: u32,
        /// Whether there are more: nothing is encoded beyond what fits.
        at_least: bool,
        /// Tokens of the context.
        quota: u32,
    },
    /// Too many requests of the same origin wait.
    #[error("{waiting} requests wait already; wait for one to end")]
    TooManyRequests {
        /// Requests of the origin that wait.
        waiting: usize,
    },
    /// A request field is out of range.
    #[error("{field} {problem}")]
    InvalidRequest {
        /// Name of the field.
        field: String,
        /// The problem, as the end of a sentence.
        problem: String,
    },
    /// A request field with a meaning that this engine does not implement.
    #[error("{field} is not supported: {hint}")]
    UnsupportedField {
        /// Name of the field.
        field: String,
        /// The alternative.
        hint: String,
    },
    /// No such model.
    #[error("there is no model {name:?}; models.list() names those that are here")]
    ModelNotFound {
        /// The model asked for.
        name: String,
    },
    /// The caller aborted the request.
    #[error("the request was aborted")]
    Aborted,
}

impl EngineError {
    /// The `DOMException` name that the page sees for this error (the Prompt API's names).
    pub fn dom_name(&self) -> &'static str {
        match self {
            Self::Format(_) | Self::Text(_) | Self::Tensor { .. } | Self::NotFinite => "DataError",
            Self::Source { .. } | Self::ModelChanged { .. } | Self::ModelStore { .. } | Self::ModelSwitched => "NetworkError",
            Self::NoAdapter
            | Self::AdapterNotFound { .. }
            | Self::Unsupported { .. }
            | Self::UnsupportedFamily { .. }
            | Self::UnsupportedField { .. } => "NotSupportedError",
            Self::Gpu { .. } | Self::DeviceLost { .. } | Self::Write { .. } => "OperationError",
            Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::OutOfMemory { .. }
            | Self::ContextExceeded { .. }
            | Self::TooManyRequests { .. } => "QuotaExceededError",
            Self::InvalidRequest { .. } => "TypeError",
            Self::ModelNotFound { .. } => "NotFoundError",
            Self::Aborted => "AbortError",
        }
    }

    /// A short machine-readable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Format(_) => "model_file_invalid",
            Self::Text(TextError::Encode { .. } | TextError::TooLong { .. } | TextError::Render { .. } | TextError::Noncharacters) => {
                "messages_refused"
            }
            Self::Text(_) => "text_processing_failed",
            Self::Source { .. } => "model_read_failed",
            Self::ModelChanged { .. } => "model_changed",
            Self::ModelStore { code, .. } => code,
            Self::ModelSwitched => "model_switched",
            Self::Write { .. } => "write_failed",
            Self::NoAdapter => "no_gpu",
            Self::AdapterNotFound { .. } => "adapter_not_found",
            Self::Gpu { .. } => "gpu_error",
            Self::DeviceLost { .. } => "device_lost",
            Self::TooLarge { .. } => "too_large_for_device",
            Self::NoMemory { .. } | Self::OutOfMemory { .. } => "out_of_memory",
            Self::Unsupported { .. } | Self::UnsupportedFamily { .. } => "unsupported_model",
            Self::Tensor { .. } => "tensor_invalid",
            Self::NotFinite => "not_finite",
            Self::ContextExceeded { .. } => "context_length_exceeded",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::UnsupportedField { .. } => "unsupported_field",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::Aborted => "aborted",
        }
    }

    /// Whether any web page may read the message: it is about the page's own request or about the device, and names no file and no
    /// part of a file.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Text(_) => self.code() == "messages_refused",
            Self::NoAdapter
            | Self::DeviceLost { .. }
            | Self::ModelSwitched
            | Self::ContextExceeded { .. }
            | Self::TooManyRequests { .. }
            | Self::InvalidRequest { .. }
            | Self::UnsupportedField { .. }
            | Self::Aborted => true,
            Self::Format(_)
            | Self::Source { .. }
            | Self::ModelChanged { .. }
            | Self::ModelStore { .. }
            | Self::Write { .. }
            | Self::AdapterNotFound { .. }
            | Self::Gpu { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::OutOfMemory { .. }
            | Self::Unsupported { .. }
            | Self::UnsupportedFamily { .. }
            | Self::Tensor { .. }
            | Self::NotFinite
            | Self::ModelNotFound { .. } => false,
        }
    }
}

/// Bytes for people: `1.25 GB`.
fn gigabytes(bytes: u64) -> String {
    if bytes < 100_000_000 { format!("{:.1} MB", bytes as f64 / 1e6) } else { format!("{:.2} GB", bytes as f64 / 1e9) }
}

/// Result of an engine operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_adapter_error_names_remedy() {
        let text = EngineError::NoAdapter.to_string();
        assert!(text.contains("driver") && !text.contains("support"), "{text}");
        assert_eq!(EngineError::NoAdapter.code(), "no_gpu");
    }

    #[test]
    fn errors_naming_a_file_are_not_public() {
        let (name, problem) = (|| "secret.gguf".to_owned(), || "is cut off".to_owned());
        let naming = [
            FormatError::MissingTensor { name: name() }.into(),
            EngineError::Source { name: name(), offset: 0, bytes: 1, reason: problem() },
            EngineError::ModelChanged { name: name() },
            EngineError::ModelStore { code: "aborted".to_owned(), message: name() },
            EngineError::TooLarge { what: name(), needed: 2, limit: 1 },
            EngineError::Unsupported { what: "the architecture", value: name(), supported: problem() },
            EngineError::UnsupportedFamily { name: name(), reason: "is new" },
            EngineError::Tensor { name: name(), problem: problem() },
            EngineError::ModelNotFound { name: name() },
        ];
        for error in naming {
            assert!(error.to_string().contains("secret.gguf"), "{error}");
            assert!(!error.is_public(), "{error}");
        }
        assert!(EngineError::ModelSwitched.is_public());
        assert!(EngineError::from(TextError::Render { message: problem() }).is_public());
        assert!(!EngineError::from(TextError::NoChatTemplate).is_public());
    }

    #[test]
    fn template_error_code_depends_on_cause() {
        let code = |error: TextError| EngineError::from(error).code().to_owned();
        assert_eq!(code(TextError::Render { message: "roles must alternate".to_owned() }), "messages_refused");
        assert_eq!(code(TextError::NoChatTemplate), "text_processing_failed");
    }
}
