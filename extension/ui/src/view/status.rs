//! What runs the answers: model, adapter, loading progress.

use crate::protocol::{Adapter, EngineState, EngineStatus, Failure, MESSAGES, Model};
use crate::state::State;
use crate::view::dom;
use wasm_bindgen::JsValue;
use web_sys::{HtmlElement, HtmlProgressElement};

/// The header's lines and the progress bar.
pub(crate) struct Status {
    model: HtmlElement,
    detail: HtmlElement,
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
            progress: dom::by_id("progress")?,
            sites: dom::by_id("sites")?,
            sites_text: dom::by_id("sites-text")?,
        })
    }

    /// Shows the engine's status.
    pub(crate) fn render(&self, state: &State) {
        let engine = &state.engine;
        dom::set_text(&self.model, &model_line(engine.model.as_ref()));
        let detail = detail_line(state.connected, engine);
        dom::set_text(&self.detail, &detail);
        self.detail.set_title(&detail);
        dom::show(&self.sites, !state.sites.is_empty());
        dom::set_text(&self.sites_text, &sites_line(&state.sites));
        dom::show(&self.progress, engine.state == EngineState::Loading);
        match engine.progress {
            Some(progress) => self.progress.set_value(progress),
            None => drop(self.progress.remove_attribute("value")),
        }
    }
}

/// Who is being answered besides the popup.
fn sites_line(sites: &[String]) -> String {
    let hosts: Vec<&str> = sites.iter().map(|origin| origin.split_once("://").map_or(origin.as_str(), |(_, host)| host)).collect();
    format!("Answers {}", hosts.join(", "))
}

fn model_line(model: Option<&Model>) -> String {
    let Some(model) = model else {
        return "DOPPLER".to_owned();
    };
    let name = if model.name.is_empty() { &model.id } else { &model.name };
    [name.as_str(), &model.quantization].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

fn detail_line(connected: bool, engine: &EngineStatus) -> String {
    match engine.state {
        _ if !connected => "Connecting to the engine…".to_owned(),
        EngineState::Idle => "Starts with your first question".to_owned(),
        EngineState::Loading => engine.progress.map_or_else(
            || "Loading the model…".to_owned(),
            |progress| {
                let slow = if engine.way.as_deref() == Some(MESSAGES) { ", slowly: the browser blocks the direct way" } else { "" };
                format!("Loading the model… {} %{slow}", (progress * 100.0).round() as u8)
            },
        ),
        EngineState::Ready => {
            let adapter = engine.adapter.as_ref().map(adapter_name).unwrap_or_default();
            if adapter.is_empty() { "Ready".to_owned() } else { format!("Runs on {adapter}") }
        }
        EngineState::Failed => engine.error.as_ref().map_or_else(|| "The engine could not start.".to_owned(), Failure::sentence),
    }
}

/// The most telling name a browser gives, with the vendor unless that is part of it.
fn adapter_name(adapter: &Adapter) -> String {
    let Adapter { vendor, architecture, device, description } = adapter;
    let name = [description, device, architecture].into_iter().find(|name| !name.is_empty());
    match name {
        None => vendor.clone(),
        Some(name) if name.to_ascii_lowercase().contains(&vendor.to_ascii_lowercase()) => name.clone(),
        Some(name) => format!("{vendor} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(model_line(None), "DOPPLER");
        let model = Model { id: "spark-28m".into(), quantization: "Q8_0".into(), ..Model::default() };
        assert_eq!(model_line(Some(&model)), "spark-28m · Q8_0");

        assert_eq!(sites_line(&["https://example.org".into(), "http://localhost:8000".into()]), "Answers example.org, localhost:8000");

        let mut engine = EngineStatus::default();
        assert_eq!(detail_line(false, &engine), "Connecting to the engine…");
        engine.state = EngineState::Loading;
        engine.progress = Some(0.426);
        assert_eq!(detail_line(true, &engine), "Loading the model… 43 %");
        engine.way = Some(MESSAGES.to_owned());
        assert_eq!(detail_line(true, &engine), "Loading the model… 43 %, slowly: the browser blocks the direct way");
        engine.state = EngineState::Ready;
        assert_eq!(detail_line(true, &engine), "Ready");
        let adapter = Adapter { vendor: "google".into(), architecture: "swiftshader".into(), ..Adapter::default() };
        engine.adapter = Some(adapter);
        assert_eq!(detail_line(true, &engine), "Runs on google swiftshader");

        let name = |vendor: &str, description: &str| {
            let (vendor, description) = (vendor.to_owned(), description.to_owned());
            adapter_name(&Adapter { vendor, description, ..Adapter::default() })
        };
        assert_eq!(name("nvidia", "NVIDIA H200"), "NVIDIA H200");
        assert_eq!(name("apple", "metal-3"), "apple metal-3");
        assert_eq!(name("intel", ""), "intel");
    }
}
