// Who may use the engine, and how the user decides it. No engine is needed: the worker is scripted.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { answerOf, answerPrompt, launch, scriptedExtension, until } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */

const EAGER = `<!doctype html><title>Asks at load</title><script>
  doppler.permissions.request().then(({ state }) => { window.granted = state }, ({ name, reason }) => { window.granted = name + " " + reason })
</script>`;
const FRAMES = `<!doctype html><title>Frames</title><iframe id="same" src="/"></iframe><iframe id="cross"></iframe>`;

/** @type {Browser} */
let browser;
before(async () => {
  browser = await launch({
    extension: await scriptedExtension(),
    pages: {
      "/eager": { body: EAGER },
      "/frames": { body: FRAMES },
      "/sandboxed": { headers: { "content-security-policy": "sandbox allow-scripts" }, body: `<!doctype html><title>Sandboxed</title>` },
    },
  });
});
after(() => browser.close());
// Every test begins without grants and pages.
afterEach(async () => {
  for (const page of browser.context.pages()) await page.close();
  const options = await browser.openOwn("options/options.html");
  await options.evaluate(() => Promise.all([chrome.storage.local.clear(), chrome.storage.session.clear()]));
  for (const origin of [browser.localhost, browser.loopback]) {
    await options.evaluate((origin) => chrome.runtime.sendMessage({ to: "background", method: "grants.revoke", params: { origin } }), origin);
  }
});

/** @param {Page} page */
const state = (page) => page.evaluate(() => doppler.permissions.query().then(({ state }) => state));
/** @param {Page} page  what a call ends with: "done" or an error's name */
const list = (page) => page.evaluate(() => doppler.models.list().then(() => "done", ({ name }) => name));

const T = { timeout: 60_000 };

test("before a grant every call but permissions is refused, and the engine is not even started", T, async () => {
  const page = await browser.open(browser.localhost);
  assert.equal(await state(page), "prompt");
  const names = await page.evaluate(() => Promise.all([
    () => doppler.models.list(),
    () => doppler.chat.completions.create({ messages: [] }),
    () => doppler.chat.completions.create({ messages: [], stream: true }),
    () => doppler.LanguageModel.availability(),
    () => doppler.LanguageModel.params(),
    () => doppler.LanguageModel.create(),
  ].map((call) => call().then(() => "done", (/** @type {any} */ error) => `${error.name} ${error.reason}`))));
  assert.deepEqual(new Set(names), new Set(["NotAllowedError permission_required"]));
  const workers = (await browser.targets()).filter(({ url }) => url.endsWith("/offscreen/worker.js"));
  assert.deepEqual(workers, []);
});

test("a request without a click is refused", T, async () => {
  const page = await browser.open(`${browser.localhost}/eager`);
  assert.equal(await answerOf(page), "NotAllowedError user_activation_required");
  assert.equal((await browser.context.pages()).filter((p) => p.url().includes("permission")).length, 0);
});

test("a page cannot claim the user's activation", T, async () => {
  const page = await browser.open(`${browser.localhost}/eager`);
  await answerOf(page);
  // Whoever imitates the shim's event after the fact is not heard: the bridge has its port.
  const answer = await page.evaluate(() => new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    dispatchEvent(new MessageEvent("doppler:connect", { ports: [port2] }));
    port1.postMessage({ id: 1, method: "permissions.request", params: { activated: true } });
    setTimeout(() => resolve("silence"), 500);
  }));
  assert.equal(answer, "silence");
});

test("the prompt shows the origin, what is shared and the model; early clicks do not count", T, async () => {
  const page = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  await prompt.waitForFunction(() => document.getElementById("origin")?.textContent);
  // At once, before the buttons count.
  await prompt.evaluate(() => document.getElementById("always")?.click());
  await prompt.locator("#always").click({ force: true, noWaitAfter: true });
  assert.equal(await prompt.locator("#origin").textContent(), browser.localhost);
  assert.match(await prompt.locator("#about").innerText(), /Nothing leaves it/);
  await prompt.locator("#model", { hasText: "Spark 28M" }).waitFor();
  assert.deepEqual((await browser.targets()).filter(({ url }) => url.endsWith("/offscreen/worker.js")), [], "nothing was started for that");
  assert.equal(await state(page), "prompt");
  // Script cannot press a button either.
  await prompt.locator("#always[aria-disabled=false]").waitFor();
  await prompt.evaluate(() => document.getElementById("always")?.click());
  assert.equal(await state(page), "prompt");
  await answerPrompt(prompt, "block");
  assert.equal(await answerOf(page), "denied");
});

