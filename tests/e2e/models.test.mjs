// The user's own models: through the native host, which is the real one, and through files that the browser was given.
// A tiny llama of random weights, of which the reference outputs are known, stands for a model wherever Spark is not needed.

import assert from "node:assert/strict";
import { copyFile, cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { copyExtension, launch, ROOT, until } from "./harness.mjs";
import { widen } from "./fixtures/wide-spark.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */

/** A software GPU compiles every shader on the CPU. */
const T = { timeout: 150_000 };
/** What one wait may take; in ms. */
const LIMIT = 100_000;
const SPARK = join(ROOT, "extension/models/spark-28m-q8_0.gguf");
const TINY = join(ROOT, "tests/fixtures/tiny/tiny-q4_0");
const FOLDER = join(ROOT, "tests/fixtures/folders/llama");

/** @type {{messages: any[], tools: object[] | null, continuation_text: string}} */
const golden = JSON.parse(await readFile(join(ROOT, "tests/fixtures/spark/goldens-q8_0.json"), "utf8")).prompts
  .find((/** @type {{name: string}} */ { name }) => name === "category");
const tiny = JSON.parse(await readFile(`${TINY}.json`, "utf8"));

/** What the native host may read. @type {string} */
let models;
/** @type {Browser} */
let browser;
before(async () => {
  models = await mkdtemp(join(tmpdir(), "doppler-models-"));
  await copyFile(SPARK, join(models, "my spark.gguf"));
  await widen(SPARK, join(models, "wide.gguf"));
  await copyFile(`${TINY}.gguf`, join(models, "secret-project.gguf"));
  await cp(FOLDER, join(models, "folder"), { recursive: true });
  browser = await launch({ host: models });
  browser.context.setDefaultTimeout(LIMIT);
}, T);
after(async () => {
  await browser.close();
  await rm(models, { recursive: true });
});

// The permission for a picked file ends with the last tab of the extension, which one that a failed test left open would be.
afterEach(() => browser.closePages());

/**
 * One of the extension's own pages, connected to the engine: `seen` fills with its statuses.
 * @param {Browser} [of]
 */
async function connect(of = browser) {
  const page = await of.openOwn("options/options.html");
  await page.evaluate(async () => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const w = /** @type {any} */ (window);
    w.seen = [];
    w.engine = await connectEngine({ onEvent: (/** @type {string} */ event, /** @type {any} */ detail) => event === "status" && w.seen.push(detail) });
  });
  return page;
}

/**
 * @param {Page} page  of `connect`
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<any>}  the answer, or its error
 */
const ask = (page, method, params = {}) => page.evaluate(({ method, params }) => /** @type {any} */ (window).engine.request(method, params)
  .catch((/** @type {any} */ { name, code, message }) => ({ error: { name, code, message } })), { method, params });

/**
 * @param {Page} page  of `connect`
 * @param {string} name
 * @returns {Promise<string>}
 */
async function idOf(page, name) {
  const { data } = await ask(page, "models.list");
  return data.find((/** @type {any} */ model) => model.name === name)?.id ?? assert.fail(`${name} is not among ${JSON.stringify(data)}`);
}

/**
 * Holds a model against its reference outputs.
 * @param {Page} page  of `connect`
 * @param {string} model
 */
async function assertTiny(page, model) {
  const { results, error } = await ask(page, "engine.verify", { model, ...tiny });
  assert.equal(error, undefined);
  for (const result of results) assert.ok(result.logit_error < 2e-3, JSON.stringify(result));
}

/**
 * Begins to load a model that takes a while, and waits until its weights are being read.
 * @param {Page} page  of `connect`
 */
