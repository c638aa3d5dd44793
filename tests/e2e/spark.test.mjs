// The whole path with the real engine and the embedded model, on whatever GPU the browser has (SwiftShader without one).
// What the model must say comes from tests/fixtures/spark/goldens-q8_0.json: greedy answers of Hugging Face transformers.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { isSoftware } from "../../extension/bench/report.js";
import { copyExtension, launch, ROOT, until } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */
/** @typedef {import("../../extension/page/doppler.js").ChatMessage} ChatMessage */
/** @typedef {import("../../extension/page/doppler.js").ChatCompletionRequest} ChatCompletionRequest */
/**
 * @typedef {{name: string, messages: ChatMessage[], tools: object[] | null, continuation_text: string, prompt_ids: number[], continuation_ids: number[], min_margin: number}} Golden
 */

const MODEL = "extension/models/spark-28m-q8_0.gguf";
/** Software rendering compiles every shader on the CPU. */
const T = { timeout: 150_000 };

/** Of the references so many, the shortest, where there is only a software GPU, which says a word or two in a second: native tests compare all. */
const ON_SOFTWARE = 4;
/** Relative to the largest logit of the step, in single precision. */
const LOGIT_ERROR = 2e-3;

/** @type {Golden[]} */
const goldens = JSON.parse(await readFile(join(ROOT, "tests/fixtures/spark/goldens-q8_0.json"), "utf8")).prompts;
/** @param {string} name @returns {Golden} */
const golden = (name) => goldens.find((golden) => golden.name === name) ?? assert.fail(`no golden ${name}`);

/** About the time a reference takes: a token of an answer as much as four of a prompt. @param {Golden} golden */
const cost = ({ prompt_ids, continuation_ids }) => prompt_ids.length + 4 * continuation_ids.length;

/** An answer of three tokens: for asking whether the engine serves on. */
const SHORT = golden("category");

/** @type {Browser} */
let browser;
/** A page with a grant. @type {Page} */
let page;
before(async () => {
  browser = await launch();
  browser.context.setDefaultTimeout(100_000);
  page = await browser.open(browser.localhost);
  assert.equal(await browser.grant(page, "always"), "granted");
}, T);
after(() => browser.close());

/**
 * @param {Page} page
 * @param {ChatCompletionRequest} request
 * @returns {Promise<any>}  the completion or the error
 */
const complete = (page, request) => page.evaluate((request) => doppler.chat.completions.create(request)
  .catch((/** @type {any} */ { name, reason, message, data }) => ({ error: { name, reason, message, data } })), request);

/** @param {Golden} golden @returns {ChatCompletionRequest} */
const greedy = ({ messages, tools }) => ({ messages, ...(tools ? { tools } : {}), temperature: 0, max_tokens: 64 });

/** @param {Page} page @param {Golden} golden */
async function assertAnswers(page, golden) {
  const completion = await complete(page, greedy(golden));
  assert.deepEqual(completion.error, undefined);
  assert.equal(completion.choices[0].message.content, golden.continuation_text);
}

/**
 * Starts a streamed answer in a page: `chunks` fills, `ended` is set to how it ended.
 * @param {Page} page
 * @param {ChatCompletionRequest} request
 */
const start = (page, request) => page.evaluate((request) => {
  const w = /** @type {any} */ (window);
  w.chunks = [];
  w.ended = undefined;
  w.abort = new AbortController();
  void (async () => {
    try {
      for await (const chunk of await doppler.chat.completions.create({ ...request, stream: true }, { signal: w.abort.signal })) w.chunks.push(chunk);
      w.ended = "done";
    } catch (error) {
      w.ended = /** @type {any} */ (error).name;
    }
  })();
}, request);
/** @param {Page} page */
const streaming = (page) => page.waitForFunction(() => /** @type {any} */ (window).chunks.length > 0 || /** @type {any} */ (window).ended);
/** @param {Page} page @returns {Promise<{ended: string, text: string, chunks: any[]}>} */
async function finished(page) {
  await page.waitForFunction(() => /** @type {any} */ (window).ended);
  const { ended, chunks } = await page.evaluate(() => ({ ended: /** @type {any} */ (window).ended, chunks: /** @type {any} */ (window).chunks }));
  return { ended, chunks, text: chunks.map((/** @type {any} */ { choices }) => choices[0]?.delta.content ?? "").join("") };
}

test("a question is answered, whole", T, async () => {
  const { choices, usage, timings, model, object } = await complete(page, greedy(golden("fixed-1")));
  assert.equal(choices[0].message.content, "I am Spark, a tiny language model that ships with DOPPLER and runs inside your browser on WebGPU.");
  assert.equal(choices[0].finish_reason, "stop");
  assert.equal(object, "chat.completion");
  assert.equal(usage.prompt_tokens, golden("fixed-1").prompt_ids.length);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  assert.ok(timings.first_token_ms > 0 && timings.decode_tokens_per_second > 0);
  const { data } = await page.evaluate(() => doppler.models.list());
  assert.equal(data[0]?.id, model);
});

