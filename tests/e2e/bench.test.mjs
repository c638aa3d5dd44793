// The bench page and the worker's engine.bench, on the smallest shape. Speed is not tested.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Ajv2020 as Ajv } from "ajv/dist/2020.js";
import { CHROME, launch, ROOT, within } from "./harness.mjs";

/** Software rendering compiles every shader on the CPU. */
const T = { timeout: 200_000 };
/** What one wait, or a program that starts a browser of its own, may take; in ms. */
const LIMIT = 120_000;
/** A program that measures compiles the pipelines of two models on the CPU, a minute and a half where nothing else runs. */
const REPORT = { timeout: 300_000 };
const REPORT_LIMIT = 420_000;

/**
 * Where a value is not what a schema says.
 * @param {string} path  of the schema in the repository
 * @param {unknown} value
 */
async function misfit(path, value) {
  const validate = new Ajv().compile(JSON.parse(await readFile(join(ROOT, path), "utf8")));
  return validate(value) ? null : validate.errors;
}

/**
 * Asks the engine from one of the extension's pages.
 * @param {import("playwright-core").Page} page
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<{chunks: any[], done: any}>}
 */
const ask = (page, method, params = {}) => page.evaluate(async ({ method, params }) => {
  const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
  const engine = await connectEngine();
  /** @type {any[]} */
  const chunks = [];
  const done = await engine.request(method, params, { onChunk: (/** @type {any} */ chunk) => chunks.push(chunk) }).finally(engine.close);
  return { chunks, done };
}, { method, params });

/**
 * What tuning found for the devices, as it is kept.
 * @param {import("playwright-core").Page} page
 * @returns {Promise<[string, string][]>}
 */
const kept = (page) => page.evaluate(() => Object.entries(localStorage).filter(([name]) => name.startsWith("tuning ")));

/**
 * What a program of the repository reports that measures in a browser of its own.
 * @param {string} program
 * @param {object} params
 */
async function reportOf(program, params) {
  const options = { env: { ...process.env, CHROME }, timeout: REPORT_LIMIT };
  const measured = promisify(execFile)("node", [join(ROOT, program), JSON.stringify(params), "--json"], options);
  const { stdout } = await within(measured, program, REPORT_LIMIT);
  return JSON.parse(stdout);
}

/** @type {import("./harness.mjs").Browser} */
let browser;
before(async () => {
  browser = await launch();
  browser.context.setDefaultTimeout(LIMIT);
}, T);
after(() => browser.close());

test("the bench page measures a shape and draws the report", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  await page.evaluate(() => {
    Object.defineProperty(navigator, "clipboard", { value: { writeText(/** @type {string} */ text) { document.title = text; } } });
  });
  await page.selectOption("[name=shape]", "tiny");
  await page.selectOption("[name=quant]", "q8_0");
  for (const [name, value] of [["prompts", "4, 9"], ["tokens", "3"], ["runs", "1"], ["streams", "1, 2"]]) await page.fill(`[name=${name}]`, String(value));
  await page.click("#options button");
  await page.waitForFunction(() => !document.querySelector("button")?.disabled);
  assert.match(await page.locator("#report-title").textContent() ?? "", /^tiny with random weights, Q8_0/, await page.locator("#status").textContent() ?? "");
  assert.equal(await page.locator("#lengths tbody tr").count(), 2);
  assert.equal(await page.locator("#decode rect").count(), 2);
  assert.deepEqual(await page.locator("#streams tbody td:last-child").allTextContents(), ["1 of 1", "2 of 2"]);

  await page.click("#copy");
  const report = JSON.parse(await page.title());
  assert.deepEqual(report.lengths.map((/** @type {any} */ { prompt_tokens, tokens }) => [prompt_tokens, tokens]), [[4, 3], [9, 3]]);
  assert.equal(report.browser, await page.evaluate(() => navigator.userAgent));
  assert.ok(report.wasm_bytes > 1e6 && report.device_bytes > 1e6, JSON.stringify(report));
});

test("unknown shapes and impossible numbers are refused by name", T, async () => {
  const page = await browser.openOwn("options/options.html");
  const refuses = (/** @type {string} */ method, /** @type {object} */ params, /** @type {RegExp} */ message) => assert.rejects(ask(page, method, params), { message });
  await refuses("engine.bench", { shape: "gpt-5" }, /NotSupportedError: shape "gpt-5" .*llama-3\.2-1b/);
  await refuses("engine.bench", { shape: "tiny", quant: "q3" }, /TypeError: params unknown variant `q3`.*q4_k_m/);
  await refuses("engine.bench", { shape: "tiny", runs: 0 }, /TypeError: runs must be at least 1/);
  await refuses("engine.bench", {}, /TypeError: params missing field `shape`/);
  await refuses("engine.tune", { shape: "gpt-5" }, /NotSupportedError: shape "gpt-5" .*llama-3\.2-1b/);
  await refuses("engine.tune", { shape: "tiny", tokens: 0 }, /TypeError: tokens must be at least 1/);
});