async function catchInLoad(page) {
  const id = await idOf(page, "wide.gguf");
  // One that is loaded at once takes its place first.
  await ask(page, "models.choose", { id: await idOf(page, "folder") });
  const loading = page.evaluate((id) => {
    const w = /** @type {any} */ (window);
    w.seen = [];
    return w.engine.request("models.choose", { id })
      .catch((/** @type {any} */ { name, code, message }) => ({ error: { name, code, message } }));
  }, id);
  await page.waitForFunction((id) => /** @type {any} */ (window).seen.some((/** @type {any} */ status) => status.id === id), id);
  return { id, loading };
}

/** The popup in a tab, ready for what is dropped: before the list is open nobody listens, and the browser would open the file instead. */
async function openList() {
  const popup = await browser.openOwn("popup/popup.html#models");
  await popup.locator("#models[open]").waitFor();
  return popup;
}

/**
 * Drops something on the popup, which then collects its garbage: handles that nobody holds are gone, and permissions with them.
 * @param {Page} popup
 * @param {string} file  or a folder
 */
async function drop(popup, file) {
  const cdp = await browser.context.newCDPSession(popup);
  const data = { items: [], files: [file], dragOperationsMask: 1 };
  const noticed = () => popup.evaluate(() => /** @type {any} */ (window).dropped);
  await popup.evaluate(() => {
    /** @type {any} */ (window).dropped = false;
    addEventListener("drop", () => { /** @type {any} */ (window).dropped = true; }, { once: true, capture: true });
  });
  // What comes from here is not always delivered to a page that has just opened.
  for (let attempt = 0; attempt < 3 && !await noticed(); attempt++) {
    for (const type of /** @type {const} */ (["dragEnter", "dragOver", "drop"])) await cdp.send("Input.dispatchDragEvent", { type, x: 200, y: 300, data });
    await until(noticed, "the drop", 2000).catch(({ message }) => console.log(`${message} ${popup.url()}`));
  }
  for (let times = 0; times < 10; times++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    await cdp.send("HeapProfiler.collectGarbage");
  }
  await cdp.detach();
}

/** Waits until the choice is loaded. @param {Page} popup */
async function listCloses(popup) {
  const refusal = popup.locator("#models-alert:not([hidden])");
  await popup.locator("#models:not([open])").or(refusal).first().waitFor({ state: "attached" })
    .catch(async () => assert.fail(`The list stays open: ${await popup.locator("body").innerText()}`));
  assert.equal(await refusal.count() && await refusal.innerText(), 0);
}

test("the host's models are listed, described from their headers, and answer like the embedded one", T, async () => {
  const page = await connect();
  const { data, chosen, problems, host } = await ask(page, "models.list");
  assert.deepEqual(data.map((/** @type {any} */ { name, source, format }) => `${source} ${format} ${name}`).toSorted(), [
    "embedded undefined Spark 28M", "host gguf my spark.gguf", "host gguf secret-project.gguf", "host gguf wide.gguf", "host safetensors folder",
  ]);
  assert.deepEqual([chosen, problems, host], ["spark-28m", [], {}]);
  assert.ok(!JSON.stringify(data).includes(models), "no path is told");

  const id = await idOf(page, "my spark.gguf");
  const described = await ask(page, "models.describe", { id });
  assert.deepEqual([described.architecture, described.quantization, described.parameters], ["llama", "Q8_0", 28_320_256]);
  assert.equal((await ask(page, "engine.status")).state, "idle", "nothing was loaded for that");

  const loaded = await ask(page, "models.choose", { id });
  assert.deepEqual(loaded, described, "what was foretold is what it took");
  const { state, transport, model } = await ask(page, "engine.status");
  assert.deepEqual([state, transport, model.id], ["ready", "loopback", id]);
  const answer = await ask(page, "chat.completions", { messages: golden.messages, temperature: 0, max_tokens: 64 });
  assert.equal(answer.choices[0].message.content, golden.continuation_text);
  assert.equal((await ask(page, "models.list")).chosen, id);
  await until(async () => await browser.readers() === 0, "the readers to end");
  await page.close();
});

