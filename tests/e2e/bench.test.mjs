// The bench page and the worker's engine.bench, on the smallest shape. Speed is not tested.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Ajv2020 as Ajv } from "ajv/dist/2020.js";
import { CHROME, launch, ROOT, until } from "./harness.mjs";

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
  const ask = (/** @type {object} */ params, method = "engine.bench") => page.evaluate(async ({ method, params }) => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    return (await connectEngine()).request(method, params).then(() => "measured", (/** @type {any} */ error) => `${error.name}: ${error.message}`);
  }, { method, params });
  assert.match(await ask({ shape: "gpt-5" }), /^NotSupportedError: shape "gpt-5" .*llama-3\.2-1b/);
  assert.match(await ask({ shape: "tiny", quant: "q3" }), /^TypeError: params unknown variant `q3`.*q4_k_m/);
  assert.match(await ask({ shape: "tiny", runs: 0 }), /^TypeError: runs must be at least 1/);
  assert.match(await ask({}), /^TypeError: params missing field `shape`/);
  assert.match(await ask({ shape: "gpt-5" }, "engine.tune"), /^NotSupportedError: shape "gpt-5"/);
  assert.match(await ask({ shape: "tiny", quant: "q8_0", prompts: [] }, "engine.tune"), /^TypeError: prompts must name a prompt/);
});

test("the bench page tunes; what it found is kept and in use until it is reset", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  const said = async (/** @type {RegExp} */ wanted) => {
    await page.locator("#tune-status").filter({ hasText: wanted }).waitFor();
    return await page.locator("#tune-status").textContent() ?? "";
  };
  const kept = () => page.evaluate(() => Object.entries(localStorage).filter(([name]) => name.startsWith("tuning ")));
  for (const [name, value] of [["prompt", 8], ["tokens", 4], ["runs", 1]]) await page.fill(`#tune [name=${name}]`, `${value}`);

  await page.click("#tune .main");
  await said(/^spark, setting 1 of \d+: the default settings\.$/);
  await page.click("#stop");
  await said(/^Stopped/);
  assert.deepEqual(await kept(), []);

  await page.click("#tune .main");
  await said(/^spark, setting 2 of \d+: matvec_\w+ \d+\.$/);
  assert.equal(await page.locator("#tune-progress").getAttribute("value"), "1");
  const result = await said(/^spark on .*tokens\/s/);
  const [found] = await kept();
  assert.equal(found !== undefined, / less time, in use from now on; /.test(result), result);
  assert.match(await page.locator("#tuning").textContent() ?? "", found ? /^Tuned for .*: \d+ % less time \(spark\)\.$/ : /default settings/);
});

test("what is kept for a device is in use after a restart and until it is reset, and does no harm where it is damaged", T, async () => {
  const page = await browser.openOwn("bench/bench.html");
  const ask = (/** @type {string} */ method, params = {}) => page.evaluate(async ({ method, params }) => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const engine = await connectEngine();
    return engine.request(method, params).finally(engine.close);
  }, { method, params });
  const keep = (/** @type {string} */ device, /** @type {object} */ tuned) => page.evaluate(
    ([name, text]) => localStorage.setItem(name, text), /** @type {const} */ ([`tuning ${device}`, JSON.stringify(tuned)]));
  const restarted = async () => {
    await browser.killOffscreen();
    await ask("tokens.count", { messages: [{ role: "user", content: "Hi" }] }); // loads the model
    return ask("engine.status");
  };

  await ask("engine.untune");
  const { adapter, tuning: defaults, tuned: none } = await restarted();
  assert.equal(none, null);
  const device = [adapter.vendor, adapter.description, ...adapter.features].join(", ");
  const choices = { matvec_workgroup: 64, matvec_workgroups: 1024, decode_workgroup: 64, decode_workgroups: 256, matmul_tiles: 1024, matmul_half: false };
  const tuned = { tuning: choices, since: Date.UTC(2026, 10, 23, 12), gain: 0.125, model: "spark" };

  await keep(device, { ...tuned, tuning: { ...choices, matvec_workgroups: 1023 } });
  const damaged = await restarted();
  assert.deepEqual([damaged.tuning, damaged.tuned], [defaults, null]);

  await keep(device, tuned);
  const kept = await restarted();
  assert.deepEqual([kept.tuning, kept.tuned], [choices, tuned]);
  await page.reload();
  assert.match(await page.locator("#tuning").textContent() ?? "", /^Tuned for .* on .*2026: 1[23] % less time \(spark\)\.$/);
  const options = await browser.openOwn("options/options.html");
  assert.match(await options.locator("#tuning").textContent() ?? "", /^Tuned for /);

  await page.click("#reset");
  // The model is loaded again by itself.
  await until(async () => {
    const status = await ask("engine.status");
    return status.state === "ready" && status.tuned === null;
  }, "the model with the defaults", T.timeout);
  assert.deepEqual((await ask("engine.status")).tuning, defaults);
  assert.match(await page.locator("#tuning").textContent() ?? "", /default settings/);
  await options.locator("#tuning").filter({ hasText: "default settings" }).waitFor();
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