test("the prompt is answered with the keyboard, and Escape closes it", T, async () => {
  const page = await browser.open(browser.localhost);
  let prompt = await browser.ask(page);
  await prompt.locator("#once[aria-disabled=false]").waitFor();
  await prompt.keyboard.press("Escape").catch(() => {}); // the window is gone before the key is up
  assert.equal(await answerOf(page), "prompt");
  prompt = await browser.ask(page);
  await prompt.locator("#once[aria-disabled=false]").waitFor();
  for (const _ of ["once", "session"]) await prompt.keyboard.press("Tab");
  assert.equal(await prompt.evaluate(() => document.activeElement?.id), "session");
  await prompt.keyboard.press("Enter").catch(() => {});
  assert.equal(await answerOf(page), "granted");
});

test("once: for this document only", T, async () => {
  const page = await browser.open(browser.localhost);
  const other = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "once"), "granted");
  assert.equal(await list(page), "done");
  assert.equal(await state(other), "prompt");
  await page.reload();
  assert.equal(await state(page), "prompt");
  const options = await browser.openOwn("options/options.html");
  await options.locator("#none:visible").waitFor();
});

test("this session: every tab of the origin, no other origin, nothing on disk", T, async () => {
  const page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "session"), "granted");
  const other = await browser.open(browser.localhost);
  assert.equal(await list(other), "done");
  const stranger = await browser.open(browser.loopback);
  assert.equal(await list(stranger), "NotAllowedError");
  const options = await browser.openOwn("options/options.html");
  assert.deepEqual(await options.evaluate(() => chrome.storage.local.get(null)), {});
});

test("always survives the service worker; block refuses without asking", T, async () => {
  const page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "always"), "granted");
  const stranger = await browser.open(browser.loopback);
  assert.equal(await browser.grant(stranger, "block"), "denied");
  await browser.killServiceWorker();
  await page.reload();
  assert.equal(await list(page), "done");
  await stranger.reload();
  await stranger.click("#request");
  assert.equal(await answerOf(stranger), "denied");
});

test("closing the window is not an answer; after two in a row the origin is not heard for a while", T, async () => {
  const page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "close"), "prompt");
  assert.equal(await browser.grant(page, "close"), "prompt");
  await page.click("#request");
  assert.equal(await answerOf(page), "denied");
  assert.equal(await state(page), "prompt");
});

test("one prompt per origin: a second tab joins it, and both get the answer", T, async () => {
  const page = await browser.open(browser.localhost);
  const other = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  await other.click("#request");
  await until(async () => (await list(other)) === "NotAllowedError", "the second request to arrive");
  assert.equal(browser.context.pages().filter((p) => p.url().includes("permission.html")).length, 1);
  await answerPrompt(prompt, "once");
  assert.deepEqual([await answerOf(page), await answerOf(other)], ["granted", "granted"]);
});

test("a prompt outlives the service worker, answered or closed", T, async () => {
  const page = await browser.open(browser.localhost);
  let prompt = await browser.ask(page);
  await browser.killServiceWorker();
  await answerPrompt(prompt, "close");
  assert.equal(await answerOf(page), "prompt");
  prompt = await browser.ask(page);
  await prompt.locator("#always[aria-disabled=false]").waitFor();
  await browser.killServiceWorker();
  await answerPrompt(prompt, "always");
  assert.equal(await answerOf(page), "granted");
});

test("the prompt closes when its page goes away, and that is no dismissal", T, async () => {
  for (const _ of [1, 2, 3]) {
    const page = await browser.open(browser.localhost);
    const prompt = await browser.ask(page);
    await page.close();
    await until(() => prompt.isClosed(), "the prompt to close");
  }
});

test("revoking in the options ends running streams at once, and the page hears of it", T, async () => {
  const page = await browser.open(browser.localhost);
  await browser.grant(page, "always");
  const ended = page.evaluate(async () => {
    const content = JSON.stringify({ tokens: 1000, every: 10 });
    const stream = await doppler.chat.completions.create({ messages: [{ role: "user", content }], stream: true });
    document.title = "streaming";
    try {
      for await (const _ of stream);
      return "done";
    } catch (error) {
      return /** @type {Error} */ (error).name;
    }
  });
  await page.waitForFunction(() => document.title === "streaming");
  const options = await browser.openOwn("options/options.html");
  await options.getByRole("button", { name: `Revoke ${browser.localhost}` }).click();
  assert.equal(await ended, "NotAllowedError");
  await options.locator("#none:visible").waitFor();
  assert.equal(await list(page), "NotAllowedError");
  assert.deepEqual(await page.evaluate("events"), [
    { type: "permissionchange", detail: { state: "granted" } },
    { type: "permissionchange", detail: { state: "prompt" } },
  ]);
});

