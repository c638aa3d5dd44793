//! Requests of the offscreen document to the engine's worker, and the worker's events: the engine's status and the models.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::native::Format;
use crate::{Nothing, elsewhere, events, methods};

methods! {
    /// The engine's status.
    GetStatus = "engine.status": Nothing => EngineStatus;
    /// The models that ship with the extension.
    ListEmbedded = "models.list": Nothing => Catalog;
    /// Loads a model, which answers from then on.
    LoadModel = "models.load": LoadParams => Model;
    /// The properties of a model.
    DescribeModel = "models.describe": NamedModel => Model;
    /// Answers a conversation.
    Chat = "chat.completions": ChatRequest => Completion, chunk Chunk;
    /// Counts the tokens of a conversation. While the model is loaded, web pages get chunks.
    CountTokens = "tokens.count": ChatRequest => Count, chunk Loaded;
    /// The conversations that are being answered, or wait for that.
    GetChats = "engine.chats": Nothing => RunningChats;
    /// Compares a model with reference outputs.
    Verify = "engine.verify": VerifyParams => Verified;
    /// The engine times itself.
    Bench = "engine.bench": BenchParams => BenchReport;
    /// Looks for faster settings of the kernels, keeps them, and loads the model that serves again with them.
    Tune = "engine.tune": TuneParams => TuneReport, chunk Trial;
    /// Forgets all settings that were found.
    Untune = "engine.untune": Nothing => Nothing;
}

events! {
    /// The engine's status changed.
    StatusChanged = "status": EngineStatus;
    /// The worker's program has ended, and can do nothing any more.
    Fatal = "fatal": Reason;
}

elsewhere! {
    /// The engine's `ChatRequest`.
    ChatRequest = "import(\"../page/doppler.js\").ChatCompletionRequest";
    /// A whole answer; nothing after a stream.
    Completion = "import(\"../page/doppler.js\").ChatCompletion | Nothing";
    /// A part of a stream.
    Chunk = "import(\"../page/doppler.js\").ChatCompletionChunk";
    /// The engine's `Tuning`: settings of the kernels.
    Settings = "Record<string, number | boolean>";
    /// The engine's `Reference` and `Comparison`.
    Compared = "Record<string, unknown>";
    /// The engine's `BenchOptions`, with a shape and the type of its weights.
    BenchParams = "Record<string, unknown>";
    /// As [`BenchParams`], with the most settings to try.
    TuneParams = "Record<string, unknown>";
    /// The engine's `Report`, with the browser's name.
    BenchReport = "import(\"../bench/report.js\").Report";
    /// The engine's `LengthReport`.
    LengthReport = "import(\"../bench/report.js\").Length";
}

/// Detail of [`Fatal`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Reason {
    /// Why.
    pub message: String,
}

/// Parameters of [`LoadModel`].
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct LoadParams {
    /// Its id; `None`: the embedded one.
    pub model: Option<String>,
    /// Tokens of its context, if not as many as usual.
    pub context: Option<u32>,
}

/// Parameters of [`DescribeModel`].
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct NamedModel {
    /// Its id; `None`: the embedded one.
    pub model: Option<String>,
}

/// `OpenAI`'s list of models.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Catalog {
    /// `list`
    #[cfg_attr(test, ts(type = "\"list\""))]
    pub object: &'static str,
    /// The models.
    pub data: Vec<CatalogModel>,
}

/// `OpenAI`'s description of a model.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CatalogModel {
    /// Its id.
    pub id: &'static str,
    /// `model`
    #[cfg_attr(test, ts(type = "\"model\""))]
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Its maker.
    pub owned_by: &'static str,
    /// Its name for people.
    pub name: &'static str,
}

/// Answer to [`CountTokens`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Count {
    /// Of the conversation.
    pub tokens: usize,
    /// That prompt and answer may have together.
    pub context: u32,
}

/// A chunk of [`CountTokens`], from the offscreen document to web pages.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Loaded {
    /// Loaded part of the model, 0 to 1.
    pub loaded: f64,
}

/// Answer to [`GetChats`].
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RunningChats {
    /// In the order of their arrival.
    pub chats: Vec<RunningChat>,
}

/// A conversation that the worker has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RunningChat {
    /// The origin that asks.
    pub origin: String,
    /// The model's name for people; `None`: it is not loaded yet.
    pub model: Option<String>,
    /// Whether the engine has admitted it; else it waits. So it stays while it is preempted, or while a lost device is opened again.
    pub running: bool,
    /// Tokens of the prompt and of the answer so far, once it was admitted: those whose keys and values the cache has or will have again.
    pub tokens: u32,
    /// Tokens of the answer in a second, as it is now.
    pub tokens_per_second: f64,
}

/// Parameters of [`Verify`].
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields, concrete(R = Compared)))]
pub struct VerifyParams<R = Compared> {
    /// The id of the model; `None`: the embedded one.
    pub model: Option<String>,
    /// Reference outputs.
    pub prompts: Vec<R>,
}

/// Answer to [`Verify`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(concrete(R = Compared)))]
pub struct Verified<R = Compared> {
    /// Of each prompt.
    pub results: Vec<R>,
}

/// A chunk of [`Tune`]: a setting that is measured now.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(concrete(T = Settings)))]
pub struct Trial<T = Settings> {
    /// The shape it is measured with.
    pub model: String,
    /// Its number, from 1.
    pub trial: usize,
    /// The most that are tried.
    pub trials: usize,
    /// The settings.
    pub tuning: T,
}

