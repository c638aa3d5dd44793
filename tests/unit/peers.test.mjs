// The comparison's arithmetic and its table.

import assert from "node:assert/strict";
import { test } from "node:test";
import { medians } from "../peers/compare.js";
import { table } from "../peers/table.js";
import { timeLengths } from "../peers/timing.js";

/** @param {number} scale @returns {import("../peers/timing.js").Run} */
const run = (scale) => ({
  version: "1.2",
  backend: "WebGPU",
  load_seconds: scale,
  lengths: [64, 512].map((prompt_tokens) => ({
    prompt_tokens, first_token_ms: prompt_tokens * scale, prefill_tokens_per_second: 1e3 / scale, decode_tokens_per_second: 10 * scale,
  })),
});

test("an engine is given a prompt that is not counted, and figures are of the tokens that it counts", async () => {
  const asked = { shape: "s", quant: "q", prompts: [4, 8], tokens: 3, context: 16 };
  /** @type {number[][]} */
  const calls = [];
  const lengths = await timeLengths(asked, async (length, seed) => {
    calls.push([length, seed]);
    return { prompt_tokens: length + 1, tokens: 3, first: 50 * seed, last: 200 * seed };
  });
  assert.deepEqual(calls, [[4, 1], [4, 2], [8, 1], [8, 2]]);
  assert.deepEqual(lengths[0], { prompt_tokens: 5, first_token_ms: 100, prefill_tokens_per_second: 50, decode_tokens_per_second: 2 / 0.3 });
});

test("medians are taken field by field", () => {
  assert.equal(medians([]), null);
  const median = medians([run(3), run(1), run(2)]);
  assert.deepEqual(median, { load_seconds: run(2).load_seconds, lengths: run(2).lengths });
});

test("the table has a row an engine, also one that failed", () => {
  const measured = (/** @type {string} */ name, /** @type {ReturnType<typeof run>[]} */ runs, /** @type {string | null} */ error) => ({ name, runs, error, median: medians(runs) });
  const text = table({
    date: "2026-11-23T01:02:03Z", browser: "Mozilla/5.0 Chrome/156.0.0.0", shape: "s", quant: "q", prompts: [64, 512], tokens: 128, context: 4096,
    adapter: { vendor: "nvidia", architecture: "hopper", description: "H200", driver: null, features: ["shader-f16"] },
    engines: [measured("ours", [run(2)], null), measured("theirs", [], "no f16"), measured("third", [run(1)], "lost")],
  });
  assert.deepEqual(text.split("\n"), [
    "2026-11-23, Chrome/156.0.0.0, nvidia, hopper, H200, shader-f16; answers of 128 tokens, medians",
    "",
    "| s q | runs | decode after 512, tokens/s | prefill at 512, tokens/s | first token at 64, ms | load, s | by |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    "| ours 1.2 | 1 | 20.0 | 500 | 128.0 | 2.0 | WebGPU |",
    "| theirs |  |  |  |  |  | no f16 |",
    "| third 1.2 | 1 | 10.0 | 1000 | 64.0 | 1.0 | WebGPU; then: lost |",
  ]);
});
