//! Files of the user, through `extension/popup/files.js`.

use js_sys::{Array, Promise};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// The object `files` of that module.
    pub(crate) type Files;

    /// Lets the user pick; resolves to ids of models.
    #[wasm_bindgen(method)]
    pub(crate) fn pick(this: &Files, kind: &str) -> Promise;

    /// Calls `deliver` with a promise of ids whenever something is dropped.
    #[wasm_bindgen(method, js_name = watchDrops)]
    pub(crate) fn watch_drops(this: &Files, deliver: &JsValue);

    /// Asks for the permission to read a picked model; resolves to whether it was given.
    #[wasm_bindgen(method)]
    pub(crate) fn permit(this: &Files, id: &str) -> Promise;
}

/// An array of texts.
pub(crate) fn texts(array: &JsValue) -> Vec<String> {
    Array::from(array).iter().filter_map(|text| text.as_string()).collect()
}
