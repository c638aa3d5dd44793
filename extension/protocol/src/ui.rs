//! Requests of the extension's own pages to the offscreen document, besides [conversations](crate::conversations) and those that go to the
//! [engine](crate::engine) as it is; and its events.

use serde::{Deserialize, Serialize};

use crate::engine::{Activity, EngineStatus, Model, ModelList};
use crate::native::ModelId;
use crate::{Nothing, events, methods};

methods! {
    /// The engine's status.
    GetStatus = "engine.status": Nothing => EngineStatus;
    /// The models that can be chosen.
    ListModels = "models.list": ListParams => ModelList;
    /// The chosen model.
    GetChosen = "models.chosen": Nothing => ChosenModel;
    /// Loads a model, and answers with it from then on.
    ChooseModel = "models.choose": Choice => Model;
    /// The properties of a model.
    DescribeModel = "models.describe": Listing => Model;
    /// Takes a picked model off the list.
    ForgetModel = "models.forget": ModelId => Nothing;
    /// Who is being answered or waits for that, and the memory that it takes.
    ListActivity = "activity.list": Nothing => ActivityList;
    /// Ends what a site, or the extension itself, is being answered.
    StopSite = "activity.stop": Site => Nothing;
}

events! {
    /// The engine's status changed.
    StatusChanged = "status": EngineStatus;
    /// Other sites are being answered than before.
    ActivityChanged = "activity": Activity;
}

/// Parameters of [`ListModels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ListParams {
    /// Whether also what the native host has, which takes it a while to find. Not said, it is wanted.
    #[cfg_attr(test, ts(as = "Option<bool>", optional))]
    pub host: bool,
}

/// Answer to [`GetChosen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ChosenModel {
    /// Its name for people.
    pub name: String,
    /// Its name for web pages.
    pub page: String,
    /// Whether it is the user's own.
    pub local: bool,
}

/// Parameters of [`ChooseModel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Choice {
    /// Which model.
    pub id: String,
    /// Tokens of its context, where memory lacks for as many as usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
}

/// Parameters of [`DescribeModel`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields = nullable))]
pub struct Listing {
    /// Which model.
    pub id: String,
    /// Bytes of its files, as listed: an answer for others is out of date.
    pub bytes: Option<f64>,
}

/// Answer to [`ListActivity`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ActivityList {
    /// The origins with open requests.
    pub origins: Vec<OriginActivity>,
    /// The loaded model.
    pub model: Option<Model>,
}

/// The conversations of an origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct OriginActivity {
    /// A site, or the extension itself.
    pub origin: String,
    /// Names of the models that answer, for people.
    pub models: Vec<String>,
    /// Conversations that are computed.
    pub running: u32,
    /// Those that wait.
    pub waiting: u32,
    /// Tokens that they have in the cache.
    pub tokens: u32,
    /// Tokens of their answers in a second, as it is now.
    pub tokens_per_second: f64,
}

/// Parameters of [`StopSite`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Site {
    /// Its origin.
    pub origin: String,
}
