//! `log` and panics to the browser's console, and panics to the offscreen document, which starts another worker.

use doppler_protocol::Event;
use doppler_protocol::engine::{Fatal, Reason};
use doppler_protocol::frames::Told;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{DedicatedWorkerGlobalScope, console};

use crate::frames::to_js;

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
    let frame = to_js(&Told { event: Fatal::NAME, detail: Reason { message: panic.to_owned() } });
    if let (Ok(frame), Ok(scope)) = (frame, js_sys::global().dyn_into::<DedicatedWorkerGlobalScope>()) {
        // If this fails too, there is no other way to report it.
        let _ = scope.post_message(&frame);
    }
}