test("a model has the context that was chosen with it, also after the engine ended, until it is chosen without", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  assert.equal((await ask(page, "models.choose", { id, context: 0.5 })).error.code, "invalid_request");
  assert.equal((await ask(page, "models.choose", { id, context: 160 })).context, 160);
  await browser.killOffscreen();
  const next = await connect();
  // Counting loads the model first.
  await ask(next, "tokens.count", { messages: [{ role: "user", content: "hi" }] });
  assert.equal((await ask(next, "engine.status")).model.context, 160);
  const usual = (await ask(next, "models.choose", { id })).context;
  assert.ok(usual > 160, `${usual}`);
  assert.equal((await ask(next, "models.choose", { id })).context, usual);
  await ask(next, "models.choose", { id: "spark-28m" });
});

test("a file and a folder give what their references say; what cannot be opened leaves the old model in place", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  await assertTiny(page, id);
  const folder = await ask(page, "models.choose", { id: await idOf(page, "folder") });
  assert.equal(folder.architecture, "llama");
  const missing = await ask(page, "models.choose", { id: "0".repeat(32) });
  assert.equal(missing.error.code, "not_found");
  assert.equal((await ask(page, "engine.status")).model.id, folder.id);
  assert.equal((await ask(page, "models.list")).chosen, folder.id);
  await page.close();
});

test("the host is killed in mid-load: the load goes on with the next one", T, async () => {
  const page = await connect();
  const { id, loading } = await catchInLoad(page);
  const [host = assert.fail("no host runs")] = await browser.hosts();
  process.kill(host, "SIGKILL");
  assert.equal((await loading).id, id);
  assert.notDeepEqual(await browser.hosts(), [host], "another one served the rest");
  await page.close();
});

test("the service worker is killed in mid-load, and the host with it: the load goes on", T, async () => {
  const page = await connect();
  const { id, loading } = await catchInLoad(page);
  const [host] = await browser.hosts();
  assert.ok(host && await browser.killServiceWorker());
  assert.equal((await loading).id, id);
  assert.notDeepEqual(await browser.hosts(), [host], "another one served the rest");
  await page.close();
});

test("another model is chosen in mid-load: it does not wait for the first", T, async () => {
  const page = await connect();
  const { id, loading } = await catchInLoad(page);
  const other = await idOf(page, "secret-project.gguf");
  assert.equal((await ask(page, "models.choose", { id: other })).id, other);
  assert.equal((await loading).error?.code, "model_switched");
  assert.equal((await ask(page, "models.list")).chosen, other);
  const seen = await page.evaluate(() => /** @type {any} */ (window).seen);
  assert.ok(!seen.some((/** @type {any} */ { state, model }) => state === "ready" && model.id === id), "the first was never loaded");
  await page.close();
});

test("a model chosen again while it answers and another waits goes on without a second load", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  await ask(page, "models.choose", { id });
  // More than it can answer before it is told to stop.
  const prompts = Array.from({ length: 100 }, () => tiny.prompts).flat();
  const answering = page.evaluate((params) => {
    const w = /** @type {any} */ (window);
    w.stop = new AbortController();
    return w.engine.request("engine.verify", params, { signal: w.stop.signal })
      .then(() => "all answered", (/** @type {any} */ { code }) => code);
  }, { model: id, prompts });
  // At once, then when the other's file is open.
  for (const opened of [false, true]) {
    await page.evaluate(() => { /** @type {any} */ (window).seen = []; });
    const other = await idOf(page, "folder");
    const loading = ask(page, "models.choose", { id: other });
    // To describe it opens it once more, later.
    if (opened) await ask(page, "models.describe", { id: other });
    assert.equal((await ask(page, "models.choose", { id })).id, id);
    assert.equal((await loading).error?.code, "model_switched");
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).seen), [], "nothing was loaded");
    assert.equal((await ask(page, "models.list")).chosen, id);
  }
  await page.evaluate(() => /** @type {any} */ (window).stop.abort());
  assert.equal(await answering, "aborted");
  assert.equal((await ask(page, "models.choose", { id: "spark-28m" })).id, "spark-28m", "another takes its place as ever");
  await page.close();
});