test("a question is answered as a stream, in order, with usage in the last chunk", T, async () => {
  await start(page, { ...greedy(golden("opposite")), stream_options: { include_usage: true } });
  const { ended, chunks, text } = await finished(page);
  assert.equal(ended, "done");
  assert.equal(text, golden("opposite").continuation_text);
  assert.ok(chunks.length > 3, `${chunks.length} chunks`);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.equal(chunks.at(-1).usage.prompt_tokens, golden("opposite").prompt_ids.length);
});

test("every reference prompt: the same text, token ids, greedy answer, and logits", { timeout: 2 * T.timeout }, async (t) => {
  const options = await browser.openOwn("options/options.html");
  await options.evaluate(async () => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    /** @type {any} */ (window).engine = await connectEngine();
  });
  const ask = (/** @type {string} */ method, params = {}) => options.evaluate(
    ({ method, params }) => /** @type {any} */ (window).engine.request(method, params), { method, params });

  await ask("tokens.count", { messages: SHORT.messages }); // loads the model, if no test before did
  const { adapter } = await ask("engine.status");
  t.diagnostic(`adapter: ${JSON.stringify(adapter)}`);
  const half = adapter.features.includes("shader-f16");
  const [logitError, nearTie] = half ? [2e-2, 2e-2] : [LOGIT_ERROR, 1e-3];
  /** @type {string[]} */
  const different = [];
  const wanted = isSoftware({ adapter }) ? ON_SOFTWARE : goldens.length;
  let compared = 0;
  for (const [place, golden] of goldens.toSorted((a, b) => cost(a) - cost(b)).entries()) {
    await t.test(golden.name, { skip: place >= wanted && "too long for a software GPU" }, async () => {
      compared++;
      const { results: [result] } = await ask("engine.verify", { prompts: [golden] });
      assert.ok(result.text_equal && result.prompt_equal && (result.logit_error ?? 0) <= logitError, JSON.stringify(result));
      if (result.greedy_equal) return;
      assert.ok(result.min_margin < nearTie, JSON.stringify(result));
      different.push(`${golden.name} after ${result.matching} tokens`);
    });
  }
  await options.close();
  t.diagnostic(`near-ties that went the other way: ${different.join(", ") || "none"}`);
  assert.ok(different.length <= 2, different.join(", "));
  assert.equal(compared, wanted);
});

test("characters of several bytes are never torn", T, async () => {
  for (const name of ["fixed-2", "fixed-3"]) {
    await start(page, greedy(golden(name)));
    const { text, chunks } = await finished(page);
    assert.equal(text, golden(name).continuation_text);
    assert.ok(chunks.every(({ choices }) => !(choices[0]?.delta.content ?? "").includes("\uFFFD")));
  }
});

test("two tabs at once get their own answers", T, async () => {
  const other = await browser.open(browser.loopback);
  await browser.grant(other, "once");
  await Promise.all([assertAnswers(page, golden("yesno")), assertAnswers(other, golden("add2")), assertAnswers(page, golden("translate"))]);
  await other.close();
});

test("the options list who is answered, how fast, and stop one while the other goes on", { timeout: 2 * T.timeout }, async () => {
  const other = await browser.open(browser.loopback);
  await browser.grant(other, "once");
  // Again and again: where the GPU is fast an answer is over before anybody sees it.
  const ask = (/** @type {Page} */ page) => page.evaluate((request) => {
    const w = /** @type {any} */ (window);
    [w.pieces, w.ended, w.abort] = [0, undefined, new AbortController()];
    const repeat = async () => {
      for (;;) {
        for await (const _ of await doppler.chat.completions.create({ ...request, stream: true }, { signal: w.abort.signal })) w.pieces++;
      }
    };
    repeat().catch(({ name, reason }) => { w.ended = reason ?? name; });
  }, greedy(golden("story")));
  const pieces = (/** @type {Page} */ page) => page.evaluate(() => /** @type {any} */ (window).pieces);
  await Promise.all([ask(page), ask(other)]);

  const options = await browser.openOwn("options/options.html");
  const row = (/** @type {string} */ origin) => options.locator("#activity").getByRole("row", { name: origin });
  const cells = (/** @type {string} */ origin) => row(origin).getByRole("cell").allInnerTexts();
  for (const origin of [browser.localhost, browser.loopback]) {
    await until(async () => {
      const [model, rate] = await cells(origin).catch(() => []);
      return model === "Spark 28M" && Number(rate) > 0;
    }, `${origin} to be answered`, T.timeout);
  }
  assert.match(await options.locator("#memory").innerText(), /^Spark 28M takes \d+\.\d MB of graphics memory/);

  const stop = options.getByRole("button", { name: `Stop ${browser.loopback}` });
  await until(async () => {
    // Between two answers there is nothing to stop.
    await stop.press("Enter", { timeout: 1000 }).catch(() => {});
    return await other.evaluate(() => /** @type {any} */ (window).ended) === "stopped_by_user";
  }, "the answer to be stopped", T.timeout);
  assert.equal(await options.evaluate(() => document.activeElement?.id), "activity-title");
  await row(browser.loopback).waitFor({ state: "detached" });
  const before = await pieces(page);
  await until(async () => await pieces(page) > before, "the other to go on", T.timeout);
  assert.ok((await cells(browser.localhost)).length > 0);
  await page.evaluate(() => /** @type {any} */ (window).abort.abort());
  await options.locator("#idle:visible").waitFor();
  await Promise.all([options.close(), other.close()]);
});

