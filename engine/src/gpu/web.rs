//! What wgpu's web backend leaves out, asked of the browser directly.

use js_sys::Promise;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::kernels::SubgroupMatrix;

#[wasm_bindgen(module = "/src/gpu/web_features.js")]
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

    /// Whether the subgroups of the newest device multiply matrices of `side` x `side` with these elements, summing as `f32`, in
    /// the form that kernels use, and are all of one size.
    #[wasm_bindgen(js_name = multipliesMatrices)]
    fn multiplies_matrices(element: &str, side: u32) -> bool;

    /// From now on pipelines are made by the browser's threads, and what the device returns instead of one is not to be used.
    #[wasm_bindgen(js_name = beginPipelines)]
    pub(super) fn begin_pipelines();

    /// Ends that; the promise holds what was begun and never fails.
    #[wasm_bindgen(js_name = pipelinesBegun)]
    pub(super) fn pipelines_begun() -> Promise;

    #[wasm_bindgen(js_name = adapterVendor)]
    fn adapter_vendor() -> String;

    #[wasm_bindgen(js_name = adapterDescription)]
    fn adapter_description() -> String;
}

/// The matrices that the newest device's subgroups multiply, with or without half precision.
pub(super) fn subgroup_matrix(half: bool) -> Option<SubgroupMatrix> {
    let offered = |matrix: &SubgroupMatrix| multiplies_matrices(if matrix.half() { "f16" } else { "f32" }, matrix.side());
    let mut all = SubgroupMatrix::ALL.into_iter().filter(|matrix| half || !matrix.half());
    all.find(offered)
}

/// Vendor and description of the newest device's adapter.
pub(super) fn adapter_names() -> (String, String) {
    (adapter_vendor(), adapter_description())
}
