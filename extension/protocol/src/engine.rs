//! The engine's status and the models, as the extension's pages are told of them.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::native::Format;

/// What the engine is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Nothing yet: it starts with the first question.
    #[default]
    Idle,
    /// Loading the model.
    Loading,
    /// Answering at once.
    Ready,
    /// Unable to answer.
    Failed,
}

/// The graphics adapter the engine runs on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adapter {
    /// `nvidia`, `apple`, …
    pub vendor: String,
    /// Name of the device, or its architecture where the browser hides the name.
    pub description: String,
}

/// The loaded model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Weight format, such as `Q8_0`.
    pub quantization: String,
    /// Tokens that prompt and answer may have together.
    pub context: Option<f64>,
}

/// Answer to `engine.status`, and the `status` event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    /// What it is doing.
    pub state: EngineState,
    /// The model that is being loaded or failed.
    pub id: Option<String>,
    /// How its bytes come, where there are several ways.
    pub transport: Option<Transport>,
    /// Loaded part, 0 to 1.
    pub progress: Option<f64>,
    /// Whether a model of the user's is the chosen one; told on asking only.
    pub local: Option<bool>,
    /// The sites that are being answered; told on asking only.
    pub sites: Option<Vec<String>>,
    /// The chosen model; told on asking only.
    pub chosen: Option<Chosen>,
    /// What it runs on, once known.
    pub adapter: Option<Adapter>,
    /// What it runs, once known.
    pub model: Option<Model>,
    /// Why it failed.
    pub error: Option<Failure>,
}

/// The model that answers, or would.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// How the bytes of a model of the native host come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP on the loopback interface.
    Loopback,
    /// Native messages, through the service worker: slow, where the browser blocks the loopback interface.
    Messages,
}

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the extension.
    Embedded,
    /// In a folder of the native host.
    Host,
    /// In a file that was picked or dropped.
    Picked,
}

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Where it is.
    pub source: Source,
    /// Bytes of its files.
    #[serde(default)]
    pub bytes: Option<f64>,
    /// How it is stored.
    #[serde(default)]
    pub format: Option<Format>,
}

/// Answer to `models.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// All that can be chosen.
    pub data: Vec<Listed>,
    /// The id of the one that answers.
    pub chosen: String,
    /// What the native host could not read.
    pub problems: Vec<String>,
    /// The native host.
    pub host: HostState,
}

/// How the native host is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostState {
    /// Why it does not answer.
    pub error: Option<Failure>,
}

/// Answer to `models.describe`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Described {
    /// Such as `llama`.
    pub architecture: String,
    /// Weight format, such as `Q8_0`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: f64,
    /// Bytes on the device.
    pub memory: Memory,
    /// Parts of the file that are not used, or used otherwise than it says: a sentence each.
    pub notes: Vec<String>,
}

/// Bytes on the device, and for what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Weights.
    pub weights: f64,
    /// Keys and values of the context.
    pub cache: f64,
    /// Activations and state.
    pub scratch: f64,
}

/// Detail of an `activity` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Origins of the sites that are being answered.
    pub sites: Vec<String>,
}
