// The shape and manners of window.doppler. The worker is scripted; what a model says is tested in spark.test.mjs.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, ROOT, scriptedExtension, until } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */

/** A page that breaks every built-in it can before it uses doppler. */
const HOSTILE = `<!doctype html><title>Hostile</title><script>
  const broken = () => { throw new Error("broken by the page"); };
  window.own = doppler;
  try { doppler.chat.completions.create = broken } catch {}
  try { window.doppler = {} } catch {}
  window.deleted = (() => { try { return delete window.doppler } catch { return false } })();
  for (const [object, name] of [[JSON, "stringify"], [JSON, "parse"], [Array.prototype, "push"], [Map.prototype, "get"], [Map.prototype, "set"],
    [MessagePort.prototype, "postMessage"], [EventTarget.prototype, "addEventListener"], [EventTarget.prototype, "dispatchEvent"],
    [Object, "freeze"], [Object, "keys"], [Reflect, "apply"]]) object[name] = broken;
  window.AbortController = window.DOMException = window.ReadableStream = window.MessageChannel = broken;
  (async () => {
    const messages = [{ role: "user", content: '{"tokens":3}' }];
    const whole = await doppler.chat.completions.create({ messages });
    let streamed = "";
    for await (const { choices } of await doppler.chat.completions.create({ messages, stream: true })) streamed += choices[0].delta.content ?? "";
    return [own === doppler, deleted, whole.choices[0].message.content, streamed].join("|");
  })().then((result) => { document.title = result }, (error) => { document.title = "failed: " + error });
</script>`;

/** @type {Browser} */
let browser;
/** A page with a grant. @type {Page} */
let page;
before(async () => {
  browser = await launch({
    extension: await scriptedExtension(),
    pages: {
      "/hostile": { body: HOSTILE },
      "/announce": { body: `<!doctype html><title>Announce</title><script>
        addEventListener("doppler:announce", ({ detail }) => { window.announced = [detail.info.name, detail.info.version, detail.doppler === doppler, Object.isFrozen(detail)] });
        dispatchEvent(new Event("doppler:request"));
      </script>` },
    },
  });
  page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "always"), "granted");
});
after(() => browser.close());

const T = { timeout: 60_000 };

test("the version is the manifest's", T, async () => {
  const { version } = JSON.parse(await readFile(join(ROOT, "manifest.json"), "utf8"));
  assert.equal(await page.evaluate(() => doppler.version), version);
});

test("window.doppler cannot be replaced or changed, and leaves LanguageModel alone", T, async () => {
  assert.deepEqual(await page.evaluate(() => {
    const { writable, configurable } = Object.getOwnPropertyDescriptor(window, "doppler") ?? {};
    return {
      writable, configurable,
      frozen: [doppler, doppler.permissions, doppler.chat, doppler.chat.completions, doppler.models, doppler.LanguageModel, doppler.LanguageModel.prototype]
        .every((object) => Object.isFrozen(object)),
      own: Object.keys(doppler),
      shadowed: /** @type {any} */ (window).LanguageModel === doppler.LanguageModel,
      target: doppler instanceof EventTarget,
    };
  }), { writable: false, configurable: false, frozen: true, own: [], shadowed: false, target: true });
});

test("pages find it by announcement", T, async () => {
  const tab = await browser.open(`${browser.localhost}/announce`);
  assert.deepEqual(await tab.evaluate("announced"), ["DOPPLER", await page.evaluate(() => doppler.version), true, true]);
  await tab.close();
});

test("a page that never asks costs no connection", T, async () => {
  await browser.killOffscreen();
  const tab = await browser.open(browser.localhost);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(await browser.offscreenTarget(), undefined);
  await tab.close();
});

test("a page that broke its built-ins still gets answers", T, async () => {
  const tab = await browser.open(`${browser.localhost}/hostile`);
  // The tools of the test are broken there too: its title is read from another world.
  let title = "Hostile";
  await until(async () => (title = await browser.inBridge(tab, "document.title")) !== "Hostile", "the page's answer");
  assert.equal(title, "true|false|t0 t1 t2 |t0 t1 t2");
  await tab.close();
});

test("a stream is read once, resolves with its first chunk and carries usage and timings at its end", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const messages = [{ role: /** @type {const} */ ("user"), content: '{"tokens":2}' }];
    const stream = await doppler.chat.completions.create({ messages, stream: true });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const again = await (async () => { for await (const _ of stream); })().catch(({ name }) => name);
    const last = chunks.at(-1);
    return [chunks.length, chunks[0]?.object, last?.choices[0]?.finish_reason, last?.usage?.completion_tokens, typeof last?.timings?.first_token_ms, again];
  }), [3, "chat.completion.chunk", "stop", 2, "number", "InvalidStateError"]);
});

