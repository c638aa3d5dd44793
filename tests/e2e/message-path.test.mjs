// The way of a request and its tokens, under hostile timing: the worker is scripted, everything else is real.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { launch, scriptedExtension, until } from "./harness.mjs";
import { measureOverhead } from "./overhead.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{tokens?: number, every?: number, hang?: boolean, crash?: boolean, block?: boolean, fatal?: string, blamed?: boolean, error?: object}} Script */

/** @type {Browser} */
let browser;
/** A page with a grant. @type {Page} */
let page;
before(async () => {
  browser = await launch({ extension: await scriptedExtension() });
  page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "always"), "granted");
});
after(() => browser.close());
beforeEach(async () => {
  await page.goto(browser.localhost);
});

/**
 * Starts a streamed answer; `heard` in the page fills with its text, `ended` is set to how it ended.
 * @param {Page} page
 * @param {Script} script
 */
const start = (page, script) => page.evaluate((script) => {
  const w = /** @type {any} */ (window);
  w.heard = "";
  w.ended = undefined;
  w.abort = new AbortController();
  w.running = (async () => {
    try {
      const messages = [{ role: /** @type {const} */ ("user"), content: JSON.stringify(script) }];
      const stream = await doppler.chat.completions.create({ messages, stream: true }, { signal: w.abort.signal });
      w.stream = stream;
      w.parts = [];
      for await (const { choices, ...rest } of stream) {
        w.heard += choices[0]?.delta.content ?? "";
        w.parts.push([...Object.keys(rest).filter((key) => key !== "usage" && key !== "timings"), "choices"].join());
      }
      w.ended = "done";
    } catch (error) {
      const { name, reason } = /** @type {any} */ (error);
      w.ended = `${name} ${reason}`;
    }
  })();
}, script);
/** @param {Page} page */
const heard = (page) => page.evaluate(() => /** @type {any} */ (window).heard);
/** @param {Page} page */
const end = async (page) => {
  await page.waitForFunction(() => /** @type {any} */ (window).ended);
  return page.evaluate(() => /** @type {any} */ (window).ended);
};
/** @param {Page} page */
const streaming = (page) => page.waitForFunction(() => /** @type {any} */ (window).heard.length > 0);
const text = (/** @type {number} */ tokens) => Array.from({ length: tokens }, (_, i) => `t${i} `).join("");
/** What the worker was asked so far. @param {Page} page @returns {Promise<{id: number, method: string, priority?: string}[]>} */
const log = (page) => page.evaluate(() => doppler.models.list().then((list) => /** @type {any} */ (list).log));
/** @param {Page} page @param {Script} script @returns {Promise<any>} the answer, or its error */
const complete = (page, script) => page.evaluate(
  (content) => doppler.chat.completions.create({ messages: [{ role: "user", content }] })
    .then(({ choices }) => choices[0]?.message.content, (/** @type {any} */ { name, reason, message }) => ({ name, reason, message })),
  JSON.stringify(script));

/** A page of another site, with a grant. */
async function otherSite() {
  const other = await browser.open(browser.loopback);
  if (await other.evaluate(() => doppler.permissions.query().then(({ state }) => state)) !== "granted") await browser.grant(other, "session");
  return other;
}

/** How one of the extension's own pages asks. @param {Page} own */
const asking = (own) => /** @param {string} method @param {object} [params] @returns {Promise<any>} */
  (method, params = {}) => own.evaluate(async ({ method, params }) => {
    const { connectEngine } = await import(chrome.runtime.getURL("extension/shared/engine-port.js"));
    const engine = await connectEngine();
    return engine.request(method, params).finally(engine.close);
  }, { method, params });

const T = { timeout: 60_000 };

test("a burst of tokens arrives complete and in order", T, async () => {
  await start(page, { tokens: 2000, every: 0 });
  assert.equal(await end(page), "done");
  assert.equal(await heard(page), text(2000));
});

test("a page that is busy gets no more than it can take, and everything once it reads", T, async () => {
  await start(page, { tokens: 3000 });
  // Its own script keeps it busy: nothing of the answer is read meanwhile.
  await page.evaluate(() => { for (const end = performance.now() + 1500; performance.now() < end;); });
  assert.equal(await end(page), "done");
  assert.equal(await heard(page), Array.from({ length: 3000 }, (_, i) => `t${i} `).join(""));
  const { unread } = await page.evaluate(() => doppler.models.list().then((list) => /** @type {any} */ (list)));
  assert.equal(unread, 128);
});