test("settings kept for a device are in use after a restart and until they are reset, and do no harm where they are damaged", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  /** How a new engine sets the device up. */
  const restarted = async () => {
    await browser.killOffscreen();
    await ask(page, "models.describe", { id: "spark-28m" });
    return (await ask(page, "engine.status")).done;
  };
  const { adapter, tuning: defaults, tuned: none } = await restarted();
  assert.equal(none, null);
  const name = `tuning ${[adapter.vendor, adapter.description, ...adapter.features].join(", ")}`;
  const keep = (/** @type {object} */ tuned) => page.evaluate(
    ([name, text]) => localStorage.setItem(name, text), /** @type {const} */ ([name, JSON.stringify(tuned)]));
  const choices = {
    matvec_workgroup: 64, matvec_workgroups: 1024, decode_workgroup: 64, decode_workgroups: 256, prefill_workgroups: 256, prefill_rows: 512,
    matmul_tiles: 1024, matmul_half: false, matmul_matrices: true, matmul_int8: true,
  };
  const tuned = { tuning: choices, since: Date.UTC(2026, 10, 23, 12), gain: 0.125, model: "spark" };

  await keep({ ...tuned, tuning: { ...choices, matvec_workgroups: 1023 } });
  const damaged = await restarted();
  assert.deepEqual([damaged.tuning, damaged.tuned], [defaults, null]);

  await keep(tuned);
  const found = await restarted();
  assert.deepEqual([found.tuning, found.tuned], [choices, tuned]);
  // Prompts are read with x in bytes, and are answered as transformers do.
  const { prompts } = JSON.parse(await readFile(join(ROOT, "tests/fixtures/spark/goldens-q8_0.json"), "utf8"));
  const golden = prompts.find((/** @type {any} */ { name }) => name === "category");
  const { results: [verified] } = (await ask(page, "engine.verify", { prompts: [golden] })).done;
  assert.ok(verified.greedy_equal && verified.logit_error < 2e-2, JSON.stringify(verified));
  await page.reload();
  assert.match(await page.locator("#tuning").textContent() ?? "", /^Tuned for .* on .*2026: 1[23] % less time \(spark\)\.$/);
  const options = await browser.openOwn("options/options.html");
  assert.match(await options.locator("#tuning").textContent() ?? "", /^Tuned for /);

  await page.click("#reset");
  await page.locator("#tune-status").filter({ hasText: "default settings" }).waitFor();
  await options.locator("#tuning").filter({ hasText: "default settings" }).waitFor();
  assert.deepEqual(await kept(page), []);
  const reset = await restarted();
  assert.deepEqual([reset.tuning, reset.tuned], [defaults, null]);

  // Measured are the defaults, and as nothing else is there is nothing faster: what was kept goes.
  await keep(tuned);
  const { chunks, done } = await ask(page, "engine.tune", { shape: "tiny", quant: "q8_0", prompts: [1], tokens: 2, runs: 1, trials: 1 });
  assert.deepEqual(chunks, [{ model: "tiny", trial: 1, trials: 1, tuning: defaults }]);
  assert.deepEqual([done.adapter, done.model, done.tuning, done.gain], [adapter, "tiny", defaults, 0]);
  assert.deepEqual(done.before.map((/** @type {any} */ { prompt_tokens, tokens }) => [prompt_tokens, tokens]), [[1, 2]]);
  assert.deepEqual(done.after, done.before);
  assert.deepEqual(await kept(page), []);
});

test("the report is what its schema says, also of what came to a page", REPORT, async () => {
  const params = { shape: "tiny", quant: "q8_0", prompts: [4], tokens: 3, runs: 1, streams: [2] };
  const report = await reportOf("tests/bench/bench.mjs", params);
  assert.equal(await misfit("tests/bench/report.schema.json", report), null);
  assert.equal(report.page.tokens, 3);
  for (const figure of Object.values(report.page)) assert.ok(figure > 0, JSON.stringify(report));
});

test("engines are compared, and one that fails does not end the others", REPORT, async () => {
  const params = { shape: "tiny", quant: "q8_0", prompts: "4,9", tokens: "3", rounds: "1", engines: "wllama,doppler" };
  const comparison = await reportOf("tests/peers/compare.mjs", params);
  assert.equal(await misfit("tests/peers/comparison.schema.json", comparison), null);
  const [peer, ours] = comparison.engines;
  assert.deepEqual([ours.name, ours.error, ours.runs.length], ["doppler", null, 1]);
  assert.deepEqual(ours.runs[0].lengths.map((/** @type {any} */ { prompt_tokens }) => prompt_tokens), [4, 9]);
  // No file was named for it; without --peers its package is not even there.
  assert.deepEqual([peer.name, peer.runs.length], ["wllama", 0]);
  assert.notEqual(peer.error, null);
});

// The last: a software GPU goes on compiling what is not wanted any more.
test("stopping the bench page's tuning changes nothing", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  const said = (/** @type {RegExp} */ wanted) => page.locator("#tune-status").filter({ hasText: wanted }).waitFor();
  await page.click("#tune .main");
  await said(/^spark, setting 1 of \d+: the default settings\.$/);
  assert.deepEqual(await page.evaluate(() => {
    const { value, max } = /** @type {HTMLProgressElement} */ (document.getElementById("tune-progress"));
    return [value, max > 1];
  }), [0, true]);
  await page.click("#stop");
  await said(/^Stopped/);
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Tune for this device");
  assert.deepEqual(await kept(page), []);
});
