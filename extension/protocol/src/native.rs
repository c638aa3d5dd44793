//! Native messages: the extension's service worker asks `{id, method, params}`, the native host answers `{id, done}` or `{id, error}`.

use serde::{Deserialize, Serialize};

use crate::{Method, Nothing, methods};

/// The native host's name for browsers.
pub const HOST_NAME: &str = "com.doppler.host";

/// Version of the messages and of the HTTP interface.
pub const PROTOCOL: u64 = 1;

/// The most bytes of one [`Read`]: they fit a message in base64.
pub const MAX_READ: u64 = 716_800;

methods! {
    /// Comes first.
    Hello = "hello": HelloParams => Greeting;
    /// Checks that the host answers.
    Ping = "ping": Nothing => Nothing;
    /// All models of the folders that the user chose.
    ListModels = "models.list": Nothing => HostModels;
    /// A model as it is on the disk now.
    StatModel = "models.stat": ModelId => OpenedModel;
    /// Opens a model, whose bytes can be read from then on.
    OpenModel = "models.open": ModelId => OpenedModel;
    /// Closes a model.
    CloseModel = "models.close": ModelId => Nothing;
    /// Bytes of an open model.
    Read = "read": ReadParams => ReadDone;
}

/// The messages that the service worker forwards, for the offscreen document only.
pub const FORWARDED: [&str; 4] = [ListModels::NAME, OpenModel::NAME, CloseModel::NAME, Read::NAME];

/// Parameters of [`Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct HelloParams {
    /// The version that the extension speaks.
    pub protocol: u64,
    /// The extension's own version.
    #[serde(default)]
    pub extension: String,
}

/// Answer to [`Hello`].
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Greeting {
    /// The version that the host speaks.
    pub protocol: u64,
    /// The host's own version.
    pub version: String,
    /// Address of its HTTP server, without a path.
    pub base: String,
    /// Opens the HTTP server. It is secret.
    pub token: String,
}

/// How a model is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One GGUF file, or the parts of a split one.
    #[default]
    Gguf,
    /// A folder in Hugging Face's layout.
    Safetensors,
}

impl Format {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Answer to [`ListModels`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct HostModels {
    /// By name.
    pub models: Vec<HostModel>,
    /// Problems of models that cannot be read or do not fit, a sentence each, without paths.
    pub problems: Vec<String>,
}

/// A model in the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct HostModel {
    /// 32 hexadecimal digits: the same as long as the files stay where they are.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// How it is stored.
    pub format: Format,
    /// Number of its files.
    pub files: usize,
    /// When the last of its files was written, in milliseconds since 1970.
    pub modified: u64,
    /// Parts of it that are not used, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(as = "Option<Vec<String>>", optional))]
    pub notes: Vec<String>,
}

/// A model by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ModelId {
    /// [`HostModel::id`].
    pub id: String,
}

/// Answer to [`OpenModel`] and [`StatModel`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct OpenedModel {
    /// [`HostModel::id`].
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// How it is stored.
    pub format: Format,
    /// Parts of it that are not used, a sentence each.
    pub notes: Vec<String>,
    /// Its files, in their order.
    pub files: Vec<OpenedFile>,
}

/// A file of an open model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct OpenedFile {
    /// Its name, within the model's folder if there is one.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Where the HTTP server has it: follows [`Greeting::base`].
    pub path: String,
    /// Another one when the file is another one, or was changed.
    pub etag: String,
}

/// Parameters of [`Read`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ReadParams {
    /// Which model.
    pub id: String,
    /// Which of its files, by its place in [`OpenedModel::files`].
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at most [`MAX_READ`].
    pub bytes: u64,
    /// [`OpenedFile::etag`]: bytes of another file are not wanted.
    pub etag: String,
}

/// Answer to [`Read`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ReadDone {
    /// The bytes in base64.
    pub data: String,
}

/// The words by which the extension tells failures of the host apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum HostCode {
    /// The extension speaks another version, or did not say hello.
    Protocol,
    /// There is no such method.
    UnknownMethod,
    /// A message that is no request, or whose parameters are not those of its method.
    Malformed,
    /// The answer would not fit a message.
    TooLarge,
    /// No such model or file.
    NotFound,
    /// Not the file that was opened.
    Changed,
    /// The system does not let the host read it.
    Unreadable,
    /// Something else under a model's name.
    NotAModel,
    /// Too many models are open.
    TooMany,
    /// The list of folders is unusable.
    Config,
    /// A command of the host failed.
    Failed,
}

/// Why the host refuses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct HostFailure {
    /// For programs.
    pub code: HostCode,
    /// One sentence that says what to do. It may name files, and has no paths.
    pub message: String,
    /// With [`HostCode::Protocol`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub data: Option<Spoken>,
}

/// The host's version of the protocol.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Spoken {
    /// [`PROTOCOL`].
    pub protocol: u64,
}
