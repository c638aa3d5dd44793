// Ours, as it times itself: the worker of the extension in this page. The weights are those of the GGUF file, made as they are read.

import { ask } from "../../gpu/worker.js";

/**
 * @param {import("../timing.js").Asked} asked
 * @returns {Promise<import("../timing.js").Run>}
 */
export async function run({ shape, quant, prompts, tokens, context }) {
  const { done: report } = await ask("engine.bench", { shape, quant, prompts, tokens, context, runs: 1 });
  return {
    version: report.version,
    backend: ["WebGPU", ...report.adapter.features].join(", "),
    load_seconds: report.load_seconds,
    lengths: report.lengths.map((/** @type {import("../timing.js").Length} */ length) => ({
      prompt_tokens: length.prompt_tokens,
      first_token_ms: length.first_token_ms,
      prefill_tokens_per_second: length.prefill_tokens_per_second,
      decode_tokens_per_second: length.decode_tokens_per_second,
    })),
  };
}
