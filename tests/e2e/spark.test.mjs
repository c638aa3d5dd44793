// The whole path with the real engine and the embedded model, on whatever GPU the browser has (SwiftShader without one).
// What the model must say comes from tests/fixtures/spark/goldens.json: greedy answers of Hugging Face transformers.

import assert from "node:assert/strict";
import { open, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { copyExtension, launch, ROOT } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */
/** @typedef {import("../../extension/page/doppler.js").ChatMessage} ChatMessage */
/** @typedef {import("../../extension/page/doppler.js").ChatCompletionRequest} ChatCompletionRequest */
/**
 * @typedef {{name: string, messages: ChatMessage[], tools: object[] | null, continuation_text: string, prompt_ids: number[], min_margin: number}} Golden
 */

const MODEL = "extension/models/spark-28m-q8_0.gguf";
/** Software rendering compiles every shader on the CPU. */
const T = { timeout: 300_000 };

/** @type {Golden[]} */
const goldens = JSON.parse(await readFile(join(ROOT, "tests/fixtures/spark/goldens.json"), "utf8")).prompts;
/** @param {string} name @returns {Golden} */
const golden = (name) => goldens.find((golden) => golden.name === name) ?? assert.fail(`no golden ${name}`);

/** @type {Browser} */
let browser;
/** A page with a grant. @type {Page} */
let page;
before(async () => {
  browser = await launch();
  browser.context.setDefaultTimeout(T.timeout);
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
  .catch((/** @type {any} */ { name, code, message, data }) => ({ error: { name, code, message, data } })), request);

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
  await start(page, { ...greedy(golden("fixed-1")), stream_options: { include_usage: true } });
  const { ended, chunks, text } = await finished(page);
  assert.equal(ended, "done");
  assert.equal(text, golden("fixed-1").continuation_text);
  assert.ok(chunks.length > 3, `${chunks.length} chunks`);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.equal(chunks.at(-1).usage.prompt_tokens, golden("fixed-1").prompt_ids.length);
});

test("every reference prompt: the same text, token ids, greedy answer, and logits", T, async (t) => {
  const options = await browser.openOwn("options/options.html");
  const { results, status } = await options.evaluate(async (prompts) => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const engine = await connectEngine();
    const { results } = await engine.request("engine.verify", { prompts });
    const status = await engine.request("engine.status");
    engine.close();
    return { results, status };
  }, goldens);
  await options.close();
  t.diagnostic(`adapter: ${JSON.stringify(status.adapter)}`);
  assert.equal(results.length, goldens.length);
  const half = status.adapter.features.includes("shader-f16");
  const bad = results.filter((/** @type {any} */ result) => !result.text_equal || !result.prompt_equal || (result.logit_error ?? 0) > (half ? 2e-2 : 2e-3));
  assert.deepEqual(bad, []);
  // At most two may differ, and only where the two best logits all but tie.
  const different = results.filter((/** @type {any} */ result) => !result.greedy_equal);
  for (const { name, min_margin } of different) t.diagnostic(`${name} differs; its smallest margin is ${min_margin}`);
  assert.ok(different.length <= 2 && different.every((/** @type {any} */ { min_margin }) => min_margin < (half ? 2e-2 : 1e-3)), JSON.stringify(different));
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
  await Promise.all([assertAnswers(page, golden("fixed-1")), assertAnswers(other, golden("explain")), assertAnswers(page, golden("table"))]);
  await other.close();
});

test("the service worker is killed in mid-stream: the answer completes, no token lost or doubled", T, async () => {
  await start(page, greedy(golden("table")));
  await streaming(page);
  assert.ok(await browser.killServiceWorker());
  const { ended, text } = await finished(page);
  assert.equal(ended, "done");
  assert.equal(text, golden("table").continuation_text);
});

test("an aborted request ends at once and the engine serves on", T, async () => {
  await start(page, greedy(golden("story")));
  await streaming(page);
  await page.evaluate(() => /** @type {any} */ (window).abort.abort());
  const { ended, text } = await finished(page);
  assert.equal(ended, "AbortError");
  assert.ok(text.length < golden("story").continuation_text.length);
  await assertAnswers(page, golden("capital"));
});

test("a page that closes in mid-answer leaves the engine free", T, async () => {
  const other = await browser.open(browser.localhost);
  await start(other, greedy(golden("story")));
  await streaming(other);
  await other.close();
  await assertAnswers(page, golden("sort"));
});

test("a prompt longer than the context is refused with the numbers, and the engine serves on", T, async () => {
  const { error } = await complete(page, { messages: [{ role: "user", content: "word ".repeat(20_000) }] });
  assert.equal(error.name, "QuotaExceededError");
  assert.ok(error.data.requested > error.data.quota && error.data.quota > 0, JSON.stringify(error.data));
  await assertAnswers(page, golden("opposite"));
});