test("the service worker dies in mid-stream: no token is lost or doubled", T, async () => {
  const options = await browser.openOwn("options/options.html");
  await start(page, { tokens: 300, every: 10 });
  // The icon was shown before, and is cleared some time after the end.
  await until(() => options.evaluate(() => chrome.action.getBadgeText({})), "the icon to show a site");
  assert.ok(await browser.killServiceWorker());
  assert.equal(await end(page), "done");
  assert.equal(await heard(page), text(300));
  assert.equal(await browser.workerTarget(), undefined, "nothing on the token path started it again");
  await options.close();
});

test("two tabs at once, of two origins, do not mix", T, async () => {
  const other = await browser.open(browser.loopback);
  if (await other.evaluate(() => doppler.permissions.query().then(({ state }) => state)) !== "granted") await browser.grant(other, "once");
  await Promise.all([start(page, { tokens: 60, every: 5 }), start(other, { tokens: 40, every: 7 })]);
  assert.deepEqual([await end(page), await end(other)], ["done", "done"]);
  assert.deepEqual([await heard(page), await heard(other)], [text(60), text(40)]);
  await other.close();
});

test("a page that closes, or goes elsewhere, cancels its requests", T, async () => {
  for (const leave of [(/** @type {Page} */ p) => p.close(), (/** @type {Page} */ p) => p.goto(browser.loopback)]) {
    const other = await browser.open(browser.localhost);
    await start(other, { tokens: 100_000, every: 10 });
    await streaming(other);
    const before = (await log(page)).filter(({ method }) => method === "cancel").length;
    await leave(other);
    await until(async () => (await log(page)).filter(({ method }) => method === "cancel").length === before + 1, "the cancel");
    if (!other.isClosed()) await other.close();
  }
});

test("aborting: the page's signal, the stream's controller, leaving the loop; the worker is told each time", T, async () => {
  const cancels = async () => (await log(page)).filter(({ method }) => method === "cancel").length;
  const before = await cancels();
  await start(page, { tokens: 100_000, every: 5 });
  await streaming(page);
  await page.evaluate(() => /** @type {any} */ (window).abort.abort());
  assert.match(await end(page), /^AbortError/);

  await start(page, { tokens: 100_000, every: 5 });
  await streaming(page);
  await page.evaluate(() => /** @type {any} */ (window).stream.controller.abort());
  assert.equal(await end(page), "done");

  const first = await page.evaluate(async () => {
    const content = JSON.stringify({ tokens: 100_000, every: 5 });
    for await (const chunk of await doppler.chat.completions.create({ messages: [{ role: "user", content }], stream: true })) {
      return chunk.choices[0]?.delta.content;
    }
    return "nothing";
  });
  assert.equal(first, "t0 ");

  await start(page, { hang: true });
  await page.evaluate(() => /** @type {any} */ (window).abort.abort(new TypeError("my reason")));
  assert.match(await end(page), /^TypeError/);
  await until(async () => await cancels() === before + 4, "four cancels");

  const early = await page.evaluate(() => doppler.models.list({ signal: AbortSignal.abort() }).catch(({ name }) => name));
  assert.equal(early, "AbortError");
});

test("the engine crashes: what runs goes on, and the next request starts it again", T, async () => {
  const culprit = await otherSite();
  for (const script of [{ crash: true }, { fatal: "out of memory" }]) {
    await start(page, { tokens: 200, every: 10 });
    await streaming(page);
    const error = await complete(culprit, script);
    assert.deepEqual([error.name, error.message], ["OperationError", "The engine stopped: ask again, it starts afresh."]);
    assert.deepEqual([await end(page), await heard(page)], ["done", text(200)]);
    assert.equal(await complete(page, { tokens: 3 }), text(3));
    // The site that stopped it is paused; a new offscreen document knows nothing of it.
    await browser.killOffscreen();
  }
  await culprit.close();
});

test("a site whose request stops the engine is not heard for a while, and another goes on", T, async () => {
  const culprit = await otherSite();
  for (const script of [{ crash: true }, { fatal: "unreachable", blamed: true }, { block: true, blamed: true }]) {
    assert.equal((await complete(culprit, script)).reason, "engine_stopped");
    const { name, reason, message } = await complete(culprit, { tokens: 1 });
    assert.deepEqual([name, reason], ["OperationError", "site_paused"]);
    assert.match(message, /heard again in \d+ s/);
    assert.equal(await complete(page, { tokens: 3 }), text(3));
    await browser.killOffscreen();
  }
  await culprit.close();
});

