//! The engine's status: model, adapter, loading progress.

use crate::state::State;
use crate::view::dom;
use doppler_protocol::engine::{Adapter, EngineState, Model, Transport};
use doppler_protocol::error::NO_GPU_SENTENCE;
use wasm_bindgen::JsValue;
use web_sys::{HtmlElement, HtmlProgressElement};

/// The header's lines and the progress bar.
pub(crate) struct Status {
    model: HtmlElement,
    detail: HtmlElement,
    help: HtmlElement,
    progress: HtmlProgressElement,
    sites: HtmlElement,
    sites_text: HtmlElement,
}

impl Status {
    /// Takes the elements from `popup.html`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn new() -> Result<Self, JsValue> {
        Ok(Self {
            model: dom::by_id("model")?,
            detail: dom::by_id("detail")?,
            help: dom::by_id("detail-help")?,
            progress: dom::by_id("progress")?,
            sites: dom::by_id("sites")?,
            sites_text: dom::by_id("sites-text")?,
        })
    }

    /// Shows the engine's status.
    pub(crate) fn render(&self, state: &State) {
        let engine = &state.engine;
        let model = model_line(state);
        dom::set_text(&self.model, &model);
        self.model.set_title(&format!("{model}: choose a model"));
        let detail = detail_line(state);
        dom::set_text(&self.detail, &detail);
        self.detail.set_title(&detail);
        dom::show(&self.sites, !state.sites.is_empty());
        dom::set_text(&self.sites_text, &sites_line(&state.sites));
        dom::show(&self.progress, engine.state == EngineState::Loading);
        let lacking = state.engine_failure().filter(|failure| failure.is_no_gpu());
        // One link is enough.
        dom::show(&self.help, state.connected && lacking.is_some_and(|failure| !state.is_told(failure)));
        match engine.progress.filter(|progress| *progress < LOADED) {
            Some(progress) => self.progress.set_value(progress),
            None => drop(self.progress.remove_attribute("value")),
        }
    }
}

/// Sites that are being answered.
fn sites_line(sites: &[String]) -> String {
    let hosts: Vec<&str> = sites.iter().map(|origin| origin.split_once("://").map_or(origin.as_str(), |(_, host)| host)).collect();
    format!("Answers {}", hosts.join(", "))
}

fn model_line(state: &State) -> String {
    let engine = &state.engine;
    if let Some(Model { id, name, quantization, .. }) = &engine.model {
        let name = if name.is_empty() { id } else { name };
        return [name.as_str(), quantization].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    }
    let loading = engine.id.as_ref().filter(|_| engine.state == EngineState::Loading).and_then(|id| state.models.name(id));
    let chosen = state.chosen.as_ref().map(|chosen| state.models.name(&chosen.id).unwrap_or(&chosen.name));
    loading.or(chosen).filter(|name| !name.is_empty()).unwrap_or("DOPPLER").to_owned()
}

/// From this part on all bytes are loaded, and what takes time is the compiling of kernels.
pub(crate) const LOADED: f64 = 0.995;

fn detail_line(state: &State) -> String {
    let engine = &state.engine;
    match engine.state {
        _ if !state.connected => "Connecting to the engine…".to_owned(),
        EngineState::Idle => "Starts with your first question".to_owned(),
        EngineState::Loading => match engine.progress {
            None => "Loading the model…".to_owned(),
            Some(LOADED..) => "Preparing the GPU…".to_owned(),
            Some(progress) => {
                let slow =
                    if engine.transport == Some(Transport::Messages) { ", slowly: the browser blocks the direct connection" } else { "" };
                format!("Loading the model… {} %{slow}", (progress * 100.0).round() as u8)
            }
        },
        EngineState::Ready => match &engine.adapter {
            Some(adapter) if is_software(adapter) => "Runs on the CPU, slowly: no GPU found".to_owned(),
            Some(adapter) if !adapter_name(adapter).is_empty() => format!("Runs on {}", adapter_name(adapter)),
            _ => "Ready".to_owned(),
        },
        EngineState::Failed => match state.engine_failure() {
            Some(failure) if failure.is_no_gpu() => NO_GPU_SENTENCE.trim_end_matches('.').to_owned(),
            Some(failure) if state.is_told(failure) => "The model could not be loaded".to_owned(),
            Some(failure) => failure.sentence(),
            None if engine.error.is_none() => "The engine could not start.".to_owned(),
            None => "Starts with your first question".to_owned(),
        },
    }
}

