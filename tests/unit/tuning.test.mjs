// What tuning found: how it is kept, and how it is said to people.

import assert from "node:assert/strict";
import { test } from "node:test";
import { changesText, matricesText, tunedText } from "../../extension/bench/report.js";
import { answer, tuningText } from "../../extension/shared/tunings.js";

/** As in a browser: the items are its own properties. @type {Record<string, string>} */
const items = {};
Object.defineProperties(items, {
  getItem: { value: (/** @type {string} */ name) => items[name] ?? null },
  setItem: { value: (/** @type {string} */ name, /** @type {string} */ text) => { items[name] = text; } },
  removeItem: { value: (/** @type {string} */ name) => { delete items[name]; } },
});
Object.assign(globalThis, { localStorage: items });

const text = JSON.stringify({ tuning: {}, since: Date.UTC(2026, 10, 23, 12), gain: 0.124, model: "spark" });

test("a text is kept for each device, and nothing else is touched", async () => {
  items.model = "picked-1";
  const [a, b] = [{ device: "nvidia, hopper", text }, { device: "google, swiftshader", text: "{}" }];
  assert.equal(await answer("tuning.read", a), null);
  await answer("tuning.write", a);
  await answer("tuning.write", b);
  assert.equal(await answer("tuning.read", a), text);
  await answer("tuning.write", { ...a, text: null });
  assert.deepEqual([await answer("tuning.read", a), await answer("tuning.read", b)], [null, "{}"]);
  await answer("tuning.write", a);
  await answer("tuning.clear", /** @type {any} */ ({}));
  assert.deepEqual(items, { model: "picked-1" });
  await assert.rejects(answer("tuning.steal", a), { code: "unknown_method" });
});

test("kept settings are shown, unless they are damaged", async () => {
  assert.equal(tuningText(), "The engine runs with its default settings.");
  for (const damaged of ["", "{", "null", "7", '{"since":"now","gain":1}', '{"since":1}']) {
    await answer("tuning.write", { device: "a", text: damaged });
    assert.equal(tuningText(), "The engine runs with its default settings.", damaged);
  }
  await answer("tuning.write", { device: "nvidia, hopper", text });
  assert.match(tuningText(), /^Tuned for nvidia, hopper on .*2026.*: 12 % less time \(spark\)\.$/);
});

test("settings found are shown with the speeds before and after", () => {
  const length = (/** @type {number} */ prefill, /** @type {number} */ decode) =>
    /** @type {any} */ ({ prompt_tokens: 512, prefill_tokens_per_second: prefill, decode_tokens_per_second: decode });
  const found = { adapter: { description: "hopper" }, model: "llama-3.2-1b", tuning: {}, before: [length(4000, 100)], after: [length(4400.4, 123.45)], gain: 0.1 };
  assert.equal(tunedText(found), "llama-3.2-1b on hopper: 10 % less time, in use from now on; "
    + "prefill of 512 tokens 4000 → 4400 tokens/s, decode 100.0 → 123.5 tokens/s.");
  assert.equal(tunedText({ ...found, after: found.before, gain: 0 }), "llama-3.2-1b on hopper: no setting is faster than the defaults; "
    + "prefill of 512 tokens 4000 tokens/s, decode 100.0 tokens/s.");
});

test("a setting is named by what differs from the defaults", () => {
  const defaults = { matmul_tiles: 16, matmul_half: false };
  assert.equal(changesText(defaults, { matmul_tiles: 64, matmul_half: true }), "matmul_tiles 64, matmul_half true");
  assert.equal(changesText(defaults, { ...defaults }), "the default settings");
});

test("matrices of subgroups that are shown are said, and why they are not used", () => {
  assert.equal(matricesText(null), "");
  const shapes = ["f16 16x16x16, sums f32", "f16 16x8x16, sums f32"];
  assert.equal(matricesText({ shapes, used: "f16 16x16x16, sums f32", unused_because: null }),
    "; subgroup matrices f16 16x16x16, sums f32 used (listed: f16 16x16x16, sums f32; f16 16x8x16, sums f32)");
  assert.equal(matricesText({ shapes: [], used: null, unused_because: "kernels have none of them" }),
    "; subgroup matrices not used, because kernels have none of them (listed: none)");
});