test("deep objects are refused at once, and use up no places", T, async () => {
  const errors = await page.evaluate(async () => {
    const refused = [];
    for (const depth of [70, 2_200, 100_000]) {
      let content = /** @type {any} */ ([]);
      for (let i = 0; i < depth; i++) content = [content];
      for (let i = 0; i < 30; i++) {
        refused.push(doppler.chat.completions.create({ messages: [{ role: "user", content }] }).then(() => "done", (error) => `${error.name} ${error.reason}`));
      }
    }
    return [...new Set(await Promise.all(refused))];
  });
  assert.deepEqual(errors, ["TypeError invalid_request"]);
  // Past the shim: what a page's process could do if it were taken over.
  const tab = await browser.open(browser.localhost);
  const cut = await browser.inBridge(tab, `new Promise((resolve) => {
    const port = chrome.runtime.connect({ name: "doppler" });
    port.onDisconnect.addListener(() => resolve("cut off"));
    let content = [];
    for (let i = 0; i < 100; i++) content = [content];
    port.postMessage({ id: 1, method: "chat.completions", params: { messages: [{ role: "user", content }] } });
  })`);
  assert.equal(cut, "cut off");
  await tab.close();
  assert.deepEqual(await Promise.all(Array.from({ length: 20 }, () => complete(page, { tokens: 2 }))), Array(20).fill(text(2)));
});

test("the offscreen document is killed: what runs goes on in a new one, and ends with a clear error at the third time", T, async () => {
  await start(page, { tokens: 200, every: 10 });
  await streaming(page);
  assert.ok(await browser.killOffscreen());
  assert.deepEqual([await end(page), await heard(page)], ["done", text(200)]);
  assert.deepEqual(await page.evaluate("events"), [{ type: "disconnect", detail: {} }]);
  const stream = await page.evaluate(() => /** @type {any} */ (window).parts);
  assert.ok(stream.every((/** @type {string} */ part) => part === "id,object,created,model,choices"), "tokens are not the page's");
  await start(page, { tokens: 100_000, every: 10 });
  for (const _ of [1, 2, 3]) {
    const before = (await heard(page)).length;
    await until(async () => (await heard(page)).length > before, "the answer to go on");
    assert.ok(await browser.killOffscreen());
  }
  assert.equal(await end(page), "OperationError disconnected");
  assert.ok(text(100_000).startsWith(await heard(page)));
  assert.equal(await complete(page, { tokens: 3 }), text(3));
});

test("killed before the first chunk: the request is sent again by itself, and answered once", T, async () => {
  const kills = {
    "offscreen document": () => browser.killOffscreen(),
    "both": () => Promise.all([browser.killServiceWorker(), browser.killOffscreen()]),
    "document reloaded": () => browser.inOffscreen("setTimeout(() => location.reload())"),
    "worker": () => complete(page, { crash: true }),
  };
  for (const [what, kill] of Object.entries(kills)) {
    await start(page, { tokens: 2, every: 1000 });
    const whole = complete(page, { tokens: 4, every: 400 });
    await until(async () => (await log(page)).filter(({ method }) => method === "chat.completions").length >= 2, "the requests to arrive");
    await kill();
    assert.equal(await end(page), "done", what);
    assert.equal(await heard(page), text(2), what);
    assert.equal(await whole, text(4), what);
  }
  // The crashes have paused the site.
  await browser.killOffscreen();
});

test("kills at any moment: every answer comes, and none is wrong", { timeout: 120_000 }, async () => {
  const asking = page.evaluate(async () => {
    const w = /** @type {any} */ (window);
    w.stop = false;
    /** @type {Record<string, number>} */
    const seen = {};
    const ask = async (/** @type {number} */ every) => {
      while (!w.stop) {
        let heard = "";
        let how = "done";
        try {
          const messages = [{ role: /** @type {const} */ ("user"), content: JSON.stringify({ tokens: 6, every }) }];
          for await (const { choices } of await doppler.chat.completions.create({ messages, stream: true })) heard += choices[0]?.delta.content ?? "";
          if (heard !== "t0 t1 t2 t3 t4 t5 ") how = `wrong: ${heard}`;
        } catch (error) {
          how = `${/** @type {any} */ (error).reason}${heard ? " in the middle" : " before the first"}`;
          if (!"t0 t1 t2 t3 t4 t5 ".startsWith(heard)) how = `wrong: ${heard}`;
        }
        seen[how] = (seen[how] ?? 0) + 1;
      }
    };
    await Promise.all([30, 70, 110].map(ask));
    return seen;
  });
  // Longer than an answer takes: none meets three.
  for (const pause of [750, 940, 710, 1010, 860, 1130]) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    await browser.killOffscreen();
    if (pause % 4 === 0) await browser.killServiceWorker();
  }
  await page.evaluate(() => { /** @type {any} */ (window).stop = true; });
  const { done, ...others } = await asking;
  assert.deepEqual(others, {});
  assert.ok(/** @type {number} */ (done) > 0);
});

