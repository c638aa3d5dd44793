//! The model switcher: what can be chosen, what is known of it, and what is being loaded.

use crate::call::Call;
use doppler_protocol::engine::{Listed, Model, ModelList, Source};
use doppler_protocol::error::Failure;
use doppler_protocol::native::ModelId;
use doppler_protocol::ui::{ListParams, Listing};

use super::Effect;

/// The list of models.
#[derive(Debug, Default)]
pub struct Switcher {
    /// Whether the list is on the screen.
    pub open: bool,
    /// The answer to the last `models.list` that was answered; `None`: not there yet.
    pub list: Option<ModelList>,
    /// Whether it has what the native host has.
    pub complete: bool,
    /// Number of the last `models.list`.
    asked: u32,
    /// Whether a model of the user's is the chosen one.
    pub local: bool,
    /// Descriptions of models, by their ids.
    pub described: Vec<(String, Result<Model, Failure>)>,
    /// The model that was chosen and is not loaded yet.
    pub choosing: Option<String>,
    /// The model that was chosen last and could not be loaded.
    pub refused: Option<String>,
    /// Models that were picked just now, and were not in the list before.
    new: Vec<String>,
}

/// Actions and answers about models.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelMsg {
    /// The list is opened.
    Open,
    /// The list is closed.
    Close,
    /// The `models.list` of this number was answered.
    Listed(u32, ModelList),
    /// A model was described, or cannot be.
    Described(String, Result<Model, Failure>),
    /// The user chooses a model.
    Choose(String),
    /// The user chooses a model with fewer tokens of context than it has.
    ChooseWith(String, u32),
    /// The browser was asked whether a picked model may be read.
    Permitted(String, bool),
    /// The chosen model is loaded, or could not be.
    Chosen(String, Result<(), Failure>),
    /// Models were picked or dropped.
    Picked(Vec<String>),
    /// The user takes a picked model off the list.
    Forget(String),
    /// It is off the list.
    Forgotten,
}

impl Switcher {
    /// The description of a model, once known.
    pub fn description(&self, id: &str) -> Option<&Result<Model, Failure>> {
        self.described.iter().find(|(known, _)| known == id).map(|(_, described)| described)
    }

    /// Applies what happened; a failure is for the alert.
    pub(super) fn update(&mut self, msg: ModelMsg) -> (Vec<Effect>, Option<Failure>) {
        let mut problem = None;
        let effects = match msg {
            ModelMsg::Open => {
                self.open = true;
                // A description that failed may succeed now.
                self.described.retain(|(_, described)| described.is_ok());
                vec![self.ask()]
            }
            ModelMsg::Close => {
                self.open = false;
                Vec::new()
            }
            // Later changes are in the answer that is still to come.
            ModelMsg::Listed(number, _) if number != self.asked => Vec::new(),
            ModelMsg::Listed(_, mut list) => {
                list.data.sort_by_cached_key(|model| (model.source != Source::Embedded, model.name.to_lowercase()));
                let chosen = list.data.iter().find(|model| model.id == list.chosen);
                self.local = chosen.is_none_or(|model| model.source != Source::Embedded);
                // The first list comes at once, the second has also the native host's models.
                self.complete = self.list.replace(list).is_some();
                if self.complete { self.describe_next() } else { vec![self.ask()] }
            }
            ModelMsg::Described(id, described) => {
                self.described.retain(|(known, _)| *known != id);
                self.described.push((id, described));
                self.describe_next()
            }
            ModelMsg::Choose(id) if self.choosing.as_ref() == Some(&id) => Vec::new(),
            ModelMsg::Choose(id) => {
                self.choosing = Some(id.clone());
                vec![if self.source(&id) == Some(Source::Picked) { Effect::Permit(id) } else { Effect::Call(Call::choose(id, None)) }]
            }
            ModelMsg::ChooseWith(id, context) => {
                self.choosing = Some(id.clone());
                vec![Effect::Call(Call::choose(id, Some(context)))]
            }
            // Another was chosen meanwhile.
            ModelMsg::Permitted(id, _) | ModelMsg::Chosen(id, _) if self.choosing.as_ref() != Some(&id) => Vec::new(),
            ModelMsg::Permitted(id, true) => vec![Effect::Call(Call::choose(id, None))],
            ModelMsg::Permitted(_, false) => {
                self.choosing = None;
                let message = "the browser may not read that file: choose it again and allow it".to_owned();
                problem = Some(Failure { message, ..Failure::default() });
                Vec::new()
            }
            ModelMsg::Chosen(id, result) => {
                // A description that failed may succeed now.
                self.described.retain(|(known, described)| described.is_ok() || *known != id);
                self.choosing = None;
                let new = self.new.contains(&id);
                self.new.clear();
                match result {
                    Ok(()) => {
                        self.refused = None;
                        vec![Effect::CloseModels, self.ask()]
                    }
                    Err(failure) => {
                        // A dropped file that is no model is not kept in the list.
                        let next = if new && failure.is_of_the_file() {
                            Effect::Call(Call::Forget(ModelId { id: id.clone() }))
                        } else {
                            self.ask()
                        };
                        self.refused = Some(id);
                        problem = Some(failure);
                        vec![next]
                    }
                }
            }
            ModelMsg::Picked(ids) => {
                let Some(id) = ids.first().cloned() else { return (Vec::new(), None) };
                self.new = ids.into_iter().filter(|id| self.source(id).is_none()).collect();
                self.choosing = Some(id.clone());
                vec![Effect::ShowModels, Effect::Call(Call::choose(id, None))]
            }
            ModelMsg::Forget(id) => vec![Effect::Call(Call::Forget(ModelId { id }))],
            ModelMsg::Forgotten => vec![self.ask()],
        };
        (effects, problem)
    }

    fn ask(&mut self) -> Effect {
        self.asked += 1;
        Effect::Call(Call::Models(self.asked, ListParams { host: self.list.is_some() }))
    }

    fn source(&self, id: &str) -> Option<Source> {
        self.find(id).map(|model| model.source)
    }

    fn find(&self, id: &str) -> Option<&Listed> {
        self.list.as_ref()?.data.iter().find(|model| model.id == id)
    }

    /// The name of a model, if it is in the list.
    pub fn name(&self, id: &str) -> Option<&str> {
        self.find(id).map(|model| model.name.as_str())
    }

    /// Asks about the first model of which nothing is known, one after the other and only while the list is open.
    fn describe_next(&self) -> Vec<Effect> {
        let unknown = |model: &&Listed| model.source != Source::Embedded && self.description(&model.id).is_none();
        let models = self.list.iter().filter(|_| self.open).flat_map(|list| &list.data);
        let call = |model: &Listed| Effect::Call(Call::Describe(Listing { id: model.id.clone(), bytes: model.bytes }));
        models.filter(unknown).take(1).map(call).collect()
    }
}
