// The bench page and the worker's engine.bench, on the smallest shape. Speed is not tested.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Ajv2020 as Ajv } from "ajv/dist/2020.js";
import { CHROME, launch, ROOT } from "./harness.mjs";

/** Software rendering compiles every shader on the CPU. */
const T = { timeout: 300_000 };

/**
 * Where a value is not what a schema says.
 * @param {string} path  of the schema in the repository
 * @param {unknown} value
 */
async function misfit(path, value) {
  const validate = new Ajv().compile(JSON.parse(await readFile(join(ROOT, path), "utf8")));
  return validate(value) ? null : validate.errors;
}

/** @type {import("./harness.mjs").Browser} */
let browser;
before(async () => {
  browser = await launch();
  browser.context.setDefaultTimeout(T.timeout);
}, T);
after(() => browser.close());

test("the bench page measures a shape and draws the report", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  await page.evaluate(() => {
    Object.defineProperty(navigator, "clipboard", { value: { writeText(/** @type {string} */ text) { document.title = text; } } });
  });
  await page.selectOption("[name=shape]", "tiny");
  await page.selectOption("[name=quant]", "q8_0");
  for (const [name, value] of [["prompts", "4, 9"], ["tokens", "3"], ["runs", "1"]]) await page.fill(`[name=${name}]`, String(value));
  await page.click("#options button");
  await page.waitForFunction(() => !document.querySelector("button")?.disabled);
  assert.match(await page.locator("#report-title").textContent() ?? "", /^tiny with random weights, Q8_0/, await page.locator("#status").textContent() ?? "");
  assert.equal(await page.locator("#lengths tbody tr").count(), 2);
  assert.equal(await page.locator("#decode rect").count(), 2);

  await page.click("#copy");
  const report = JSON.parse(await page.title());
  assert.deepEqual(report.lengths.map((/** @type {any} */ { prompt_tokens, tokens }) => [prompt_tokens, tokens]), [[4, 3], [9, 3]]);
  assert.equal(report.browser, await page.evaluate(() => navigator.userAgent));
  assert.ok(report.wasm_bytes > 1e6 && report.device_bytes > 1e6, JSON.stringify(report));
});

test("what is not there is refused by name, and the engine goes on", T, async () => {
  const page = await browser.openOwn("options/options.html");
  const ask = (/** @type {object} */ params) => page.evaluate(async (params) => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    return (await connectEngine()).request("engine.bench", params).then(() => "measured", (/** @type {any} */ error) => `${error.name}: ${error.message}`);
  }, params);
  assert.match(await ask({ shape: "gpt-5" }), /^NotSupportedError: shape "gpt-5" .*llama-3\.2-1b/);
  assert.match(await ask({ shape: "tiny", quant: "q3" }), /^TypeError: params unknown variant `q3`.*q4_k_m/);
  assert.match(await ask({ shape: "tiny", runs: 0 }), /^TypeError: runs must be at least 1/);
  assert.match(await ask({}), /^TypeError: params missing field `shape`/);
});

test("the report is what its schema says, also of what came to a page", T, async () => {
  const params = { shape: "tiny", quant: "q8_0", prompts: [4], tokens: 3, runs: 1 };
  const { stdout } = await promisify(execFile)("node", [join(ROOT, "tests/bench/bench.mjs"), JSON.stringify(params), "--json"], { env: { ...process.env, CHROME } });
  const report = JSON.parse(stdout);
  assert.equal(await misfit("tests/bench/report.schema.json", report), null);
  assert.equal(report.page.tokens, 3);
  for (const figure of Object.values(report.page)) assert.ok(figure > 0, stdout);
});

test("engines are compared, and one that fails does not end the others", T, async () => {
  const params = { shape: "tiny", quant: "q8_0", prompts: "4,9", tokens: "3", rounds: "1", engines: "wllama,doppler" };
  const { stdout } = await promisify(execFile)("node", [join(ROOT, "tests/peers/compare.mjs"), JSON.stringify(params), "--json"], { env: { ...process.env, CHROME } });
  const comparison = JSON.parse(stdout);
  assert.equal(await misfit("tests/peers/comparison.schema.json", comparison), null);
  const [peer, ours] = comparison.engines;
  assert.deepEqual([ours.name, ours.error, ours.runs.length], ["doppler", null, 1]);
  assert.deepEqual(ours.runs[0].lengths.map((/** @type {any} */ { prompt_tokens }) => prompt_tokens), [4, 9]);
  // No file was named for it; without --peers its package is not even there.
  assert.deepEqual([peer.name, peer.runs.length], ["wllama", 0]);
  assert.notEqual(peer.error, null);
});