test("a worker that does not answer any more is ended: what runs goes on, what had not begun is answered, and so is the next", T, async () => {
  const other = await browser.open(browser.localhost);
  await start(page, { tokens: 200, every: 10 });
  await streaming(page);
  await start(other, { tokens: 3, every: 800 });
  const culprit = await otherSite();
  const blocking = await complete(culprit, { block: true });
  assert.deepEqual([blocking.name, blocking.reason], ["OperationError", "engine_stopped"]);
  assert.deepEqual([await end(page), await heard(page)], ["done", text(200)]);
  assert.deepEqual([await end(other), await heard(other)], ["done", text(3)]);
  assert.equal(await complete(page, { tokens: 3 }), text(3));
  await browser.killOffscreen();
  await Promise.all([other.close(), culprit.close()]);
});

test("the router opened in a tab is no second one", T, async () => {
  const tab = await browser.openOwn("offscreen/offscreen.html");
  await start(page, { tokens: 20, every: 5 });
  assert.equal(await end(page), "done");
  assert.equal(await heard(page), text(20));
  await tab.reload();
  assert.equal(await complete(page, { tokens: 3 }), text(3));
  await tab.close();
});

test("while a site is answered the icon says so, the status names it, and the user can stop it", T, async () => {
  const options = await browser.openOwn("options/options.html");
  const badge = () => options.evaluate(() => chrome.action.getBadgeText({}));
  const ask = asking(options);
  await until(async () => await badge() === "", "the icon to show nothing");
  assert.deepEqual((await ask("engine.status")).sites, []);
  await start(page, { tokens: 100_000, every: 20 });
  await streaming(page);
  await until(async () => await badge() === "1", "the icon to show a site");
  assert.equal(await options.evaluate(() => chrome.action.getTitle({})), `DOPPLER answers ${new URL(browser.localhost).host}`);
  assert.deepEqual((await ask("engine.status")).sites, [browser.localhost]);
  await ask("activity.stop", { origin: browser.loopback });
  await ask("activity.stop", { origin: browser.localhost });
  assert.equal(await end(page), "AbortError stopped_by_user");
  await until(async () => await badge() === "", "the icon to be as before");
  assert.deepEqual((await ask("engine.status")).sites, []);
  await options.close();
});

test("the options list the sites and the user's own chats, and stop them one by one", T, async () => {
  const options = await browser.openOwn("options/options.html");
  const ask = asking(options);
  await options.locator("#idle:visible").waitFor();
  await start(page, { hang: true });
  const { id } = await ask("conversations.send", { text: '{"hang":true}' });
  const row = (/** @type {string} */ name) => options.locator("#activity").getByRole("row", { name });
  for (const name of ["Your chats", browser.localhost]) await row(name).getByText("1 waiting").waitFor();
  // The row stays, and the focus with it, while its figures change.
  const stop = options.getByRole("button", { name: `Stop ${browser.localhost}` });
  await stop.focus();
  await start(page, { hang: true });
  await row(browser.localhost).getByText("2 waiting").waitFor();
  assert.equal(await options.evaluate(() => document.activeElement?.textContent), "Stop");
  await stop.press("Enter");
  assert.equal(await end(page), "AbortError stopped_by_user");
  await options.locator("#activity-status", { hasText: `${browser.localhost} was stopped.` }).waitFor();
  await row(browser.localhost).waitFor({ state: "detached" });
  await options.getByRole("button", { name: "Stop your chats" }).click();
  await options.locator("#idle:visible").waitFor();
  const { conversation } = await ask("conversations.get", { id });
  assert.equal(conversation.messages.at(-1).state, "stopped");
  await ask("conversations.delete", { id });
  await options.close();
});

