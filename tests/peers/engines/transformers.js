// transformers.js: ONNX Runtime, with its WebGPU backend.

import { timeLengths, randomNumbers } from "../timing.js";

const PACKAGE = "/tests/peers/node_modules/@huggingface/transformers";
const RUNTIME = "/tests/peers/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify";

/**
 * @param {import("../timing.js").Asked} asked
 * @returns {Promise<import("../timing.js").Run>}
 */
export async function run(asked) {
  const { AutoModelForCausalLM, Tensor, env } = await import(`${PACKAGE}/dist/transformers.web.js`);
  const { version } = await (await fetch(`${PACKAGE}/package.json`)).json();
  if (!asked.onnx) throw new Error("transformers.js needs a folder with an ONNX model: --onnx DIR");
  const folder = new URL(asked.onnx.replace(/\/*$/, ""), location.href);
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, useBrowserCache: false, useWasmCache: false, localModelPath: new URL(".", folder).href });
  env.backends.onnx.wasm.wasmPaths = { mjs: `${location.origin}${RUNTIME}.mjs`, wasm: `${location.origin}${RUNTIME}.wasm` };
  const begin = performance.now();
  const model = await AutoModelForCausalLM.from_pretrained(folder.pathname.split("/").at(-1), {
    dtype: "q4f16", device: "webgpu", local_files_only: true, use_external_data_format: true,
  });
  const load_seconds = (performance.now() - begin) / 1e3;

  const lengths = await timeLengths(asked, async (length, seed) => {
    const below = randomNumbers(seed * 1e6 + length);
    /** @type {number[]} */
    const times = [];
    let puts = 0;
    const start = performance.now();
    // The first that a streamer is given is the prompt.
    const streamer = { put() { if (puts++) times.push(performance.now() - start); }, end() {} };
    await model.generate({
      inputs: new Tensor("int64", BigInt64Array.from({ length }, () => BigInt(below(2000))), [1, length]),
      attention_mask: new Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]),
      max_new_tokens: asked.tokens, do_sample: false, eos_token_id: 2 ** 31 - 1, streamer,
    });
    return { prompt_tokens: length, tokens: times.length, first: times[0] ?? NaN, last: times.at(-1) ?? NaN };
  });
  return { version, backend: "WebGPU, q4f16", load_seconds, lengths };
}