test("a load is given up while the host says nothing: who reads for it ends at once", T, async () => {
  const page = await connect();
  const { loading } = await catchInLoad(page);
  const [host = assert.fail("no host runs")] = await browser.hosts();
  process.kill(host, "SIGSTOP");
  try {
    await until(async () => await browser.readers() > 0, "a reader");
    assert.equal((await ask(page, "models.choose", { id: "spark-28m" })).id, "spark-28m");
    assert.equal((await loading).error?.code, "model_switched");
    await until(async () => await browser.readers() === 0, "the readers to end");
  } finally {
    process.kill(host, "SIGCONT");
  }
  await page.close();
});

test("another model is chosen in mid-load that cannot be opened: the load goes on", T, async () => {
  const page = await connect();
  const { id, loading } = await catchInLoad(page);
  const missing = await ask(page, "models.choose", { id: "0".repeat(32) });
  assert.equal(missing.error.code, "not_found");
  assert.equal((await loading).id, id);
  assert.equal((await ask(page, "models.list")).chosen, id);
  assert.equal((await ask(page, "engine.status")).model.id, id);
  assert.ok((await ask(page, "tokens.count", { messages: golden.messages })).tokens > 0, "it answers");
  await page.close();
});

test("the file is replaced in mid-load: an error, never mixed weights, and the next load has the new ones", T, async () => {
  const page = await connect();
  const file = join(models, "wide.gguf");
  await copyFile(`${TINY}.gguf`, `${file}.new`);
  const { id, loading } = await catchInLoad(page);
  await rename(file, `${file}.old`);
  await rename(`${file}.new`, file);
  const { error } = await loading;
  assert.equal(error?.code, "model_changed");
  assert.match(error.message, /wide\.gguf was changed while it was read/);
  await assertTiny(page, id);
  await rename(`${file}.old`, file);
  await page.close();
});

test("a page sees one model under a name that says nothing, and reaches nothing of the host", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  const site = await browser.open(browser.localhost);
  assert.equal(await browser.grant(site, "always"), "granted");
  await ask(page, "models.choose", { id: "spark-28m" });
  await site.evaluate(() => doppler.models.list());
  await ask(page, "models.choose", { id });
  await site.waitForFunction('events.some(({ type, detail }) => type === "modelchange" && detail.model === "local")');
  const events = await site.evaluate("events");
  const seen = await site.evaluate(async (id) => {
    const refused = (/** @type {Promise<unknown>} */ asked) => asked.then((done) => JSON.stringify(done), (/** @type {any} */ { reason }) => reason);
    const messages = [{ role: /** @type {const} */ ("user"), content: "Hi" }];
    return {
      list: await doppler.models.list(),
      foreign: await refused(doppler.chat.completions.create({ messages, model: id })),
      other: await refused(doppler.chat.completions.create({ messages, model: "spark-28m" })),
      own: await refused(doppler.chat.completions.create({ messages, model: "local", max_tokens: 1 })),
    };
  }, id);
  assert.deepEqual(seen.list.data.map(({ id }) => id), ["local"]);
  assert.deepEqual([seen.foreign, seen.other], ["model_not_found", "model_not_found"]);
  assert.doesNotMatch(seen.own, /model_not_found/);
  const text = JSON.stringify([seen, events]);
  assert.ok(!text.includes("secret-project") && !text.includes(id), text);

  // What the page's process could do if it were taken over.
  for (const method of ["models.list", "models.open", "read"]) {
    const answer = await browser.inBridge(site, `chrome.runtime.sendMessage({ to: "background", method: "${method}", params: { id: "${id}" } })`);
    assert.equal(answer.error.code, "forbidden");
  }
  // A page's own `read` says how many parts it has read. The host's is not behind it: its parameters end the connection.
  for (const method of ["models.choose", "models.describe", "models.load", "models.open", "read"]) {
    const code = await browser.inBridge(site, `new Promise((resolve) => {
      const port = chrome.runtime.connect({ name: "doppler" });
      port.onMessage.addListener(({ id, error }) => id === 1 && resolve(error?.code));
      port.onDisconnect.addListener(() => resolve("disconnected"));
      port.postMessage({ id: 1, method: "${method}", params: { id: "${id}" } });
    })`);
    assert.equal(code, method === "read" ? "disconnected" : "unknown_method");
  }
  // Not even the extension's own pages get the token.
  const own = await page.evaluate((id) => chrome.runtime.sendMessage({ to: "background", method: "models.open", params: { id } }), id);
  assert.equal(own.error.code, "forbidden");
  await ask(page, "models.choose", { id: "spark-28m" });
  await Promise.all([site.close(), page.close()]);
});

