//! The list of models: a modal dialog over the chat.

use crate::state::State;
use crate::view::{dom, status::LOADED};
use doppler_protocol::engine::{EngineState, EngineStatus, Listed, Model, Source};
use doppler_protocol::error::{Failure, sentence};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Element, HtmlDialogElement, HtmlElement, HtmlProgressElement};

/// The dialog and its list.
pub(crate) struct Models {
    dialog: HtmlDialogElement,
    list: HtmlElement,
    alert: HtmlElement,
    alert_text: HtmlElement,
    load_with: HtmlElement,
    help: HtmlElement,
    hint: HtmlElement,
    /// The models whose items are in the list.
    shown: Vec<Listed>,
}

impl Models {
    /// Takes the elements from `popup.html`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn new() -> Result<Self, JsValue> {
        Ok(Self {
            dialog: dom::by_id("models")?,
            list: dom::by_id("model-list")?,
            alert: dom::by_id("models-alert")?,
            alert_text: dom::by_id("models-alert-text")?,
            load_with: dom::by_id("models-load-with")?,
            help: dom::by_id("models-help")?,
            hint: dom::by_id("models-hint")?,
            shown: Vec::new(),
        })
    }

    /// Whether the dialog is open.
    pub(crate) fn is_open(&self) -> bool {
        self.dialog.open()
    }

    /// Opens the dialog.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn open(&self) -> Result<(), JsValue> {
        if self.dialog.open() { Ok(()) } else { self.dialog.show_modal() }
    }

    /// Closes the dialog; the focus goes back to where it was.
    pub(crate) fn close(&self) {
        self.dialog.close();
    }

    /// Shows the list, if the dialog is open.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn render(&mut self, state: &State) -> Result<(), JsValue> {
        if !self.dialog.open() {
            return Ok(());
        }
        let problem = state.problem();
        dom::show(&self.alert, problem.is_some());
        dom::set_text(&self.alert_text, &problem.map(Failure::sentence).unwrap_or_default());
        dom::offer_context(&self.load_with, problem.and_then(|failure| state.fitting(failure)))?;
        dom::show(&self.help, problem.is_some_and(Failure::is_no_gpu));
        let Some(list) = &state.models.list else {
            dom::show(&self.hint, true);
            dom::set_text(&self.hint, "Looking for models…");
            return Ok(());
        };
        if self.shown != list.data {
            let focused = dom::document()?.active_element().and_then(|active| active.get_attribute("data-id"));
            self.list.replace_children_with_node_0();
            for model in &list.data {
                let item = item(model)?;
                self.list.append_child(&item)?;
                if focused.as_ref() == Some(&model.id) {
                    dom::find(&item, ".choose")?.focus()?;
                }
            }
            self.shown.clone_from(&list.data);
        }
        let items = self.list.children();
        for (index, model) in list.data.iter().enumerate() {
            if let Some(item) = items.item(index as u32) {
                update(&item, model, state)?;
            }
        }
        let looking = (!state.models.complete).then(|| "Looking for more models…".to_owned());
        let hint = [looking, list.host.error.as_ref().map(Failure::sentence)].into_iter().flatten().chain(list.problems.iter().cloned());
        let hint = hint.collect::<Vec<_>>().join(" ");
        dom::show(&self.hint, !hint.is_empty());
        dom::set_text(&self.hint, &hint);
        Ok(())
    }
}

fn item(model: &Listed) -> Result<HtmlElement, JsValue> {
    let item = dom::instantiate("model-item")?;
    dom::find(&item, ".choose")?.set_attribute("data-id", &model.id)?;
    dom::set_text(&*dom::find(&item, ".name")?, &model.name);
    let facts = [model.bytes.map(size), model.format.map(|format| format.name().to_owned())];
    dom::set_text(&*dom::find(&item, ".size")?, &facts.into_iter().flatten().collect::<Vec<_>>().join(" · "));
    let forget = dom::find(&item, ".forget")?;
    dom::show(&forget, model.source == Source::Picked);
    forget.set_attribute("data-id", &model.id)?;
    forget.set_attribute("aria-label", &format!("Take {} off the list", model.name))?;
    forget.set_title("Take off the list; the file stays");
    Ok(item)
}