test("the engine is told whether the page is visible, and the page cannot lie about it", T, async () => {
  const tab = await browser.open(browser.localhost);
  const stranger = await otherSite();
  /** Of its requests. */
  const priorities = async () => (await log(stranger)).filter(({ method }) => method === "chat.completions").map(({ priority }) => priority);
  const visibility = (/** @type {string} */ state) => `Object.defineProperty(document, "visibilityState", { value: "${state}", configurable: true });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }))`;
  await tab.evaluate(visibility("hidden"));
  await complete(tab, { tokens: 1 });
  assert.equal((await priorities()).at(-1), "foreground");
  await tab.evaluate(visibility("visible"));
  await browser.inBridge(tab, visibility("hidden"));
  await complete(tab, { tokens: 1 });
  assert.equal((await priorities()).at(-1), "background");

  const before = (await priorities()).length;
  // Four run, and the fifth has the priority of the moment when it starts.
  await tab.evaluate(() => {
    const w = /** @type {any} */ (window);
    w.abort = new AbortController();
    w.first = new AbortController();
    for (let i = 0; i < 5; i++) {
      const signal = i === 0 ? w.first.signal : w.abort.signal;
      doppler.chat.completions.create({ messages: [{ role: "user", content: `{"hang":true}` }] }, { signal }).catch(() => {});
    }
  });
  await until(async () => (await priorities()).length === before + 4, "four to run");
  await browser.inBridge(tab, visibility("visible"));
  await tab.evaluate(() => /** @type {any} */ (window).first.abort());
  await until(async () => (await priorities()).length === before + 5, "the one that waited to start");
  assert.deepEqual((await priorities()).slice(before), [...Array(4).fill("background"), "foreground"]);
  await Promise.all([tab.close(), stranger.close()]);
});

test("the popup names the sites that are answered, and stops them", T, async () => {
  await start(page, { tokens: 100_000, every: 20 });
  await streaming(page);
  const popup = await browser.openOwn("popup/popup.html");
  await popup.locator("#sites-text", { hasText: `Answers ${new URL(browser.localhost).host}` }).waitFor();
  await popup.locator("#sites button").click();
  assert.equal(await end(page), "AbortError stopped_by_user");
  await popup.locator("#sites").waitFor({ state: "hidden" });
  await popup.close();
});

test("offscreen document and service worker are killed together", T, async () => {
  await start(page, { tokens: 200, every: 10 });
  await streaming(page);
  await Promise.all([browser.killServiceWorker(), browser.killOffscreen()]);
  assert.deepEqual([await end(page), await heard(page)], ["done", text(200)]);
  assert.equal(await complete(page, { tokens: 3 }), text(3));
});

test("ten tabs that start at the same time share one engine", T, async () => {
  await browser.killOffscreen();
  const tabs = await Promise.all(Array.from({ length: 10 }, () => browser.open(browser.localhost)));
  const answers = await Promise.all(tabs.map((tab) => complete(tab, { tokens: 5, every: 2 })));
  assert.deepEqual(new Set(answers), new Set([text(5)]));
  const documents = (await browser.targets()).filter(({ url }) => url.endsWith("/offscreen/offscreen.html"));
  assert.equal(documents.length, 1);
  await Promise.all(tabs.map((tab) => tab.close()));
});

test("quota: four of an origin run, sixteen wait, over all its tabs; other origins do not notice", T, async () => {
  const tabs = await Promise.all([1, 2].map(() => browser.open(browser.localhost)));
  const chats = async () => (await log(stranger)).filter(({ method }) => method === "chat.completions").length;
  const stranger = await browser.open(browser.loopback);
  if (await stranger.evaluate(() => doppler.permissions.query().then(({ state }) => state)) !== "granted") await browser.grant(stranger, "once");
  const before = await chats();
  const ask = (/** @type {Page} */ tab, /** @type {number} */ times) => tab.evaluate((times) => {
    const w = /** @type {any} */ (window);
    w.abort = new AbortController();
    w.results = [];
    for (let i = 0; i < times; i++) {
      const messages = [{ role: /** @type {const} */ ("user"), content: `{"hang":true}` }];
      doppler.chat.completions.create({ messages }, { signal: w.abort.signal }).catch(({ name, reason }) => w.results.push(`${name} ${reason}`));
    }
  }, times);
  for (const tab of tabs) await ask(tab, 10);
  await until(async () => await chats() === before + 4, "four to run");
  await ask(/** @type {Page} */ (tabs[0]), 1);
  // Whose request comes last is a matter of chance between two tabs: exactly one of them is refused.
  const refused = async () => (await Promise.all(tabs.map((tab) => tab.evaluate(() => /** @type {any} */ (window).results)))).flat();
  await until(async () => (await refused()).length > 0, "a refusal");
  assert.deepEqual(await refused(), ["QuotaExceededError too_many_requests"]);
  assert.equal(await complete(stranger, { tokens: 2 }), text(2));
  assert.equal(await chats(), before + 5, "no more than four ran");
  // Closing one tab makes room for the other's.
  await tabs[0]?.close();
  await until(async () => await chats() >= before + 5 + 4, "the other tab's turn");
  await Promise.all([tabs[1]?.close(), stranger.close()]);
  assert.equal(await complete(page, { tokens: 2 }), text(2));
});

