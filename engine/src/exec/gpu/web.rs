//! What wgpu's web backend leaves out, asked of the browser directly.

use js_sys::Promise;
use wasm_bindgen::prelude::wasm_bindgen;

use super::matrices::Offer;

#[wasm_bindgen(module = "/src/exec/gpu/web_features.js")]
extern "C" {
    /// From the next device on, ask for this feature where the adapter offers it.
    #[wasm_bindgen(js_name = requestFeature)]
    pub(super) fn request_feature(name: &str, on: bool);

    /// Whether the newest device has the feature.
    #[wasm_bindgen(js_name = grantedFeature)]
    pub(super) fn granted_feature(name: &str) -> bool;

    /// Invocations in the smallest subgroup of the newest device's adapter.
    #[wasm_bindgen(js_name = subgroupMinSize)]
    pub(super) fn subgroup_min_size() -> u32;

    /// Whether the browser knows of WebGPU at all.
    #[wasm_bindgen(js_name = hasWebGpu)]
    pub(super) fn has_webgpu() -> bool;

    #[wasm_bindgen(js_name = matrixOffer)]
    fn matrix_offer() -> Option<String>;

    /// From now on pipelines are only noted, and what the device returns instead of one is not to be used.
    #[wasm_bindgen(js_name = notePipelines)]
    pub(super) fn note_pipelines();

    /// Ends that, and lets the browser's threads make what was noted.
    #[wasm_bindgen(js_name = makeNoted)]
    pub(super) fn make_noted() -> PipelineQueue;

    /// Pipelines that are being made.
    #[derive(Debug)]
    pub(super) type PipelineQueue;

    /// Holds what was made once all are; never fails.
    #[wasm_bindgen(method, getter)]
    pub(super) fn made(this: &PipelineQueue) -> Promise;

    /// Begins no more of them.
    #[wasm_bindgen(method)]
    pub(super) fn stop(this: &PipelineQueue);

    #[wasm_bindgen(js_name = adapterVendor)]
    fn adapter_vendor() -> String;

    #[wasm_bindgen(js_name = adapterDescription)]
    fn adapter_description() -> String;
}

/// The matrices that the newest device's subgroups multiply; `None`: the browser shows none.
pub(super) fn matrices() -> Option<Offer> {
    matrix_offer().and_then(|offer| serde_json::from_str(&offer).inspect_err(|problem| log::error!("{problem}: {offer}")).ok())
}

/// Vendor and description of the newest device's adapter.
pub(super) fn adapter_names() -> (String, String) {
    (adapter_vendor(), adapter_description())
}
