// What wgpu's web backend does not know of, done around it.

// Features: it asks only for those that it knows. This asks for others, once per device.
const wanted = new Set();
let granted = new Set();
let info = null;

const SUBGROUP_MATRIX = "chromium-experimental-subgroup-matrix";

// Whether the browser has the feature in the form that kernels use: tiles of vectors, their order a template argument.
async function knowsOurMatrices(device) {
  device.pushErrorScope("validation");
  device.createShaderModule({
    code: `enable chromium_experimental_subgroup_matrix;
      var<workgroup> tile: array<vec4<f32>, 16>;
      @compute @workgroup_size(64) fn main() {
        _ = subgroupMatrixLoad<subgroup_matrix_left<f32, 8, 8>, row_major>(&tile, 0u, 2u);
      }`,
  });
  return (await device.popErrorScope()) === null;
}

const requestDevice = globalThis.GPUAdapter?.prototype.requestDevice;
if (requestDevice) {
  GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
    const extra = [...wanted].filter((name) => this.features.has(name));
    const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), ...extra])];
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures });
    granted = new Set(device.features);
    if (granted.has(SUBGROUP_MATRIX) && !(await knowsOurMatrices(device))) granted.delete(SUBGROUP_MATRIX);
    info = this.info;
    return device;
  };
}

export function requestFeature(name, on) {
  if (on) wanted.add(name);
  else wanted.delete(name);
}

export function grantedFeature(name) {
  return granted.has(name);
}

export function adapterVendor() {
  return info?.vendor ?? "";
}

export function adapterDescription() {
  return info?.description || info?.device || info?.architecture || "unknown adapter";
}

export function subgroupMinSize() {
  return info?.subgroupMinSize ?? 4; // the least that the specification allows
}

export function multipliesMatrices(element, side) {
  const { subgroupMinSize: size, subgroupMaxSize, subgroupMatrixConfigs = [] } = info ?? {};
  const ofOneSize = size === subgroupMaxSize && [8, 16, 32].includes(size);
  const isWanted = (config) =>
    config.componentType === element &&
    config.resultComponentType === "f32" &&
    [config.M, config.N, config.K].every((n) => n === side);
  return granted.has(SUBGROUP_MATRIX) && ofOneSize && [...subgroupMatrixConfigs].some(isWanted);
}

// Pipelines that are made asynchronously: wgpu waits for each, and the browser's GPU process does nothing else meanwhile.
let begun = null;

const createComputePipeline = globalThis.GPUDevice?.prototype.createComputePipeline;
if (createComputePipeline) {
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    if (!begun) return createComputePipeline.call(this, descriptor);
    begun.push(this.createComputePipelineAsync(descriptor));
    return {};
  };
}

export function beginPipelines() {
  begun = [];
}

export function pipelinesBegun() {
  const all = Promise.allSettled(begun);
  begun = null;
  return all;
}
