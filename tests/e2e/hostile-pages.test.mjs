// What pages try and must not get: who they are, what they may, and others' answers stay what they are. The worker is scripted.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { answerPrompt, launch, scriptedExtension, until } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */

/** Every kind of frame, and what a page can open beside itself. */
const FRAMES = `<!doctype html><title>Frames</title>
<iframe src="/"></iframe><iframe></iframe><iframe src="about:blank"></iframe><iframe srcdoc="<p>x"></iframe>
<iframe src="data:text/html,<p>x"></iframe><iframe src="javascript:'<p>x'"></iframe><iframe sandbox="allow-scripts" src="/"></iframe>
<iframe sandbox="allow-scripts allow-same-origin" srcdoc="<p>x"></iframe><object data="/"></object><embed src="/">
<script>
  const blob = () => URL.createObjectURL(new Blob(["<!doctype html><title>Blob</title>"], { type: "text/html" }));
  document.body.append(Object.assign(document.createElement("iframe"), { src: blob() }));
</script>`;
/** Replaces what scripts lean on, after the extension's are there. */
const POLLUTED = `<!doctype html><title>Polluted</title><button id="request" style="position: fixed; inset: 0; width: 100vw">Ask</button><script>
  const leak = (name) => function () { (window.leaked ??= []).push(name); throw new Error("polluted " + name); };
  for (const [owner, names] of [
    [JSON, ["parse", "stringify"]], [Reflect, ["apply", "get", "ownKeys"]], [Object, ["keys", "freeze", "defineProperty", "entries", "assign", "hasOwn"]],
    [Array.prototype, ["push", "includes", "filter", "find", "concat"]], [Array, ["isArray", "from"]],
    [Map.prototype, ["get", "set", "delete", "has"]], [Function.prototype, ["call", "apply", "bind"]],
    [EventTarget.prototype, ["addEventListener", "removeEventListener", "dispatchEvent"]], [MessagePort.prototype, ["postMessage", "start", "close"]],
  ]) for (const name of names) owner[name] = leak(name);
  for (const name of ["id", "method", "params", "error", "event", "scope", "origin", "activated", "state"]) {
    try { Object.prototype.__defineSetter__(name, function (value) { Reflect.leaked = value; }); } catch {}
  }
  document.getElementById("request").onclick = async () => {
    const { state } = await doppler.permissions.request();
    const stream = await doppler.chat.completions.create({ messages: [{ role: "user", content: "one two" }], stream: true });
    let text = "";
    for await (const { choices } of stream) text += choices[0]?.delta.content ?? "";
    document.title = state + ": " + text;
  };
  doppler.models.list().catch(({ reason }) => { document.title = reason; });
</script>`;

/** @type {Browser} */
let browser;
before(async () => {
  browser = await launch({
    extension: await scriptedExtension(),
    pages: { "/frames": { body: FRAMES }, "/polluted": { body: POLLUTED } },
  });
});
after(() => browser.close());

/** @param {Page} page */
const state = (page) => page.evaluate(() => doppler.permissions.query().then(({ state }) => state));
/** @param {Page} page @param {object} script @returns {Promise<string>} the answer, or its error's code */
const complete = (page, script) => page.evaluate(
  (content) => doppler.chat.completions.create({ messages: [{ role: "user", content }] })
    .then(({ choices }) => choices[0]?.message.content ?? "", (/** @type {any} */ { reason }) => reason),
  JSON.stringify(script));

const T = { timeout: 60_000 };

test("there is no window.doppler in frames of any kind", T, async () => {
  const page = await browser.open(`${browser.localhost}/frames`);
  const [top, ...frames] = page.frames();
  assert.equal(await top?.evaluate(() => typeof window.doppler), "object");
  assert.ok(frames.length >= 10, `${frames.length} frames`);
  for (const frame of frames) assert.equal(await frame.evaluate(() => typeof window.doppler), "undefined", frame.url());
  await page.close();
});

test("a window on about:blank, a blob: or a data: document has no window.doppler of its own", T, async () => {
  const page = await browser.open(`${browser.localhost}/frames`);
  for (const url of ["''", "'about:blank'", "blob()"]) {
    const [opened] = await Promise.all([browser.context.waitForEvent("page"), page.evaluate(`void open(${url})`)]);
    await opened.waitForLoadState();
    assert.equal(await opened.evaluate(() => typeof window.doppler), "undefined", url);
    await opened.close();
  }
  await page.close();
});

test("3,000 forged frames, events and ports get nothing, and cost the page's own requests nothing", T, async () => {
  const page = await browser.open(browser.localhost);
  assert.equal(await state(page), "prompt");
  const heard = await page.evaluate(async () => {
    let heard = 0;
    const frame = (/** @type {number} */ i) => ({ id: i, method: ["permissions.request", "chat.completions", "cancel", "engine.status"][i % 4], params: { activated: true, messages: [] } });
    for (let i = 0; i < 1000; i++) {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { heard++; };
      dispatchEvent(new MessageEvent("doppler:connect", { ports: [port2] }));
      port1.postMessage(frame(i));
      postMessage(frame(i), "*");
      dispatchEvent(new CustomEvent(i % 2 ? "doppler:bridge" : "doppler:connect", { detail: frame(i) }));
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    return heard;
  });
  assert.equal(heard, 0);
  // A process that was taken over has ports of its own: each is cut off, or refused what its page may not have.
  const answers = await browser.inBridge(page, `(async () => {
    const seen = {};
    for (let i = 0; i < 300; i++) {
      const frames = [{ id: i, method: "chat.completions", params: { messages: [] } }, { id: i, method: "engine.status", params: {} }, i, null, [i], { event: "status" }];
      await new Promise((resolve) => {
        const port = chrome.runtime.connect({ name: i % 3 ? "doppler" : "doppler-ui" });
        const end = (what) => { seen[what] = (seen[what] ?? 0) + 1; port.disconnect(); resolve(); };
        port.onMessage.addListener(({ error }) => end(error?.code ?? "heard"));
        port.onDisconnect.addListener(() => end("closed"));
        port.postMessage(frames[i % frames.length]);
      });
    }
    return seen;
  })()`);
  assert.deepEqual(Object.keys(answers).sort(), ["closed", "permission_required"]);
  assert.equal(await state(page), "prompt");
  assert.equal(await complete(page, { tokens: 1 }), "permission_required");
  assert.equal(await browser.grant(page, "once"), "granted");
  assert.equal(await complete(page, { tokens: 3 }), "t0 t1 t2 ");
  await page.close();
});

test("a page that replaces the built-ins gets no grant by it, and no other page notices", T, async () => {
  const page = await browser.open(`${browser.localhost}/polluted`);
  const other = await browser.open(browser.loopback);
  assert.equal(await browser.grant(other, "once"), "granted");
  // Nothing can be evaluated in such a page: what came of its calls is in its title.
  const title = async () => (await browser.targets()).find(({ url }) => url.endsWith("/polluted"))?.title;
  await until(async () => await title() === "permission_required", "the page to be refused");
  const [prompt] = await Promise.all([browser.context.waitForEvent("page"), page.mouse.click(50, 50)]);
  await answerPrompt(prompt, "once");
  await until(async () => await title() === "granted: one two", "the page to be answered");
  assert.equal(await complete(other, { tokens: 3 }), "t0 t1 t2 ");
  await Promise.all([page.close(), other.close()]);
});