/// Whether the adapter is a program that does a GPU's work.
fn is_software(adapter: &Adapter) -> bool {
    let description = adapter.description.to_ascii_lowercase();
    ["swiftshader", "llvmpipe", "lavapipe", "microsoft basic render"].iter().any(|software| description.contains(software))
}

/// The adapter's description, with the vendor unless that is part of it.
fn adapter_name(Adapter { vendor, description, .. }: &Adapter) -> String {
    if description.is_empty() {
        vendor.clone()
    } else if description.to_ascii_lowercase().contains(&vendor.to_ascii_lowercase()) {
        description.clone()
    } else {
        format!("{vendor} {description}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Msg;
    use doppler_protocol::engine::{Chosen, EngineStatus};
    use doppler_protocol::error::Failure;

    fn state(engine: EngineStatus) -> State {
        let mut state = State::default();
        (state.connected, state.engine) = (true, engine);
        state
    }

    fn detail(engine: EngineStatus) -> String {
        detail_line(&state(engine))
    }

    #[test]
    fn status_lines_describe_sites_and_model() {
        assert_eq!(sites_line(&["https://example.org".into(), "http://localhost:8000".into()]), "Answers example.org, localhost:8000");

        let mut engine = EngineStatus::default();
        assert_eq!(model_line(&state(engine.clone())), "DOPPLER");
        let model = Model { id: "spark-28m".into(), quantization: "Q8_0".into(), ..Model::default() };
        let ready = EngineStatus { model: Some(model), ..EngineStatus::default() };
        assert_eq!(model_line(&state(ready)), "spark-28m · Q8_0");

        assert_eq!(detail_line(&State::default()), "Connecting to the engine…");
        engine.state = EngineState::Loading;
        engine.progress = Some(0.426);
        assert_eq!(detail(engine.clone()), "Loading the model… 43 %");
        engine.transport = Some(Transport::Messages);
        assert_eq!(detail(engine.clone()), "Loading the model… 43 %, slowly: the browser blocks the direct connection");
        engine.progress = Some(1.0);
        assert_eq!(detail(engine.clone()), "Preparing the GPU…", "the bytes are there, and nothing runs yet");
        engine.state = EngineState::Ready;
        assert_eq!(detail(engine.clone()), "Ready");
        engine.adapter = Some(Adapter { vendor: "google".into(), description: "swiftshader".into(), ..Adapter::default() });
        assert_eq!(detail(engine.clone()), "Runs on the CPU, slowly: no GPU found");
        engine.adapter = Some(Adapter { vendor: "nvidia".into(), description: "hopper".into(), ..Adapter::default() });
        assert_eq!(detail(engine), "Runs on nvidia hopper");
    }

    #[test]
    fn header_describes_chosen_model_once() {
        let error = |message: &str, code: &str| Failure { message: message.into(), code: code.into(), ..Failure::default() };
        let failed = |id: &str, error| EngineStatus {
            state: EngineState::Failed,
            id: Some(id.into()),
            error: Some(error),
            ..EngineStatus::default()
        };
        let mut state = state(failed("big", error("it needs 9 GB", "out_of_memory")));
        state.chosen = Some(Chosen { id: "spark".into(), name: "Spark 28M".into() });
        assert_eq!((model_line(&state), detail_line(&state)), ("Spark 28M".into(), "Starts with your first question".into()));

        state.chosen = Some(Chosen { id: "big".into(), name: "Big".into() });
        assert_eq!(detail_line(&state), "It needs 9 GB.");
        state.update(Msg::Refused(error("it needs 9 GB", "out_of_memory")));
        assert_eq!(detail_line(&state), "The model could not be loaded", "the alert says why");

        state.engine = failed("spark", error("noop support not compiled in, vulkan support not compiled in", "no_gpu"));
        assert_eq!(detail_line(&state), "This browser gives pages no GPU");
    }

    #[test]
    fn adapter_names_combine_vendor_and_description() {
        let name = |vendor: &str, description: &str| {
            let (vendor, description) = (vendor.to_owned(), description.to_owned());
            adapter_name(&Adapter { vendor, description, ..Adapter::default() })
        };
        assert_eq!(name("nvidia", "NVIDIA H200"), "NVIDIA H200");
        assert_eq!(name("apple", "metal-3"), "apple metal-3");
        assert_eq!(name("intel", ""), "intel");
    }
}