test("the service worker is killed in mid-stream: the answer completes, no token lost or doubled", T, async () => {
  await start(page, greedy(golden("mul")));
  await streaming(page);
  assert.ok(await browser.killServiceWorker());
  const { ended, text } = await finished(page);
  assert.equal(ended, "done");
  assert.equal(text, golden("mul").continuation_text);
});

test("an aborted request ends at once and the engine serves on", T, async () => {
  await start(page, greedy(golden("story")));
  await streaming(page);
  await page.evaluate(() => /** @type {any} */ (window).abort.abort());
  const { ended, text } = await finished(page);
  assert.equal(ended, "AbortError");
  assert.ok(text.length < golden("story").continuation_text.length);
  await assertAnswers(page, SHORT);
});

test("a page that closes in mid-answer leaves the engine free", T, async () => {
  const other = await browser.open(browser.localhost);
  await start(other, greedy(golden("story")));
  await streaming(other);
  await other.close();
  await assertAnswers(page, SHORT);
});

test("a prompt longer than the context is refused with the numbers, and the engine serves on", T, async () => {
  const { error } = await complete(page, { messages: [{ role: "user", content: "word ".repeat(20_000) }] });
  assert.equal(error.name, "QuotaExceededError");
  assert.ok(error.data.requested > error.data.quota && error.data.quota > 0, JSON.stringify(error.data));
  await assertAnswers(page, SHORT);
});

test("what is not supported, not known or not well-formed is refused by name", T, async () => {
  const { messages } = SHORT;
  const refused = async (/** @type {object} */ fields) => {
    const { error } = await complete(page, /** @type {any} */ ({ messages, ...fields }));
    return error && `${error.name} ${error.data?.param ?? ""}`.trim();
  };
  assert.equal(await refused({ logit_bias: { 1: 100 } }), "NotSupportedError logit_bias");
  assert.equal(await refused({ response_format: { type: "json_object" } }), "NotSupportedError response_format");
  assert.equal(await refused({ n: 2 }), "NotSupportedError n");
  assert.equal(await refused({ model: "gpt-4" }), "NotFoundError");
  assert.equal(await refused({ temperature: "hot" }), "TypeError temperature");
  assert.equal(await refused({ messages: "hello" }), "TypeError messages");
  assert.equal(await refused({ messages: [{ role: "user", content: [{ type: "image_url", image_url: {} }] }] }), "NotSupportedError messages[0].content");
});

test("a request as deep as none of a page's is answered with an error, by an engine that goes on", T, async () => {
  const own = await browser.openOwn("options/options.html");
  const codes = await own.evaluate(async () => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const engine = await connectEngine();
    const refused = [];
    for (const depth of [130, 2_200]) {
      let content = /** @type {any} */ ([]);
      for (let i = 0; i < depth; i++) content = [content];
      refused.push(await engine.request("tokens.count", { messages: [{ role: "user", content }] }).catch((/** @type {any} */ { code, message }) => `${code} ${message}`));
    }
    engine.close();
    return refused;
  });
  for (const code of codes) assert.match(code, /^invalid_request request cannot be read: recursion limit exceeded/);
  await own.close();
  await assertAnswers(page, SHORT);
});

