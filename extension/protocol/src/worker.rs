//! Requests of the engine's worker to the offscreen document, besides the [messages](crate::native::FORWARDED) to the native host that are
//! forwarded.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::native::{ModelId, OpenedFile};
use crate::{Nothing, elsewhere, methods};

methods! {
    /// Opens a model: one of the native host is answered with a [`Launch`], one that the user picked with its files as blobs.
    OpenModel = "models.open": OpenParams => ModelBytes;
    /// Closes a model of the native host.
    CloseModel = "models.close": ModelId => Nothing;
    /// The tokens of the context that were chosen for a model; `None`: as many as usual.
    ModelContext = "models.context": ModelId => Option<u32>;
    /// The settings that are stored for a device.
    ReadTuning = "tuning.read": TunedDevice => Option<String>;
    /// Stores settings for a device, or deletes them.
    WriteTuning = "tuning.write": WriteTuningParams => Nothing;
    /// Deletes all stored settings.
    ClearTunings = "tuning.clear": Nothing => Nothing;
}

elsewhere! {
    /// A [`Launch`], or what the user picked: its blobs are not data.
    ModelBytes = "Launch | import(\"./picked.js\").OpenModel";
}

/// Parameters of [`OpenModel`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct OpenParams {
    /// Which model.
    pub id: String,
    /// Whether the worker has it open, and the connection broke. It is closed once for both.
    #[serde(default)]
    #[cfg_attr(test, ts(as = "Option<bool>", optional))]
    pub again: bool,
}

/// A model of the native host, open, and how to reach its bytes.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Launch {
    /// Its name for people.
    pub name: String,
    /// [`Greeting::base`](crate::native::Greeting::base).
    pub base: String,
    /// [`Greeting::token`](crate::native::Greeting::token).
    pub token: String,
    /// Its files, in their order.
    pub files: Vec<OpenedFile>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files at {}", self.files.len(), self.base) // the token stays secret
    }
}

/// A kind of device by what tells it from others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TunedDevice {
    /// Names and features.
    pub device: String,
}

/// Parameters of [`WriteTuning`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct WriteTuningParams {
    /// As [`TunedDevice::device`].
    pub device: String,
    /// The settings; `None`: none.
    pub text: Option<String>,
}