/// The parts of an item that change.
fn update(item: &Element, model: &Listed, state: &State) -> Result<(), JsValue> {
    let choose = dom::find(item, ".choose")?;
    let chosen = state.models.list.as_ref().is_some_and(|list| list.chosen == model.id);
    if chosen { choose.set_attribute("aria-current", "true") } else { choose.remove_attribute("aria-current") }?;
    let choosing = state.models.choosing.as_ref() == Some(&model.id);
    let progress: HtmlProgressElement = dom::find(item, "progress")?.dyn_into()?;
    dom::show(&progress, choosing);
    match loaded_part(&state.engine, &model.id) {
        Some(part) if part < LOADED => progress.set_value(part),
        _ => progress.remove_attribute("value")?,
    }
    dom::set_text(&*dom::find(item, ".about")?, &about(model, choosing, state));
    let notes = dom::find(item, ".notes")?;
    let sentences = notes_of(model, state);
    dom::show(&notes, !sentences.is_empty());
    dom::set_text(&notes, &sentences);
    Ok(())
}

/// How much of a model is loaded, while it is.
fn loaded_part(engine: &EngineStatus, id: &str) -> Option<f64> {
    engine.progress.filter(|_| engine.state == EngineState::Loading && engine.id.as_deref() == Some(id))
}

fn about(model: &Listed, choosing: bool, state: &State) -> String {
    if choosing {
        return match loaded_part(&state.engine, &model.id) {
            None => "Waiting for the engine…".to_owned(),
            Some(LOADED..) => "Preparing the GPU…".to_owned(),
            Some(part) => format!("Loading… {} %", (part * 100.0).round() as u8),
        };
    }
    match state.models.description(&model.id) {
        _ if model.source == Source::Embedded => "Part of the extension: small, and there at once".to_owned(),
        None => "Reading its header…".to_owned(),
        // The alert says why.
        Some(Err(failure)) if state.is_told(failure) => "Cannot be loaded".to_owned(),
        Some(Err(failure)) => failure.sentence(),
        Some(Ok(described)) => facts(described),
    }
}

/// How a model differs from what its file says.
fn notes_of(model: &Listed, state: &State) -> String {
    let described = state.models.description(&model.id).and_then(|described| described.as_ref().ok());
    described.map(|described| described.notes.iter().map(|note| sentence(note)).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn facts(Model { architecture, quantization, parameters, memory, .. }: &Model) -> String {
    let parameters = match *parameters {
        few if few < 1e7 => format!("{:.1} M", few / 1e6),
        more if more < 1e9 => format!("{:.0} M", more / 1e6),
        many => format!("{:.1} B", many / 1e9),
    };
    let memory = size(memory.weights + memory.cache + memory.scratch);
    format!("{architecture}, {parameters} parameters, {quantization}, needs {memory} of graphics memory")
}

/// Bytes for people.
fn size(bytes: f64) -> String {
    match bytes {
        ..1e6 => format!("{:.0} kB", (bytes / 1e3).ceil()),
        ..1e9 => format!("{:.0} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doppler_protocol::engine::Memory;

    #[test]
    fn model_lines_describe_state() {
        let memory = Memory { weights: 4.9e9, cache: 0.5e9, scratch: 65e6 };
        let described = Model { architecture: "llama".into(), quantization: "Q4_K".into(), parameters: 8.03e9, memory, ..Model::default() };
        assert_eq!(facts(&described), "llama, 8.0 B parameters, Q4_K, needs 5.5 GB of graphics memory");
        let model = Listed { id: "a".into(), name: "a.gguf".into(), source: Source::Host, bytes: Some(30.4e6), format: None };
        assert_eq!([30.4e6, 17_000.0, 120.0].map(size), ["30 MB", "17 kB", "1 kB"]);
        let mut state = State::default();
        assert_eq!(about(&model, false, &state), "Reading its header…");
        assert_eq!(notes_of(&model, &state), "");
        let notes = vec!["2 tensors for pictures or sound are not used".into(), "the file states a context of 9 tokens".into()];
        state.models.described.push(("a".into(), Ok(Model { notes, ..Model::default() })));
        assert_eq!(notes_of(&model, &state), "2 tensors for pictures or sound are not used. The file states a context of 9 tokens.");
        state.models.described.clear();
        state.engine = EngineStatus { state: EngineState::Loading, id: Some("a".into()), progress: Some(0.426), ..EngineStatus::default() };
        assert_eq!(about(&model, true, &state), "Loading… 43 %");
        state.engine.progress = Some(1.0);
        assert_eq!(about(&model, true, &state), "Preparing the GPU…");
        state.engine.id = Some("b".into());
        assert_eq!(about(&model, true, &state), "Waiting for the engine…");
    }
}
