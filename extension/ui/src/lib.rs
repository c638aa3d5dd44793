//! The popup of DOPPLER: a chat with the engine that runs in the extension's offscreen document.
//!
//! ```text
//! popup.js ─▶ start ─▶ app ─┬─ state     what is shown; a pure function of messages (tested natively)
//!                           ├─ view      the elements of popup.html; built with createElement and text nodes only
//!                           ├─ files     models that the user picks or drops, through extension/popup/files.js
//!                           ├─ engine    requests and events over extension/shared/engine-port.js
//!                           └─ markdown  answers as a tree that cannot carry anything active (tested natively)
//! ```
//!
//! A message changes the state at once; the view follows at most once a frame, and touches only what differs.

mod app;
pub mod call;
mod engine;
mod files;
pub mod markdown;
pub mod speech;
pub mod state;
mod view;

use wasm_bindgen::prelude::*;

/// Starts the popup. `connect_engine` is the function of that name in `extension/shared/engine-port.js`, `files` the object in
/// `extension/popup/files.js`.
///
/// # Errors
/// When `popup.html` lacks an element.
#[wasm_bindgen]
pub fn start(connect_engine: js_sys::Function, files: JsValue) -> Result<(), JsValue> {
    app::App::start(connect_engine, files.unchecked_into())
}