test("the popup: models with what they need, a choice by keyboard, a refusal as one sentence", T, async () => {
  const broken = join(models, "broken.gguf");
  const bytes = await readFile(`${TINY}.gguf`);
  await writeFile(broken, bytes.subarray(0, bytes.length / 2));
  const page = await browser.openOwn("popup/popup.html");
  await page.setViewportSize({ width: 400, height: 600 });
  await page.getByRole("button", { name: "DOPPLER" }).or(page.locator("#model")).first().press("Enter");
  const item = (/** @type {string} */ name) => page.getByRole("dialog", { name: "Models" }).getByRole("button", { name });
  await item("secret-project.gguf").getByText(/^llama, 0\.2 M parameters, Q4_0, needs \d+ MB of graphics memory$/).waitFor();
  await item("my spark.gguf").getByText("28 M parameters, Q8_0").waitFor();
  await item("broken.gguf").getByText(/The file is incomplete/).waitFor();
  assert.match(await item("my spark.gguf").innerText(), /30 MB · gguf/);
  assert.equal(await page.locator("[aria-current]").innerText().then((text) => text.split("\n")[0]), "Spark 28M");

  await item("broken.gguf").click();
  await page.locator("#models-alert:not([hidden]) #models-alert-text", { hasText: /^The file is incomplete.*\.$/ }).waitFor();
  assert.equal(await page.locator("[aria-current] .name").innerText(), "Spark 28M", "the choice is as it was");
  await rm(broken);

  await item("secret-project.gguf").press("Enter");
  await page.locator("#models:not([open])").waitFor({ state: "attached" });
  await page.locator("#detail", { hasText: "Runs on" }).waitFor();
  await page.getByRole("heading", { name: "Ask your model" }).waitFor();
  await page.locator("#model", { hasText: "Q4_0" }).click();
  await page.locator("[aria-current]", { hasText: "secret-project.gguf" }).waitFor();
  await item("Spark 28M").click();
  await page.locator("#model", { hasText: "Spark 28M · Q8_0" }).waitFor();
  await page.getByRole("heading", { name: "Ask Spark" }).waitFor();
  await page.close();
});

test("a file that is dropped on the popup answers, is kept, and can be taken off the list", T, async () => {
  const page = await connect();
  const popup = await openList();
  await drop(popup, `${TINY}.gguf`);
  await listCloses(popup);
  await until(async () => (await ask(page, "engine.status")).state === "ready", "the model");
  const { chosen, data } = await ask(page, "models.list");
  const kept = data.find((/** @type {any} */ { source }) => source === "picked");
  assert.deepEqual([kept.id, kept.name, kept.bytes], [chosen, "tiny-q4_0.gguf", (await readFile(`${TINY}.gguf`)).length]);
  await assertTiny(page, chosen);

  await popup.locator("#model").click();
  await drop(popup, FOLDER);
  await listCloses(popup);
  assert.equal((await ask(page, "engine.status")).model.architecture, "llama");
  assert.notEqual((await ask(page, "models.list")).chosen, chosen);

  await drop(popup, `${TINY}.json`);
  await popup.locator("#alert:not([hidden])", { hasText: "is no model" }).waitFor();

  await popup.locator("#model").click();
  for (let left = 2; left > 0; left--) {
    const forget = popup.getByRole("button", { name: /^Take .* off the list$/ });
    await until(async () => await forget.count() === left, `${left} picked models`);
    await forget.first().click();
  }
  await popup.locator("[aria-current]", { hasText: "Spark 28M" }).waitFor();
  assert.ok(!(await ask(page, "models.list")).data.some((/** @type {any} */ { source }) => source === "picked"));
  await Promise.all([popup.close(), page.close()]);
});