test("wrong arguments are refused by name", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const any = /** @type {any} */ (doppler);
    const circular = /** @type {any} */ ({ messages: [] });
    circular.self = circular;
    const of = (/** @type {() => Promise<unknown>} */ call) => call().then(() => "done", ({ name }) => name);
    return Promise.all([
      of(() => any.models.list({ signal: {} })),
      of(() => any.chat.completions.create(circular)),
      of(async () => new any.LanguageModel()),
    ]);
  }), ["TypeError", "TypeError", "TypeError"]);
});

test("LanguageModel: availability, params, create, prompt, promptStreaming", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const { LanguageModel } = doppler;
    /** @type {number[]} */
    const progress = [];
    const session = await LanguageModel.create({
      temperature: 0, topK: 1,
      initialPrompts: [{ role: "system", content: "sys" }],
      monitor: (target) => target.addEventListener("downloadprogress", (event) => progress.push(/** @type {ProgressEvent} */ (event).loaded)),
    });
    const before = [session.contextUsage, session.contextWindow, session.temperature, session.topK];
    const answer = await session.prompt('{"tokens":2}');
    /** @type {string[]} */
    const deltas = [];
    for await (const delta of /** @type {any} */ (session.promptStreaming([{ role: "user", content: [{ type: "text", value: '{"tokens":3}' }] }]))) deltas.push(delta);
    return {
      availability: await LanguageModel.availability(),
      params: await LanguageModel.params(),
      instance: session instanceof /** @type {any} */ (LanguageModel),
      progress, before, answer, deltas, after: session.contextUsage,
    };
  }), {
    availability: "available",
    params: { defaultTopK: 40, maxTopK: 128, defaultTemperature: 0, maxTemperature: 2 },
    instance: true,
    progress: [0, 1], before: [3, 100, 0, 1], answer: "t0 t1 ", deltas: ["t0 ", "t1 ", "t2 "], after: 4,
  });
});

test("LanguageModel: progress is the model's while it is loaded, and an abort in its listener is heeded", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const initialPrompts = [{ role: /** @type {const} */ ("user"), content: '{"progress":[0,0.3,0.6,1],"every":20}' }];
    /** @type {number[]} */
    const progress = [];
    const listen = (/** @type {EventTarget} */ target, then = (/** @type {number} */ _loaded) => {}) =>
      target.addEventListener("downloadprogress", (event) => {
        progress.push(/** @type {ProgressEvent} */ (event).loaded);
        then(/** @type {ProgressEvent} */ (event).loaded);
      });
    await doppler.LanguageModel.create({ initialPrompts, monitor: (target) => listen(target) });
    const whole = progress.splice(0);
    const abort = new AbortController();
    const aborted = await doppler.LanguageModel.create({
      initialPrompts, signal: abort.signal, monitor: (target) => listen(target, (loaded) => { if (loaded === 0.3) abort.abort(); }),
    }).catch(({ name }) => name);
    return { whole, aborted, part: progress };
  }), { whole: [0, 0.3, 0.6, 1], aborted: "AbortError", part: [0, 0.3] });
});

test("LanguageModel: promptStreaming throws at once for an aborted signal", T, async () => {
  assert.equal(await page.evaluate(async () => {
    const session = await doppler.LanguageModel.create();
    try {
      session.promptStreaming("x", { signal: AbortSignal.abort() });
      return "a stream";
    } catch (error) {
      return /** @type {Error} */ (error).name;
    }
  }), "AbortError");
});

test("an error is the platform's own, with its number, and keeps it where it is cloned", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const content = JSON.stringify({ error: { name: "NotSupportedError", message: "No.", code: "unsupported_field", public: true, data: { param: "x" } } });
    const error = await doppler.chat.completions.create({ messages: [{ role: "user", content }] }).catch((error) => error);
    const session = await doppler.LanguageModel.create();
    const tooLong = await session.append("x".repeat(100)).catch((error) => error);
    const { QuotaExceededError = DOMException } = /** @type {any} */ (window);
    return {
      number: [error.code, structuredClone(error).code], reason: error.reason, data: error.data,
      own: [error instanceof DOMException, tooLong instanceof DOMException, tooLong instanceof QuotaExceededError],
      quota: [tooLong.name, tooLong.quota, tooLong.requested, session.contextWindow],
    };
  }), {
    number: [9, 9], reason: "unsupported_field", data: { param: "x" }, own: [true, true, true], quota: ["QuotaExceededError", 100, 100, 100],
  });
});

