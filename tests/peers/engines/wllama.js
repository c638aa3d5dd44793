// wllama: llama.cpp compiled to wasm, with its WebGPU backend.

import { randomNumbers, timeLengths } from "../timing.js";

const PACKAGE = "/tests/peers/node_modules/@wllama/wllama";

/**
 * @param {import("../timing.js").Asked} asked
 * @returns {Promise<import("../timing.js").Run>}
 */
export async function run(asked) {
  const { Wllama } = await import(`${PACKAGE}/esm/index.js`);
  const { version } = await (await fetch(`${PACKAGE}/package.json`)).json();
  if (!asked.model) throw new Error("wllama needs a GGUF file: ?model=URL");
  /** @type {string[]} */
  const lines = [];
  const keep = (/** @type {unknown[]} */ ...words) => void lines.push(words.join(" "));
  const wllama = new Wllama({ default: `${PACKAGE}/esm/wasm/wllama.wasm` }, { logger: { debug: keep, log: keep, warn: keep, error: keep } });
  // As for its users, the file is in the browser's own storage before it is loaded.
  const model = await wllama.modelManager.getModelOrDownload(new URL(asked.model, location.href).href);
  const begin = performance.now();
  await wllama.loadModel(model, { n_ctx: asked.context, n_parallel: 1 });
  const load_seconds = (performance.now() - begin) / 1e3;

  const lengths = await timeLengths(asked, async (length, seed) => {
    let first = 0;
    let last = 0;
    /** @type {{prompt_n: number, predicted_n: number} | undefined} */
    let timings;
    const start = performance.now();
    await wllama.createCompletion({
      prompt: prompt(length, seed), max_tokens: asked.tokens, temperature: 0, ignore_eos: true, cache_prompt: false, stream: true,
      onData(/** @type {any} */ chunk) {
        timings = chunk.timings ?? timings;
        if (chunk.choices[0].finish_reason) return;
        last = performance.now() - start;
        first ||= last;
      },
    });
    if (!timings) throw new Error("wllama told no timings");
    return { prompt_tokens: timings.prompt_n, tokens: timings.predicted_n, first, last };
  });
  await wllama.exit();
  return { version, backend: backend(lines), load_seconds, lengths };
}

/**
 * Where the layers went, from what llama.cpp says while loading.
 * @param {string[]} lines
 */
function backend(lines) {
  const offloaded = lines.map((line) => /offloaded (\d+)\/(\d+) layers/.exec(line)).find(Boolean);
  return offloaded && offloaded[1] !== "0" ? `WebGPU, ${offloaded[1]} of ${offloaded[2]} layers` : "CPU";
}

/**
 * Text of one token a letter: in the vocabulary of our shapes only "th" is one token.
 * @param {number} length
 * @param {number} seed
 */
function prompt(length, seed) {
  const below = randomNumbers(seed * 1e6 + length);
  return Array.from({ length }, () => "abcdefg "[below(7)]).join("");
}