test("a page gives its own grant up, but cannot lift a block", T, async () => {
  const revoke = (/** @type {Page} */ page) => page.evaluate(() => doppler.permissions.revoke().then(({ state }) => state));
  const page = await browser.open(browser.localhost);
  await browser.grant(page, "always");
  assert.equal(await revoke(page), "prompt");
  assert.equal(await list(page), "NotAllowedError");
  await browser.grant(page, "block");
  assert.equal(await revoke(page), "denied");
});

test("there is no window.doppler in frames, and a sandboxed document is nobody", T, async () => {
  const page = await browser.open(`${browser.localhost}/frames`);
  await page.evaluate((src) => new Promise((resolve) => {
    const frame = /** @type {HTMLIFrameElement} */ (document.getElementById("cross"));
    frame.onload = resolve;
    frame.src = src;
  }), browser.loopback);
  const found = await Promise.all(page.frames().map((frame) => frame.evaluate(() => typeof window.doppler)));
  assert.deepEqual(found, ["object", "undefined", "undefined"]);
  const sandboxed = await browser.open(`${browser.localhost}/sandboxed`);
  assert.equal(await list(sandboxed), "NotAllowedError");
});

test("a page's process that was taken over gets no more than its page", T, async () => {
  const page = await browser.open(browser.localhost);
  await state(page);
  const ask = (/** @type {string} */ method, params = {}) => browser.inBridge(page,
    `chrome.runtime.sendMessage(${JSON.stringify({ to: "background", method, params })}).then((answer) => answer?.error?.code ?? "done")`);
  for (const method of ["permissions.query", "permissions.request", "permissions.revoke", "document.gone", "prompt.describe", "prompt.decide", "grants.list", "grants.revoke", "constructor"]) {
    assert.equal(await ask(method, { origin: browser.localhost, scope: "always" }), "forbidden", method);
  }
  // A port that calls itself a popup's, or speaks out of turn, is closed.
  const closed = (/** @type {string} */ name, /** @type {string} */ frames) => browser.inBridge(page, `new Promise((resolve) => {
    const port = chrome.runtime.connect({ name: "${name}" });
    const heard = [];
    port.onMessage.addListener((frame) => heard.push(frame.error?.name ?? frame));
    port.onDisconnect.addListener(() => resolve({ closed: true, heard }));
    for (const frame of ${frames}) port.postMessage(frame);
    setTimeout(() => resolve({ closed: false, heard }), 1000);
  })`);
  const message = { id: 1, method: "engine.status", params: {} };
  assert.deepEqual(await closed("doppler-ui", JSON.stringify([message])), { closed: true, heard: [] });
  assert.deepEqual(await closed("doppler", JSON.stringify([message])), { closed: false, heard: ["NotAllowedError"] });
  for (const frame of [
    "0", "[]", "{}", `{ id: -1, method: "hello", params: {} }`, `{ id: 1.5, method: "hello", params: {} }`, `{ id: 1, method: 3, params: {} }`,
    `{ id: 1, method: "hello" }`, `{ id: 1, method: "hello", params: [] }`, `{ id: 1, method: "hello", params: {}, origin: "https://x.org" }`,
    `{ id: 1, method: "hello", params: { text: "x".repeat(1 << 20) } }`,
  ]) {
    assert.deepEqual(await closed("doppler", `[${frame}]`), { closed: true, heard: [] }, frame);
  }
  // The same id twice.
  assert.equal((await closed("doppler", JSON.stringify([message, message]))).closed, true);
  // Grants cannot be written from there.
  assert.match(await browser.inBridge(page, `chrome.storage.local.set({ "grant:${browser.localhost}": { scope: "always", since: 1 } }).then(() => "written", String)`), /Error/);
  assert.equal(await list(page), "NotAllowedError");
  // What is for the extension's own pages stays so after a grant.
  await browser.grant(page, "once");
  for (const method of ["engine.status", "engine.verify", "engine.bench", "engine.tune", "engine.untune", "conversations.list"]) {
    assert.deepEqual(await closed("doppler", JSON.stringify([{ ...message, method }])), { closed: false, heard: ["NotSupportedError"] }, method);
  }
});