test("what is not supported, not known or not well-formed is refused by name", T, async () => {
  const messages = golden("capital").messages;
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

test("sampling: a seed repeats itself, stop strings and max_tokens end the answer", T, async () => {
  const text = async (/** @type {object} */ fields) => {
    const { choices, error } = await complete(page, { ...greedy(golden("story")), ...fields });
    assert.equal(error, undefined);
    return { text: choices[0].message.content, finish: choices[0].finish_reason };
  };
  const warm = { temperature: 1.2, top_p: 0.95, seed: 7, max_tokens: 24 };
  assert.deepEqual(await text(warm), await text(warm));
  const { text: whole } = await text({});
  assert.ok(whole.includes(" acorn"), whole);
  assert.deepEqual(await text({ stop: " acorn" }), { text: whole.slice(0, whole.indexOf(" acorn")), finish: "stop" });
  const { usage, choices } = await complete(page, { ...greedy(golden("story")), max_tokens: 5 });
  assert.deepEqual([usage.completion_tokens, choices[0].finish_reason], [5, "length"]);
});

test("LanguageModel answers, streams and remembers", T, async () => {
  const { messages, continuation_text } = golden("followup");
  const [first, , last] = messages;
  assert.equal(messages.length, 3);
  const result = await page.evaluate(async ([first, reply, last]) => {
    const { LanguageModel } = doppler;
    const session = await LanguageModel.create({ temperature: 0, topK: 1, initialPrompts: [{ role: "user", content: first }, { role: "assistant", content: reply }] });
    const usage = session.contextUsage;
    const measured = await session.measureContextUsage(last);
    let streamed = "";
    for await (const delta of /** @type {any} */ (session.promptStreaming(last))) streamed += delta;
    const grown = session.contextUsage > usage;
    session.destroy();
    return { streamed, grown, measured, window: session.contextWindow, answer: await LanguageModel.create().then((session) => session.prompt("Who are you?")) };
  }, /** @type {string[]} */ ([first?.content, messages[1]?.content, last?.content]));
  assert.equal(result.streamed, continuation_text);
  assert.equal(result.answer, golden("fixed-1").continuation_text);
  assert.ok(result.grown && result.measured > 0 && result.window > 1000, JSON.stringify(result));
});

test("the offscreen document is killed in mid-stream: a clear error, and the next request works", T, async () => {
  await start(page, greedy(golden("story")));
  await streaming(page);
  await browser.killOffscreen();
  assert.equal((await finished(page)).ended, "OperationError");
  await assertAnswers(page, golden("capital"));
});

test("the GPU process is killed in mid-stream: the answer goes on or ends in a clear error, and the next request works", T, async () => {
  const whole = (await complete(page, greedy(golden("story")))).choices[0].message.content;
  await start(page, greedy(golden("story")));
  await streaming(page);
  await browser.killGpuProcess();
  const { ended, text } = await finished(page);
  if (ended === "done") assert.equal(text, whole);
  else assert.equal(ended, "OperationError");
  await assertAnswers(page, golden("capital"));
});

/** What is done to the model's file, and what a page is then told. @type {Record<string, {spoil: (path: string) => Promise<unknown>, name: string}>} */
const BROKEN = {
  "truncated in its header": { spoil: (path) => truncate(path, 4096), name: "DataError" },
  "truncated in its weights": { spoil: (path) => truncate(path, 16 << 20), name: "DataError" },
  "not a GGUF": { spoil: (path) => overwrite(path, 0, "PK\u0003\u0004"), name: "DataError" },
  "of an unknown architecture": {
    async spoil(path) {
      const bytes = await readFile(path);
      const at = bytes.indexOf("llama", bytes.indexOf("general.architecture"));
      return overwrite(path, at, "lemur");
    },
    name: "NotSupportedError",
  },
};

/** @param {string} path @param {number} at @param {string} text */
async function overwrite(path, at, text) {
  const file = await open(path, "r+");
  await file.write(Buffer.from(text), 0, undefined, at);
  await file.close();
}

for (const [what, { spoil, name }] of Object.entries(BROKEN)) {
  test(`a model file ${what} is refused with a named error; repaired, it answers`, T, async () => {
    const extension = await copyExtension();
    const path = join(extension, MODEL);
    await spoil(path);
    const other = await launch({ extension });
    other.context.setDefaultTimeout(T.timeout);
    try {
      const tab = await other.open(other.localhost);
      await other.grant(tab, "once");
      for (const _ of ["first", "again"]) {
        const { error } = await complete(tab, greedy(golden("capital")));
        assert.equal(error?.name, name, JSON.stringify(error));
        assert.ok(error.message.length > 20);
      }
      await writeFile(path, await readFile(join(ROOT, MODEL)));
      await assertAnswers(tab, golden("capital"));
    } finally {
      await other.close();
    }
  });
}