test("a script of the page does not get the shim's port to the extension", T, async () => {
  const tab = await browser.open(browser.localhost);
  assert.equal(await tab.evaluate(() => {
    let ports = 0;
    addEventListener("doppler:connect", (event) => { ports += /** @type {MessageEvent} */ (event).ports.length; }, true);
    dispatchEvent(new Event("doppler:bridge"));
    return ports;
  }), 0);
  assert.equal(await tab.evaluate(() => doppler.models.list().then(({ object }) => object)), "list");
  await tab.close();
});

test("a host with the dot of a complete name has the object and the engine", T, async () => {
  const tab = await browser.open(browser.localhost.replace("localhost", "localhost."));
  assert.equal(await tab.evaluate(() => doppler.permissions.query().then(({ state }) => state)), "prompt", "it is another origin");
  await tab.close();
});

test("LanguageModel: measure, append, clone, overflow", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const session = await doppler.LanguageModel.create({ initialPrompts: [{ role: "system", content: "1234567890" }] });
    let overflows = 0;
    session.addEventListener("contextoverflow", () => { overflows++; });
    const measured = await session.measureContextUsage("12345");
    await session.append("x".repeat(40));
    const clone = await session.clone();
    await session.append("y".repeat(40));
    const full = [session.contextUsage, overflows];
    await session.append("z".repeat(40));
    const forgot = [session.contextUsage, overflows];
    const tooLong = await session.append("z".repeat(91)).catch(({ name, reason, data }) => [name, reason, data]);
    return { measured, full, forgot, tooLong, clone: clone.contextUsage, usage: session.contextUsage };
  }), {
    measured: 5, full: [90, 0], forgot: [90, 1], tooLong: ["QuotaExceededError", "context_length_exceeded", { requested: 101, quota: 100 }], clone: 50, usage: 90,
  });
});

test("LanguageModel: what is not supported is refused, not ignored", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const model = /** @type {any} */ (doppler.LanguageModel);
    const session = await model.create();
    const of = (/** @type {() => Promise<unknown>} */ call) => call().then((result) => result, ({ name, reason, data }) => data?.param ? `${name} ${reason} ${data.param}` : name);
    return Promise.all([
      of(() => session.prompt("x", { responseConstraint: { type: "object" } })),
      of(() => session.prompt([{ role: "user", content: [{ type: "image", value: null }] }])),
      of(() => session.prompt([{ role: "assistant", content: "{", prefix: true }])),
      of(() => session.prompt([{ role: "system", content: "late" }])),
      of(() => model.create({ tools: [{ name: "t" }] })),
      of(() => model.create({ expectedInputs: [{ type: "image" }] })),
      of(() => model.create({ temperature: -1 })),
      of(() => model.create({ topK: 0 })),
      of(() => model.availability({ expectedInputs: [{ type: "audio" }] })),
      of(() => model.availability({ expectedInputs: [{ type: "text", languages: ["en"] }] })),
    ]);
  }), [
    "NotSupportedError unsupported_field responseConstraint", "NotSupportedError unsupported_field content",
    "NotSupportedError unsupported_field prefix", "TypeError", "NotSupportedError unsupported_field tools",
    "NotSupportedError unsupported_field expectedInputs", "RangeError", "RangeError", "unavailable", "available",
  ]);
});

test("LanguageModel: aborting and destroying", T, async () => {
  assert.deepEqual(await page.evaluate(async () => {
    const hang = '{"hang":true}';
    const name = (/** @type {any} */ error) => error.name;
    const life = new AbortController();
    const session = await doppler.LanguageModel.create({ signal: life.signal });
    const once = new AbortController();
    const first = session.prompt(hang, { signal: once.signal }).catch(name);
    const queued = session.prompt('{"tokens":1}');
    once.abort();
    const aborted = [await first, await queued];
    const reader = session.promptStreaming(hang).getReader();
    const read = reader.read();
    await reader.cancel();
    const after = [(await read).done, await session.prompt('{"tokens":1}')];
    const last = session.prompt(hang).catch(name);
    life.abort();
    const destroyed = [await last, await session.prompt("x").catch(name), await session.clone().catch(name)];
    return { aborted, after, destroyed, failed: await doppler.LanguageModel.create({ signal: AbortSignal.abort() }).catch(name) };
  }), {
    aborted: ["AbortError", "t0 "], after: [true, "t0 "], destroyed: ["AbortError", "InvalidStateError", "InvalidStateError"], failed: "AbortError",
  });
});
