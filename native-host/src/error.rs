//! Everything that can go wrong, each with the code that the extension knows it by.

use std::io;
use std::path::PathBuf;

use doppler_protocol::native::{HostCode, HostFailure, Spoken};

use crate::PROTOCOL;
use crate::places::program_from_home;

/// A refused request or a failed command. Messages that go to the extension hold names of files, never paths.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The extension speaks another version.
    #[error("the extension speaks protocol {theirs}, the host {PROTOCOL}: update {}", if *theirs > PROTOCOL { "the host (run install.sh of the newer version)" } else { "the extension" })]
    Protocol {
        /// What the extension speaks.
        theirs: u64,
    },
    /// A request came before `hello`.
    #[error("the first message must be `hello`")]
    HelloFirst,
    /// A method that does not exist.
    #[error("the host knows no `{method}`: update it (run install.sh of the newer version)")]
    UnknownMethod {
        /// What was asked for.
        method: String,
    },
    /// A frame that is no request, or parameters that are not the method's.
    #[error("a message cannot be understood: {problem}")]
    Malformed {
        /// What the parser says.
        problem: String,
    },
    /// An answer that browsers would not take.
    #[error("the answer would be larger than a message may be: choose smaller folders with `{} models`", program_from_home())]
    TooLarge,
    /// No model or no file of this id in the chosen folders.
    #[error("there is no such model in the folders of the host: list the models again")]
    NotFound,
    /// Not the file that was opened, or no longer as it was.
    #[error("{name} has changed on the disk: open it again")]
    Changed {
        /// The file's name.
        name: String,
    },
    /// The system does not let us read it.
    #[error("{name} cannot be read: {problem}")]
    Unreadable {
        /// The file's name.
        name: String,
        /// What the system says.
        problem: io::Error,
    },
    /// Something else than a model under a model's name.
    #[error("{name} is not a model file: it is {problem}")]
    NotAModel {
        /// The file's name.
        name: String,
        /// What it is instead.
        problem: String,
    },
    /// More models open than anything needs.
    #[error("{limit} models are open: close one first")]
    TooMany {
        /// The most.
        limit: usize,
    },
    /// Bytes that the file does not have, or more than a message holds.
    #[error("bytes {offset} to {} cannot be read: the file has {bytes}, and a message holds {limit}", offset.saturating_add(*wanted))]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        wanted: u64,
        /// Length of the file.
        bytes: u64,
        /// Most bytes of an answer.
        limit: u64,
    },
    /// The host's own file of folders is unusable.
    #[error("the list of folders is unusable ({problem}): run `{} doctor`", program_from_home())]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// A file operation of a command failed.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: io::Error,
    },
    /// A command cannot do what it is asked.
    #[error("{0}")]
    Command(String),
}

/// Of everything in this crate.
pub type Result<T> = std::result::Result<T, HostError>;

impl HostError {
    /// What the extension tells errors apart by.
    pub fn code(&self) -> HostCode {
        match self {
            Self::Protocol { .. } | Self::HelloFirst => HostCode::Protocol,
            Self::UnknownMethod { .. } => HostCode::UnknownMethod,
            Self::Malformed { .. } | Self::OutOfRange { .. } => HostCode::Malformed,
            Self::TooLarge => HostCode::TooLarge,
            Self::NotFound => HostCode::NotFound,
            Self::Changed { .. } => HostCode::Changed,
            Self::Unreadable { .. } => HostCode::Unreadable,
            Self::NotAModel { .. } => HostCode::NotAModel,
            Self::TooMany { .. } => HostCode::TooMany,
            Self::Config { .. } => HostCode::Config,
            Self::Path { .. } | Self::Command(_) => HostCode::Failed,
        }
    }

    /// As it goes to the extension.
    pub fn to_failure(&self) -> HostFailure {
        let data = matches!(self, Self::Protocol { .. }).then_some(Spoken { protocol: PROTOCOL });
        HostFailure { code: self.code(), message: self.to_string(), data }
    }

    /// For [`Result::map_err`] after an operation on `path`.
    pub fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |problem| Self::Path { path, problem }
    }
}
