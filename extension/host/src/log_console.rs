//! `log` to the browser's console.

use wasm_bindgen::JsValue;
use web_sys::console;

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

/// Sends warnings and errors to the console from now on.
pub(crate) fn init() {
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}