test("a file is read on when the last tab of the extension is closed", T, async () => {
  const popup = await openList();
  // The engine does not come to the file at once.
  await browser.inOffscreen(`{
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (...message) {
      setTimeout(() => postMessage.apply(this, message), /load|describe/.test(message[0].method) ? 2000 : 0);
    };
    setTimeout(() => { Worker.prototype.postMessage = postMessage; }, 2000);
  }`);
  await drop(popup, `${TINY}.gguf`);
  await listCloses(popup);
  const inPicked = (/** @type {string} */ expression) => browser.inOffscreen(`import("../shared/picked.js").then(async (picked) => {
    const [{ id, handles: [handle] }] = await picked.all();
    return ${expression};
  })`);
  assert.equal(await inPicked("handle.queryPermission({ mode: 'read' })"), "granted");
  await popup.close();
  await until(async () => await inPicked("handle.queryPermission({ mode: 'read' })") === "prompt", "the permission to end");
  assert.equal(await inPicked("(await picked.open(id)).files[0].blob.slice(0, 4).text()"), "GGUF");
});

test("web pages get nothing from the host's port, even with its address and token", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  const { base, token, files: [file] } = (await browser.inOffscreen(
    `chrome.runtime.sendMessage({ to: "background", method: "models.open", params: { id: "${id}" } })`)).done;
  const url = base + file.path;
  const headers = { authorization: `Bearer ${token}`, range: "bytes=0-3" };
  const status = async (/** @type {Record<string, string>} */ more) => (await fetch(url, { headers: more })).status;
  assert.equal(await (await fetch(url, { headers })).text(), "GGUF", "who has the token gets bytes");
  assert.equal(await status({}), 401);
  assert.equal(await status({ ...headers, authorization: `Bearer ${"A".repeat(token.length)}` }), 401);
  assert.equal(await status({ ...headers, origin: browser.loopback }), 403);

  for (const origin of [browser.localhost, browser.loopback]) {
    const site = await browser.open(origin);
    const got = await site.evaluate(async ({ url, headers }) => {
      const result = (/** @type {Promise<Response>} */ asked) => asked.then(async (answer) => (await answer.arrayBuffer()).byteLength, ({ name }) => name);
      const image = new Image();
      const loaded = new Promise((resolve) => { image.onload = () => resolve("loaded"); image.onerror = () => resolve("error"); });
      image.src = url;
      return [await result(fetch(url, { headers })), await result(fetch(url)), await result(fetch(url, { mode: "no-cors" })), await loaded];
    }, { url, headers });
    assert.ok(got.every((result) => ["TypeError", 0, "error"].includes(result)), JSON.stringify(got));
    await site.close();
  }
  await browser.inOffscreen(`chrome.runtime.sendMessage({ to: "background", method: "models.close", params: { id: "${id}" } })`);
  assert.equal(await status(headers), 404, "closed is closed");
  await page.close();
});