/// Answer to [`Tune`].
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(concrete(T = Settings, L = LengthReport)))]
pub struct TuneReport<T = Settings, L = LengthReport> {
    /// The device.
    pub adapter: Adapter,
    /// The shape that was measured.
    pub model: String,
    /// The fastest settings.
    pub tuning: T,
    /// Measurements with the default settings.
    pub before: Vec<L>,
    /// Measurements with `tuning`.
    pub after: Vec<L>,
    /// Part of the time that it spares.
    pub gain: f64,
}

/// Settings that were found for a device. The worker writes them as JSON, which the offscreen document keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(concrete(T = Settings)))]
#[serde(deny_unknown_fields)]
pub struct Tuned<T = Settings> {
    /// The settings.
    pub tuning: T,
    /// When they were found, in milliseconds since 1970.
    pub since: u64,
    /// Part of the defaults' time that they spare.
    pub gain: f64,
    /// The shape that was measured.
    pub model: String,
}

/// The engine's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default)]
pub struct Adapter {
    /// `nvidia`, `apple`, …
    pub vendor: String,
    /// Name of the device, or its architecture where the browser hides the name.
    pub description: String,
    /// Kind.
    #[serde(skip_deserializing)]
    pub tier: Tier,
    /// Optional features that the engine uses.
    #[serde(skip_deserializing)]
    pub features: Vec<String>,
    /// The matrices that subgroups multiply, where a browser shows any.
    #[serde(skip_deserializing)]
    pub matrices: Option<Matrices>,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Shares the system's memory.
    Unified,
    /// Has memory of its own.
    Discrete,
    /// A software adapter, or one that does not say what it is.
    #[default]
    Basic,
}

/// The matrices that a browser's subgroups multiply, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Matrices {
    /// All shapes that the adapter lists.
    pub shapes: Vec<String>,
    /// The one that suits kernels.
    pub used: Option<String>,
    /// Why there is none.
    pub unused_because: Option<String>,
}

/// The properties of a model, and the memory that it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Such as `llama`.
    pub architecture: String,
    /// Weight format, such as `Q8_0`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: f64,
    /// Bytes of its files.
    #[serde(skip_deserializing)]
    pub file_bytes: f64,
    /// Tokens that prompt and answer may have together.
    pub context: Option<u32>,
    /// Bytes on the device.
    pub memory: Memory,
    /// Elements of the embeddings of texts that it makes; `None`: it makes none.
    #[serde(skip_deserializing)]
    pub embedding: Option<u32>,
    /// Whether it continues text.
    #[serde(skip_deserializing)]
    pub generates: bool,
    /// Parts of the file that are not used, or used otherwise than it says: a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(as = "Option<Vec<String>>", optional))]
    pub notes: Vec<String>,
}

/// How long a model took to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LoadReport {
    /// All in all.
    pub seconds: f64,
    /// Where the time of reading the weights went.
    pub times: LoadTimes,
    /// Memory of the worker's wasm module.
    pub wasm_bytes: f64,
}

/// Seconds of reading the weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LoadTimes {
    /// Waiting for bytes of the file.
    pub read: f64,
    /// Converting them and handing them to the device.
    pub write: f64,
    /// Waiting for the device.
    pub device: f64,
}

/// Answer to `engine.status`, and the `status` event. `T` is the engine's type of the kernels' settings. The popup does without the fields
/// that are not read (`skip_deserializing`), here and in what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields, concrete(T = Settings), bound = "T: 'static"))]
#[serde(bound(deserialize = ""))]
pub struct EngineStatus<T = ()> {
    /// The engine's state.
    pub state: EngineState,
    /// The model that is being loaded or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How its bytes come, where there are several ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Loaded part, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// The adapter that the engine runs on, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// The settings of the kernels, once known.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    #[cfg_attr(test, ts(as = "Option<Settings>"))]
    pub tuning: Option<T>,
    /// The settings that were found for this device, once known; null: none, the defaults are used.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    #[cfg_attr(test, ts(as = "Option<Option<Tuned>>"))]
    pub tuned: Option<Option<Tuned<T>>>,
    /// The loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// How that was loaded.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub load: Option<LoadReport>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Whether a model of the user's is the chosen one; the offscreen document tells it on asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// The sites that are being answered; the offscreen document tells them on asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
    /// The chosen model; the offscreen document tells it on asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
}

impl<T> EngineStatus<T> {
    /// Nothing but a state.
    pub fn new(state: EngineState) -> Self {
        Self {
            state,
            id: None,
            transport: None,
            progress: None,
            adapter: None,
            tuning: None,
            tuned: None,
            model: None,
            load: None,
            error: None,
            local: None,
            sites: None,
            chosen: None,
        }
    }
}

impl<T> Default for EngineStatus<T> {
    fn default() -> Self {
        Self::new(EngineState::default())
    }
}

/// The model that answers, or would.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Chosen {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// How the bytes of a model of the native host come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ModelList {
    /// All that can be chosen.
    pub data: Vec<Listed>,
    /// The id of the one that answers.
    pub chosen: String,
    /// Problems of the native host's models.
    pub problems: Vec<String>,
    /// The native host.
    pub host: HostState,
}

/// How the native host is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
#[serde(default)]
pub struct HostState {
    /// Why it does not answer.
    pub error: Option<Failure>,
}

/// Bytes on the device, and for what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
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
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Activity {
    /// Origins of the sites that are being answered.
    pub sites: Vec<String>,
}
