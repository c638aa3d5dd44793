// What the engine does around wgpu in a browser: pipelines made beforehand, and the matrices that a device shows.

import assert from "node:assert/strict";
import { test } from "node:test";

/** Pipelines that are being made. @type {{descriptor: any, end: (failed?: boolean) => void}[]} */
const begun = [];

class GPUDevice {
  /** @param {any} descriptor */
  createComputePipeline(descriptor) {
    return { descriptor };
  }

  /** @param {any} descriptor */
  createComputePipelineAsync(descriptor) {
    return new Promise((resolve, reject) => {
      begun.push({ descriptor, end: (failed) => failed ? reject(new Error("refused")) : resolve({ descriptor }) });
    });
  }
}

/** What the browser says of a shader. @type {string | null} */
let refusal = null;

class GPUAdapter {
  features = new Set(["subgroups", "chromium-experimental-subgroup-matrix"]);
  info = {
    subgroupMinSize: 32, subgroupMaxSize: 32,
    subgroupMatrixConfigs: [[16, 8, 16], [16, 16, 16]].map(([M, N, K]) => ({ componentType: "f16", resultComponentType: "f32", M, N, K })),
  };

  /** @param {{requiredFeatures?: string[]}} [descriptor] */
  async requestDevice({ requiredFeatures = [] } = {}) {
    return {
      features: new Set(requiredFeatures),
      pushErrorScope() {},
      createShaderModule: () => ({}),
      createComputePipelineAsync: async () => ({}),
      popErrorScope: async () => refusal && { message: refusal },
    };
  }
}

Object.assign(globalThis, { GPUDevice, GPUAdapter });
Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: 3 }, configurable: true });
/** @type {any} */
const features = await import(/** @type {any} */ ("../../engine/src/exec/gpu/web_features.js"));

const settled = () => new Promise((resolve) => setTimeout(resolve));

test("pipelines are made a few at once, and none after a stop", async () => {
  const device = new GPUDevice();
  features.notePipelines();
  for (let i = 0; i < 9; i++) device.createComputePipeline(i);
  const queue = features.makeNoted();
  assert.deepEqual(begun.map(({ descriptor }) => descriptor), [0, 1, 2]);
  assert.deepEqual(device.createComputePipeline("now"), { descriptor: "now" });
  begun[1]?.end();
  begun[0]?.end(true);
  await settled();
  assert.equal(begun.length, 5);
  queue.stop();
  for (const { end } of begun) end();
  const held = await queue.made;
  assert.equal(begun.length, 5, "a load that was given up begins none");
  assert.deepEqual(held.flat().filter(Boolean).map((/** @type {any} */ { descriptor }) => descriptor).sort(), [1, 2, 3, 4]);
});

test("matrices are offered with the shapes that the adapter lists, and what the browser says of those that kernels have", async () => {
  features.requestFeature("chromium-experimental-subgroup-matrix", true);
  refusal = "error: no matching call\n  subgroupMatrixLoad\n     ^";
  await new GPUAdapter().requestDevice();
  const offer = JSON.parse(features.matrixOffer());
  assert.deepEqual([offer.least, offer.most], [32, 32]);
  assert.deepEqual(offer.shapes.map((/** @type {any} */ { m, n, k, problem }) => [m, n, k, problem]), [
    [16, 8, 16, null], [16, 16, 16, "error: no matching call subgroupMatrixLoad"],
  ]);
  refusal = null;
  await new GPUAdapter().requestDevice();
  assert.equal(JSON.parse(features.matrixOffer()).shapes[1].problem, null);
  features.requestFeature("chromium-experimental-subgroup-matrix", false);
  await new GPUAdapter().requestDevice();
  assert.equal(features.matrixOffer(), undefined);
});
