//! `log` and panics to the browser's console, and panics to the offscreen document, which starts another worker.

use serde::Serialize;
use serde_json::json;
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{DedicatedWorkerGlobalScope, console};

struct Console;

impl log::Log for Console {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = JsValue::from_str(&format!("{}: {}", record.target(), record.args()));
        match record.level() {
            log::Level::Error => console::error_1(&line),
            log::Level::Warn => console::warn_1(&line),
            _ => console::info_1(&line),
        }
    }

    fn flush(&self) {}
}

/// Sends warnings, errors and panics to the console from now on.
pub(crate) fn init() {
    std::panic::set_hook(Box::new(|panic| report(&panic.to_string())));
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// Says that the module is about to trap, and why.
fn report(panic: &str) {
    console::error_1(&JsValue::from_str(panic));
    let frame = json!({ "event": "fatal", "detail": { "message": panic } }).serialize(&Serializer::json_compatible());
    if let (Ok(frame), Ok(scope)) = (frame, js_sys::global().dyn_into::<DedicatedWorkerGlobalScope>()) {
        // There is nobody left to tell that this failed too.
        let _ = scope.post_message(&frame);
    }
}
