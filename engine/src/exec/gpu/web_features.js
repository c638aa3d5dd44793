// What wgpu's web backend does not know of, done around it.

// Features: it asks only for those that it knows. This asks for others, once per device.
const wanted = new Set();
let granted = new Set();
let info = null;
let offer = null;

const SUBGROUP_MATRIX = "chromium-experimental-subgroup-matrix";

// Why the browser refuses a shader that multiplies matrices of side x side as kernels do (tiles of vectors, their order a template
// argument), in one line; null: it does not.
async function problemOf(device, element, side) {
  const square = side * side;
  device.pushErrorScope("validation");
  const module = device.createShaderModule({
    code: `enable chromium_experimental_subgroup_matrix;
      ${element === "f16" ? "enable f16;" : ""}
      alias Sums = subgroup_matrix_result<f32, ${side}, ${side}>;
      var<workgroup> tile: array<vec4<${element}>, ${square / 4}>;
      var<workgroup> products: array<f32, ${square}>;
      @compute @workgroup_size(128) fn main() {
        let left = subgroupMatrixLoad<subgroup_matrix_left<${element}, ${side}, ${side}>, row_major>(&tile, 0u, ${side / 4}u);
        let right = subgroupMatrixLoad<subgroup_matrix_right<${element}, ${side}, ${side}>, col_major>(&tile, 0u, ${side / 4}u);
        subgroupMatrixStore<row_major>(&products, 0u, subgroupMatrixMultiplyAccumulate(left, right, Sums()), ${side}u);
      }`,
  });
  const made = device.createComputePipelineAsync({ layout: "auto", compute: { module } }).then(() => null, ({ message }) => message);
  const problem = (await device.popErrorScope())?.message ?? (await made);
  return problem && problem.trim().split(/\s*\n\s*/).slice(0, 2).join(" ").slice(0, 300);
}

// What the device's adapter lists; only square matrices are tried.
async function offerOf(device, { subgroupMinSize = 0, subgroupMaxSize = 0, subgroupMatrixConfigs = [] }) {
  const shapes = [];
  for (const { componentType: element, resultComponentType: sum, M: m, N: n, K: k } of subgroupMatrixConfigs) {
    const tried = ["f16", "f32"].includes(element) && m === n && n === k;
    shapes.push({ element, sum, m, n, k, problem: tried ? await problemOf(device, element, m) : null });
  }
  return { least: subgroupMinSize, most: subgroupMaxSize, shapes };
}

const requestDevice = globalThis.GPUAdapter?.prototype.requestDevice;
if (requestDevice) {
  GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
    const extra = [...wanted].filter((name) => this.features.has(name));
    const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), ...extra])];
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures });
    granted = new Set(device.features);
    info = this.info;
    offer = granted.has(SUBGROUP_MATRIX) ? await offerOf(device, info) : null;
    return device;
  };
}

export function hasWebGpu() {
  return globalThis.navigator?.gpu !== undefined;
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

// JSON, or undefined where the newest device has no such matrices.
export function matrixOffer() {
  return offer ? JSON.stringify(offer) : undefined;
}

// Pipelines that are made asynchronously: wgpu waits for each, and the browser's GPU process does nothing else meanwhile.
let noted = null;

const createComputePipeline = globalThis.GPUDevice?.prototype.createComputePipeline;
if (createComputePipeline) {
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    if (!noted) return createComputePipeline.call(this, descriptor);
    noted.push(() => this.createComputePipelineAsync(descriptor));
    return {};
  };
}

// As many are made at a time as there are processors: what is begun cannot be called off, and a device waits for it before it ends.
export class PipelineQueue {
  #waiting;

  constructor(waiting) {
    this.#waiting = waiting;
    const workers = Array.from({ length: navigator.hardwareConcurrency ?? 2 }, () => this.#work());
    this.made = Promise.all(workers);
  }

  // Why one was not made is told when it is asked for again.
  async #work() {
    const held = [];
    for (let make = this.#waiting.shift(); make; make = this.#waiting.shift()) {
      held.push(await make().catch(() => null));
    }
    return held;
  }

  stop() {
    this.#waiting.length = 0;
  }
}

export function notePipelines() {
  noted = [];
}

export function makeNoted() {
  const queue = new PipelineQueue(noted);
  noted = null;
  return queue;
}
