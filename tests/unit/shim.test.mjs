// window.doppler's own rules, which need neither a browser nor an engine.

import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { echo, openPage } from "./shim.mjs";

/** @type {Awaited<ReturnType<typeof openPage>>} */
let page;
beforeEach(async () => {
  page?.close();
  page = await openPage(echo);
});
after(() => page?.close());

const messages = [{ role: "user", content: "hi" }];
/** @param {object} fields */
const ask = (fields) => page.doppler.chat.completions.create({ messages, ...fields });
/** @param {number} depth */
const nested = (depth) => {
  let value = /** @type {any} */ ([]);
  for (let i = 1; i < depth; i++) value = [value];
  return value;
};

test("values that JSON cannot carry are refused by path, in every field", async () => {
  for (const [fields, param] of /** @type {[object, string][]} */ ([
    ...["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "n", "presence_penalty", "unheard_of"].map((name) => [{ [name]: NaN }, name]),
    [{ temperature: Infinity }, "temperature"], [{ temperature: -Infinity, stream: true }, "temperature"],
    [{ logit_bias: { 17: NaN } }, "logit_bias.17"], [{ seed: 7n }, "seed"], [{ stop: ["a", undefined] }, "stop[1]"], [{ stop: [, "a"] }, "stop[0]"],
    [{ tools: [{ function: { parameters: { properties: { x: { minimum: NaN } } } } }] }, "tools[0].function.parameters.properties.x.minimum"],
    [{ tools: [{ function: { parse: () => 1 } }] }, "tools[0].function.parse"], [{ user: Symbol("x") }, "user"],
    [{ metadata: new Map([["a", 1]]) }, "metadata"], [{ messages: [{ role: "user", content: NaN }] }, "messages[0].content"],
    [{ temperature: { toJSON: () => NaN } }, "temperature"],
  ])) {
    await assert.rejects(ask(fields), (/** @type {any} */ error) => {
      assert.equal(error instanceof TypeError, true, String(error));
      assert.deepEqual([error.data.param, error.reason], [param, "invalid_request"]);
      assert.ok(error.message.startsWith(`${param} `), error.message);
      return true;
    });
  }
  for (const options of [{ temperature: NaN }, { temperature: Infinity }, { topK: NaN }, { topK: "many" }]) {
    await assert.rejects(page.doppler.LanguageModel.create(options), { name: "TypeError", reason: "invalid_request" });
  }
  assert.deepEqual(page.asked, []);
});

test("values that JSON carries reach the engine unchanged", async () => {
  const date = new Date(0);
  class Tool { type = "function"; }
  await ask({ temperature: -0, seed: 2 ** 53, user: undefined, tools: [new Tool()], metadata: { date, none: null, __proto__: null } });
  const { params } = page.asked[0] ?? {};
  assert.deepEqual({ ...params }, {
    messages, temperature: -0, seed: 2 ** 53, tools: [{ type: "function" }], metadata: { date: date.toJSON(), none: null },
  });
});

test("a request that is made while another is written keeps the ids in order", async () => {
  const inner = /** @type {Promise<any>[]} */ ([]);
  const user = { toJSON() { inner.push(page.doppler.models.list()); return "me"; } };
  await ask({ user });
  await Promise.all(inner);
  assert.deepEqual(page.asked.map(({ id, method }) => [id, method]), [[1, "models.list"], [2, "chat.completions"]]);
});

test("values nested too deep are refused at once, and the next request is answered", async () => {
  const loop = /** @type {any} */ ({});
  loop.loop = loop;
  for (const [value, path] of [[nested(64), "unheard_of[0]"], [nested(5_000), "unheard_of[0]"], [nested(1_000_000), "unheard_of[0]"], [loop, "unheard_of.loop"]]) {
    await assert.rejects(ask({ unheard_of: value }), (/** @type {any} */ error) => {
      assert.deepEqual([error.name, error.reason], ["TypeError", "invalid_request"]);
      assert.ok(error.message.startsWith(path) && error.message.length < 400, error.message);
      return true;
    });
  }
  assert.deepEqual(page.asked, []);
  await ask({ unheard_of: nested(63) });
  assert.equal(page.asked.length, 1);
});

test("a request is an object, and options may be null", async () => {
  for (const body of [undefined, null, "hi", [], 1]) {
    await assert.rejects(page.doppler.chat.completions.create(body), { name: "TypeError", message: "request must be an object." });
  }
  await page.doppler.chat.completions.create({ messages }, null);
  await page.doppler.chat.completions.create({ messages }, { signal: null });
  await page.doppler.models.list({ signal: null });
  const session = await page.doppler.LanguageModel.create(null);
  assert.equal(await session.prompt("x", null), "word");
  assert.equal(await session.prompt("x", { signal: null, omitResponseConstraintInput: false }), "word");
  assert.equal(await session.prompt([{ role: "user", content: "x", prefix: false }]), "word");
});

test("an error has the platform's number in code and our word in reason", async () => {
  for (const [name, number] of /** @type {[string, number][]} */ ([["NetworkError", 19], ["NotSupportedError", 9], ["InvalidStateError", 11], ["OperationError", 0]])) {
    page.close();
    page = await openPage(({ id }, reply) => reply({ id, error: { name, code: "our_word", message: "No.", data: { param: "x" } } }));
    await assert.rejects(ask({}), (/** @type {any} */ error) => {
      assert.equal(error instanceof DOMException, true);
      assert.deepEqual([error.name, error.code, error.reason, error.data], [name, number, "our_word", { param: "x" }]);
      assert.equal(Object.hasOwn(error, "code"), false);
      return true;
    });
  }
});

test("topK is a float, as the Prompt API has it: rounded down, and at least 1", async () => {
  const { LanguageModel } = page.doppler;
  for (const [topK, kept] of [[1.5, 1], [40.9, 40], [1e9, 128], ["3", 3]]) {
    const session = await LanguageModel.create({ topK });
    await session.prompt("x");
    assert.deepEqual([session.topK, page.asked.at(-1)?.params.top_k], [kept, kept]);
  }
  for (const topK of [0.5, 0, -1]) {
    await assert.rejects(LanguageModel.create({ topK }), { name: "RangeError" });
    assert.equal(await LanguageModel.availability({ topK }), "unavailable");
  }
});

test("promptStreaming throws at once where it is aborted, destroyed or asked for what is not supported", async () => {
  const session = await page.doppler.LanguageModel.create();
  const asked = page.asked.length;
  const reason = new Error("my reason");
  assert.throws(() => session.promptStreaming("x", { signal: AbortSignal.abort(reason) }), reason);
  assert.throws(() => session.promptStreaming("x", { responseConstraint: {} }), { name: "NotSupportedError", reason: "unsupported_field" });
  assert.throws(() => session.promptStreaming([{ role: "nobody", content: "x" }]), TypeError);
  session.destroy();
  assert.throws(() => session.promptStreaming("x"), { name: "InvalidStateError", reason: "destroyed" });
  assert.equal(page.asked.length, asked);
});

test("an empty list of messages is an empty text", async () => {
  const session = await page.doppler.LanguageModel.create({ initialPrompts: [] });
  assert.equal(await session.prompt([]), "word");
  assert.deepEqual(page.asked.at(-1)?.params.messages, [{ role: "user", content: "" }]);
  assert.equal(await session.measureContextUsage([]), 0);
});

test("an error's quota is the session's context window, and what a session takes can be asked", async () => {
  const session = await page.doppler.LanguageModel.create();
  const initialPrompts = [{ role: "user", content: "x".repeat(100) }];
  const { LanguageModel } = page.doppler;
  for (const call of [() => session.append("x".repeat(100)), () => session.prompt("x".repeat(100)), () => LanguageModel.create({ initialPrompts })]) {
    await assert.rejects(call(), (/** @type {any} */ error) => {
      assert.deepEqual([error.name, error.quota, error.requested], ["QuotaExceededError", session.contextWindow, 100]);
      return true;
    });
  }
  await session.append("x".repeat(99));
  assert.equal(session.contextUsage, 99);
});

/** A page whose model is loaded when it is first asked for; what its monitor heard. */
async function loadingPage() {
  page.close();
  page = await openPage((frame, reply) => {
    if (frame.method === "tokens.count") for (const loaded of [0.25, 0.25, 0.5, 0.1, 0.75]) reply({ id: frame.id, chunk: { loaded } });
    echo(frame, reply);
  });
}

test("progress is the model's: it goes from 0 to 1 as it is loaded, before there is a session", async () => {
  /** @type {number[]} */
  const heard = [];
  const monitor = (/** @type {EventTarget} */ target) => target.addEventListener("downloadprogress", (/** @type {any} */ { loaded }) => heard.push(loaded));
  await page.doppler.LanguageModel.create({ monitor });
  assert.deepEqual(heard.splice(0), [0, 1], "it is there already");
  await loadingPage();
  await page.doppler.LanguageModel.create({ monitor });
  assert.deepEqual(heard, [0, 0.25, 0.5, 0.75, 1]);
  await assert.rejects(page.doppler.LanguageModel.create({ monitor() { throw new Error("mine"); } }), { message: "mine" });
});

test("an abort inside a progress listener ends the creation, at every event", async () => {
  await loadingPage();
  for (const last of [0, 0.25, 0.75, 1]) {
    const abort = new AbortController();
    /** @type {number[]} */
    const heard = [];
    const monitor = (/** @type {EventTarget} */ target) => target.addEventListener("downloadprogress", (/** @type {any} */ { loaded }) => {
      heard.push(loaded);
      if (loaded === last) abort.abort(new Error("enough"));
    });
    await assert.rejects(page.doppler.LanguageModel.create({ monitor, signal: abort.signal }), { message: "enough" });
    assert.equal(heard.at(-1), last, "nothing is told afterwards");
  }
});

test("the port to the extension is handed over once", async () => {
  /** @type {unknown[]} */
  const stolen = [];
  page.window.addEventListener("doppler:connect", (event) => stolen.push(event));
  page.window.dispatchEvent(new Event("doppler:bridge"));
  assert.deepEqual(stolen, []);
  await ask({});
});