test("an answer's id is random: it tells nothing of how much others ask", T, async () => {
  const ids = [];
  for (let i = 0; i < 2; i++) ids.push((await complete(page, { ...greedy(SHORT), max_tokens: 1 })).id);
  for (const id of ids) assert.match(id, /^chatcmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(new Set(ids.map((id) => id.slice(0, 17))).size, 2);
});

test("sampling: a seed repeats itself, stop strings and max_tokens end the answer", T, async () => {
  const ask = async (/** @type {object} */ fields) => {
    const { choices, usage, error } = await complete(page, { ...greedy(golden("fixed-1")), ...fields });
    assert.equal(error, undefined);
    return { text: choices[0].message.content, finish: choices[0].finish_reason, tokens: usage.completion_tokens };
  };
  const warm = { temperature: 1.5, top_p: 0.95, seed: 7, max_tokens: 4 };
  assert.deepEqual(await ask(warm), await ask(warm));
  const { text, finish } = await ask({ stop: [" tiny"] });
  assert.deepEqual([text, finish], ["I am Spark, a", "stop"]);
  const limited = await ask({ max_tokens: 2 });
  assert.deepEqual([limited.tokens, limited.finish], [2, "length"]);
});

test("LanguageModel answers, streams and remembers", T, async () => {
  const { messages, continuation_text } = golden("followup");
  const [first, , last] = messages;
  assert.equal(messages.length, 3);
  const result = await page.evaluate(async ([first, reply, last, short]) => {
    const { LanguageModel } = doppler;
    const session = await LanguageModel.create({ temperature: 0, topK: 1, initialPrompts: [{ role: "user", content: first }, { role: "assistant", content: reply }] });
    const usage = session.contextUsage;
    const measured = await session.measureContextUsage(last);
    let streamed = "";
    for await (const delta of /** @type {any} */ (session.promptStreaming(last))) streamed += delta;
    const grown = session.contextUsage > usage;
    session.destroy();
    return { streamed, grown, measured, window: session.contextWindow, answer: await LanguageModel.create().then((session) => session.prompt(short)) };
  }, /** @type {string[]} */ ([first?.content, messages[1]?.content, last?.content, SHORT.messages[0]?.content]));
  assert.equal(result.streamed, continuation_text);
  assert.equal(result.answer, SHORT.continuation_text);
  assert.ok(result.grown && result.measured > 0 && result.window > 1000, JSON.stringify(result));
});

/** What can end under a running answer. @type {Record<string, () => Promise<unknown>>} */
const KILLS = {
  "offscreen document": () => browser.killOffscreen(),
  "worker": () => browser.killWorker(),
  "GPU process": () => browser.killGpuProcess(),
};
for (const [what, kill] of Object.entries(KILLS)) {
  test(`${what} killed in mid-stream: the answer goes on, no token lost, doubled or changed`, { timeout: 2 * T.timeout }, async () => {
    const { continuation_text: whole, continuation_ids: ids } = golden("identity");
    await start(page, { ...greedy(golden("identity")), stream_options: { include_usage: true } });
    await streaming(page);
    assert.notEqual(await kill(), false);
    const { ended, text, chunks } = await finished(page);
    assert.deepEqual([ended, text], ["done", whole]);
    assert.equal(chunks.at(-1).usage.completion_tokens, ids.length - 1, "the last one ends the answer");
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1, "one answer");
    assert.equal(chunks.filter(({ choices }) => choices[0]?.delta.role).length, 1);
  });
}

/**
 * What is done to the model's file, and what the user is then told.
 * @type {Record<string, {spoil: (model: Buffer) => Buffer, name: string}>}
 */
const BROKEN = {
  "cut in its header": { spoil: (model) => model.subarray(0, 4096), name: "DataError" },
  "cut in its weights": { spoil: (model) => model.subarray(0, 16 << 20), name: "DataError" },
  "empty": { spoil: () => Buffer.alloc(0), name: "DataError" },
  "no GGUF": { spoil: (model) => Buffer.concat([Buffer.from("PK\u0003\u0004"), model.subarray(4)]), name: "DataError" },
  "of an unknown architecture": {
    spoil(model) {
      const copy = Buffer.from(model);
      copy.write("lemur", copy.indexOf("llama", copy.indexOf("general.architecture")));
      return copy;
    },
    name: "NotSupportedError",
  },
};

test("a broken model file is refused with a named error; put right, it answers without a restart", T, async (t) => {
  const extension = await copyExtension();
  const path = join(extension, MODEL);
  const whole = await readFile(path);
  const other = await launch({ extension });
  other.context.setDefaultTimeout(100_000);
  try {
    const tab = await other.open(other.localhost);
    await other.grant(tab, "once");
    const own = await other.openOwn("options/options.html");
    await own.evaluate(async () => {
      const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
      /** @type {any} */ (window).engine = await connectEngine();
    });
    for (const [what, { spoil, name }] of Object.entries(BROKEN)) {
      await t.test(what, async () => {
        await writeFile(path, spoil(whole));
        for (const _ of ["first", "again"]) {
          const { error } = await complete(tab, greedy(SHORT));
          assert.equal(error?.reason, "model_unavailable", "the page is told no more");
          const told = await own.evaluate(() => /** @type {any} */ (window).engine.request("engine.status"));
          assert.equal(told.error?.name, name, JSON.stringify(told));
          assert.ok(told.error.message.length > 20, told.error.message);
        }
      });
    }
    await writeFile(path, whole);
    await assertAnswers(tab, SHORT);
  } finally {
    await other.close();
  }
});
