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

/** The button is where a window in the middle would be; `pressed` says where on the screen. */
const MIDDLE = `<!doctype html><title>Button in the middle</title><button id="request" style="position: fixed; left: 45vw; top: 40vh; width: 10vw">Ask</button><script>
  document.getElementById("request").addEventListener("click", async ({ screenX, screenY }) => {
    window.pressed = [screenX, screenY];
    window.granted = await doppler.permissions.request().then(({ state }) => state, ({ name }) => name);
  });
</script>`;
/** Asks twice for a click, and again as soon as it has an answer. */
const GREEDY = `<!doctype html><title>Asks again</title><button id="request">Ask</button><script>
  const ask = () => doppler.permissions.request().then(({ state }) => state, ({ reason }) => reason);
  document.getElementById("request").addEventListener("click", async () => {
    const both = await Promise.all([ask(), ask()]);
    window.granted = [...both, await ask(), await ask()];
  });
</script>`;

/** @type {Browser} */
let browser;
before(async () => {
  browser = await launch({
    extension: await scriptedExtension(),
    // Room for a window beside the pointer, as on most screens.
    flags: ["--screen-info={1600x1200}"],
    pages: {
      "/eager": { body: EAGER },
      "/frames": { body: FRAMES },
      "/middle": { body: MIDDLE },
      "/greedy": { body: GREEDY },
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

test("the prompt shows the origin, what is shared and the name that the page sees of the model; early clicks do not count", T, async () => {
  const page = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  await prompt.waitForFunction(() => document.getElementById("origin")?.textContent);
  // At once, before the buttons count.
  await prompt.evaluate(() => document.getElementById("always")?.click());
  await prompt.locator("#always").click({ force: true, noWaitAfter: true });
  assert.equal(await prompt.locator("#origin").textContent(), browser.localhost);
  assert.match(await prompt.locator("#about").innerText(), /Nothing leaves it/);
  await prompt.locator("#model", { hasText: "“spark-28m” (Spark 28M)" }).waitFor();
  assert.deepEqual((await browser.targets()).filter(({ url }) => url.endsWith("/offscreen/worker.js")), [], "nothing was started for that");
  assert.equal(await state(page), "prompt");
  // Script cannot press a button either.
  await prompt.locator("#always[aria-disabled=false]").waitFor();
  await prompt.evaluate(() => document.getElementById("always")?.click());
  assert.equal(await state(page), "prompt");
  await answerPrompt(prompt, "block");
  assert.equal(await answerOf(page), "denied");
});

test("the prompt says of a model of the user's own that the page sees only `local`", T, async () => {
  const options = await browser.openOwn("options/options.html");
  await options.evaluate(() => localStorage.setItem("model", "host-secret"));
  const prompt = await browser.ask(await browser.open(browser.localhost));
  await prompt.locator("#model", { hasText: "“local”, whichever of yours it is" }).waitFor();
  assert.doesNotMatch(await prompt.locator("main").innerText(), /secret/);
  await options.evaluate(() => localStorage.removeItem("model"));
  await answerPrompt(prompt, "block");
});

test("steady clicking where the prompt appears grants nothing, however fast", T, async () => {
  const page = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  await prompt.waitForFunction(() => document.getElementById("origin")?.textContent);
  for (const every of [60, 150, 250, 400]) {
    for (const id of ["once", "session", "always"]) {
      const { x, y, width, height } = /** @type {{x: number, y: number, width: number, height: number}} */ (await prompt.locator(`#${id}`).boundingBox());
      for (const end = Date.now() + 1000; Date.now() < end;) {
        await prompt.mouse.click(x + width / 2, y + height / 2);
        await new Promise((resolve) => setTimeout(resolve, every));
      }
    }
  }
  assert.equal(prompt.isClosed(), false);
  assert.equal(await state(page), "prompt");
  await answerPrompt(prompt, "once");
  assert.equal(await answerOf(page), "granted");
});

test("Tab, Tab, Enter as the prompt appears grants nothing; nothing that grants has the focus", T, async () => {
  const page = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  for (let round = 0; round < 5; round++) {
    assert.equal(await prompt.evaluate(() => document.activeElement?.closest("#answers, #confirmation")), null);
    for (const key of ["Tab", "Tab", "Enter", "Space"]) await prompt.keyboard.press(key);
    await prompt.evaluate(() => document.getElementById("question")?.focus());
  }
  await prompt.keyboard.down("Enter");
  await prompt.keyboard.up("Enter");
  assert.equal(prompt.isClosed(), false);
  assert.equal(await state(page), "prompt");
  await answerPrompt(prompt, "block");
});

test("Always is chosen and then confirmed, and can be thought better of", T, async () => {
  const page = await browser.open(browser.localhost);
  const prompt = await browser.ask(page);
  await prompt.locator("#always[aria-disabled=false]").click();
  assert.equal(await state(page), "prompt");
  // The next click of a row does not count either.
  await prompt.locator("#confirm").click({ force: true });
  await prompt.locator("#confirm").click({ force: true });
  assert.equal(await state(page), "prompt");
  await prompt.locator("#back[aria-disabled=false]").click();
  await prompt.locator("#once:visible").waitFor();
  await answerPrompt(prompt, "always");
  assert.equal(await answerOf(page), "granted");
});

test("the prompt does not open under the pointer", T, async () => {
  const page = await browser.open(`${browser.localhost}/middle`);
  const prompt = await browser.ask(page);
  const [x, y] = /** @type {[number, number]} */ (await page.evaluate("pressed"));
  await prompt.waitForFunction(() => innerWidth > 0);
  const { left, top, width, height } = await prompt.evaluate(() => ({ left: screenX, top: screenY, width: outerWidth, height: outerHeight }));
  assert.ok(x < left || x > left + width || y < top || y > top + height, `${x}, ${y} in ${left}, ${top}, ${width}, ${height}`);
  await answerPrompt(prompt, "block");
});

test("one click opens one prompt, however often the page asks", T, async () => {
  const page = await browser.open(`${browser.localhost}/greedy`);
  const prompt = await browser.ask(page);
  await answerPrompt(prompt, "close");
  assert.deepEqual(await answerOf(page), ["prompt", "prompt", "user_activation_required", "user_activation_required"]);
  assert.equal(browser.context.pages().filter((p) => p.url().includes("permission.html")).length, 0);
});

test("the part of a host that somebody registered is marked, and the four answers are in view under a host of any length", T, async () => {
  const options = await browser.openOwn("options/options.html");
  const hosts = ["accounts.google.com.security-check.evil.test", `${`${"a".repeat(50)}.`.repeat(4)}${"b".repeat(20)}.evil.test`, "xn--80ak6aa92e.evil.test", "192.168.0.1"];
  for (const host of hosts) {
    const prompt = { origin: `https://${host}`, documents: [], tab: 1, windowId: -1, opened: 0 };
    const url = await options.evaluate((prompt) => chrome.storage.session.set({ "prompt:long": prompt }).then(() => chrome.runtime.getURL("extension/permission/permission.html?long")), prompt);
    const [shown] = await Promise.all([
      browser.context.waitForEvent("page"),
      options.evaluate((url) => chrome.windows.create({ type: "popup", url, width: 460, height: 540 }), url),
    ]);
    await shown.waitForFunction(() => document.getElementById("origin")?.textContent);
    assert.equal(await shown.locator("#origin").textContent(), `https://${host}`);
    assert.equal(await shown.locator("#origin strong").textContent(), host.endsWith("evil.test") ? "evil.test" : host);
    const out = await shown.evaluate(() => [...document.querySelectorAll("#answers button, #origin strong")].filter((element) => {
      const { top, bottom } = element.getBoundingClientRect();
      return top < 0 || bottom > innerHeight || document.elementFromPoint(innerWidth / 4, (top + bottom) / 2) === null;
    }).map(({ id }) => id));
    assert.deepEqual(out, [], host);
    const box = await shown.evaluate(() => ["#origin", "#origin strong"].map((name) => document.querySelector(name)?.getBoundingClientRect().bottom ?? 0));
    assert.ok(/** @type {number} */ (box[1]) <= /** @type {number} */ (box[0]) + 1, "the registered part is in view");
    await shown.close();
  }
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

test("Revoke all ends grants and leaves blocks, which are lifted one by one", T, async () => {
  const options = await browser.openOwn("options/options.html");
  const blocked = "https://blocked.test";
  await options.evaluate((origin) => chrome.storage.local.set({
    [`grant:${origin}`]: { scope: "block", since: 1 }, "grant:https://a.test": { scope: "always", since: 2 }, "grant:https://b.test": { scope: "always", since: 3 },
  }), blocked);
  await options.locator("#revoke-all:visible").click();
  await options.getByRole("button", { name: "Revoke https://a.test" }).waitFor({ state: "detached" });
  const stored = () => options.evaluate(() => chrome.storage.local.get(null));
  await until(async () => Object.keys(await stored()).length === 1, "the grants to end");
  assert.deepEqual(await stored(), { [`grant:${blocked}`]: { scope: "block", since: 1 } });
  await options.locator("#revoke-all").waitFor({ state: "hidden" });
  await options.getByRole("button", { name: `Unblock ${blocked}` }).click();
  await options.locator("#none:visible").waitFor();
  assert.deepEqual(await stored(), {});
});

test("a block that is lifted does not bring an older grant back", T, async () => {
  const page = await browser.open(browser.localhost);
  const other = await browser.open(browser.localhost);
  await browser.grant(page, "once");
  await browser.grant(other, "block");
  assert.equal(await state(page), "denied");
  const options = await browser.openOwn("options/options.html");
  await options.getByRole("button", { name: `Unblock ${browser.localhost}` }).click();
  await options.locator("#none:visible").waitFor();
  assert.deepEqual([await state(page), await state(other)], ["prompt", "prompt"]);
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
  for (const method of ["permissions.query", "permissions.request", "permissions.revoke", "document.gone", "prompt.describe", "prompt.decide", "grants.list", "grants.revoke",
    "grants.unblock", "activity.show", "models.list", "models.open", "models.close", "read", "constructor"]) {
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
    "0", "[]", "{}", `{ id: -1, method: "permissions.query", params: {} }`, `{ id: 1.5, method: "permissions.query", params: {} }`, `{ id: 1, method: 3, params: {} }`,
    `{ id: 1, method: "permissions.query" }`, `{ id: 1, method: "permissions.query", params: [] }`, `{ id: 1, method: "permissions.query", params: {}, origin: "https://x.org" }`,
    `{ id: 1, method: "permissions.query", params: { text: "x".repeat(1 << 20) } }`,
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
  for (const method of ["engine.status", "engine.verify", "engine.bench", "engine.tune", "engine.untune", "conversations.list", "activity.stop"]) {
    assert.deepEqual(await closed("doppler", JSON.stringify([{ ...message, method }])), { closed: false, heard: ["NotSupportedError"] }, method);
  }
});