test("a page in the back/forward cache is cut off cleanly and can ask again when it returns", T, async () => {
  const tab = await browser.open(browser.localhost);
  await start(tab, { tokens: 100_000, every: 10 });
  await streaming(tab);
  await tab.evaluate(() => addEventListener("pageshow", ({ persisted }) => { document.title = `persisted ${persisted}`; }));
  await tab.goto(browser.loopback);
  await tab.goBack();
  const cached = (await tab.title()) === "persisted true";
  if (cached) assert.equal(await end(tab), "OperationError disconnected");
  assert.equal(await complete(tab, { tokens: 3 }), text(3));
  await tab.close();
});

test("the way to the engine and back costs less than 5 ms", T, async () => {
  const { first_chunk_overhead_ms, round_trip_ms } = await measureOverhead(page, { content: '{"tokens":1}', samples: 100 });
  assert.ok(first_chunk_overhead_ms.median < 5, `first chunk ${JSON.stringify(first_chunk_overhead_ms)}`);
  assert.ok(round_trip_ms.median < 5, `round trip ${JSON.stringify(round_trip_ms)}`);
});

test("a message longer than 1 MiB is refused with an error that says so", T, async () => {
  const error = await page.evaluate(() => doppler.chat.completions.create({ messages: [{ role: "user", content: "x".repeat(1 << 20) }] })
    .then(() => "done", (/** @type {any} */ { name, reason }) => `${name} ${reason}`));
  assert.equal(error, "QuotaExceededError message_too_long");
});

test("public errors reach the page as they are", T, async () => {
  const { code: reason, ...rest } = { name: "QuotaExceededError", message: "Too long.", code: "context_length_exceeded", data: { requested: 900, quota: 512 } };
  const seen = await page.evaluate(async (content) => {
    try {
      await doppler.chat.completions.create({ messages: [{ role: "user", content }], stream: true });
      return "done";
    } catch (thrown) {
      const error = /** @type {any} */ (thrown);
      const { name, message, code, reason, data, requested, quota } = error;
      return { dom: error instanceof DOMException, name, message, code, reason, data, requested, quota };
    }
  }, JSON.stringify({ error: { ...rest, code: reason, public: true } }));
  assert.deepEqual(seen, { dom: true, ...rest, code: 22, reason, requested: 900, quota: 512 });
});

test("errors that tell of the user's files do not reach the page", T, async () => {
  const error = { name: "NetworkError", message: "secret.gguf is not where it was.", code: "not_found" };
  const { name, reason, message } = await complete(page, { error });
  assert.deepEqual([name, reason], ["OperationError", "model_unavailable"]);
  assert.match(message, /DOPPLER's popup/);
});

test("the extension is reloaded under an open page: the page is told once to reload, and every call says so", T, async () => {
  await complete(page, { tokens: 1 });
  const options = await browser.openOwn("options/options.html");
  await options.evaluate(() => chrome.runtime.reload()).catch(() => {});
  await until(async () => (await complete(page, { tokens: 1 })).reason === "extension_reloaded", "the page to be cut off");
  assert.equal((await complete(page, { tokens: 1 })).reason, "extension_reloaded");
  const events = /** @type {{type: string, detail: {message?: string}}[]} */ (await page.evaluate("events"));
  const told = events.filter(({ type, detail }) => type === "disconnect" && detail.message);
  assert.equal(told.length, 1);
  assert.match(told[0]?.detail.message ?? "", /reload this page/);
});