test("the offscreen document ends while it has a model open: the host closes it, without another", T, async () => {
  const page = await connect();
  const id = await idOf(page, "secret-project.gguf");
  const { base, token, files: [file] } = (await browser.inOffscreen(
    `chrome.runtime.sendMessage({ to: "background", method: "models.open", params: { id: "${id}" } })`)).done;
  const headers = { authorization: `Bearer ${token}`, range: "bytes=0-3" };
  const status = async () => (await fetch(base + file.path, { headers })).status;
  assert.equal(await status(), 206);
  assert.ok(await browser.killOffscreen());
  await until(async () => await status() === 404, "the model to be closed");
  assert.equal(await browser.offscreenTarget(), undefined);
  await page.close();
});

test("where loopback is blocked bytes come in messages, and the status says so", T, async () => {
  const extension = await copyExtension();
  const manifest = JSON.parse(await readFile(join(extension, "manifest.json"), "utf8"));
  const policy = manifest.content_security_policy.extension_pages;
  manifest.content_security_policy.extension_pages = policy.replace(" http://127.0.0.1:*", "");
  assert.notEqual(manifest.content_security_policy.extension_pages, policy);
  await writeFile(join(extension, "manifest.json"), JSON.stringify(manifest));
  const blocked = await launch({ host: models, extension });
  try {
    blocked.context.setDefaultTimeout(LIMIT);
    const page = await connect(blocked);
    const id = await idOf(page, "secret-project.gguf");
    await assertTiny(page, id);
    assert.equal((await ask(page, "engine.status")).transport, "messages");
  } finally {
    await blocked.close();
  }
});

test("where no reader can be started bytes come in messages as well", T, async () => {
  const extension = await copyExtension();
  await writeFile(join(extension, "extension/offscreen/reader.js"), 'throw new Error("not today");');
  const hindered = await launch({ host: models, extension });
  try {
    hindered.context.setDefaultTimeout(LIMIT);
    const page = await connect(hindered);
    const id = await idOf(page, "secret-project.gguf");
    assert.equal((await ask(page, "models.choose", { id })).id, id);
    assert.equal((await ask(page, "engine.status")).transport, "messages");
  } finally {
    await hindered.close();
  }
});

test("a GPU that comes late: the status says that there is none, and the request is answered when it is there", T, async () => {
  const extension = await copyExtension();
  const worker = join(extension, "extension/offscreen/worker.js");
  await writeFile(worker, `${await readFile(worker, "utf8")}
    const { requestAdapter } = GPU.prototype;
    let there = false;
    new BroadcastChannel("gpu").onmessage = () => { there = true; };
    GPU.prototype.requestAdapter = async function (...options) { return there ? requestAdapter.apply(this, options) : null; };`);
  const late = await launch({ extension });
  try {
    late.context.setDefaultTimeout(LIMIT);
    const page = await connect(late);
    const asked = ask(page, "tokens.count", { messages: [{ role: "user", content: "hi" }] });
    await page.waitForFunction(() => {
      const failed = /** @type {any} */ (window).seen.some((/** @type {any} */ { state, error }) => state === "failed" && error.code === "no_gpu");
      if (failed) new BroadcastChannel("gpu").postMessage("come");
      return failed;
    });
    assert.ok((await asked).tokens > 0);
    const states = await page.evaluate(() => /** @type {any} */ (window).seen.map((/** @type {any} */ { state }) => state));
    assert.deepEqual(states.filter((/** @type {string} */ state, /** @type {number} */ i) => state !== states[i - 1]), ["loading", "failed", "loading", "ready"]);
  } finally {
    await late.close();
  }
});

test("without a host the embedded model answers, and the list says how to get one", T, async () => {
  const bare = await launch();
  try {
    const page = await connect(bare);
    const { data, host } = await ask(page, "models.list");
    assert.deepEqual(data.map((/** @type {any} */ { id }) => id), ["spark-28m"]);
    assert.equal(host.error.code, "host_missing");
    assert.match(host.error.message, /run native-host\/install\.sh/);
    const { error } = await ask(page, "models.choose", { id: "0".repeat(32) });
    assert.equal(error.code, "host_missing");
  } finally {
    await bare.close();
  }
});
