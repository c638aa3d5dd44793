// The choice of the model, and what is told of it to pages and asked of the service worker.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Models } from "../../extension/offscreen/models.js";
import { engineStopped, modelUnavailable, toWire } from "../../extension/shared/errors.js";
import { add } from "../../extension/shared/picked.js";
import { memoryDatabase } from "./memory-database.mjs";

Object.assign(globalThis, { indexedDB: memoryDatabase() });

/** @type {Map<string, string>} */
let stored;
/** What the service worker was asked. @type {string[]} */
let asked;
/** Answers to `models.open`; none: at once. @type {(() => Promise<object>) | undefined} */
let opening;
/** Loads that wait for the test. @type {Map<string, {context?: number, resolve: (done: object) => void, reject: (error: Error) => void}>} */
let loads;
/** @type {Models} */
let models;
beforeEach(() => {
  stored = new Map();
  asked = [];
  opening = undefined;
  loads = new Map();
  Object.assign(globalThis, {
    localStorage: {
      getItem: (/** @type {string} */ key) => stored.get(key) ?? null,
      setItem: (/** @type {string} */ key, /** @type {string} */ value) => stored.set(key, value),
      removeItem: (/** @type {string} */ key) => stored.delete(key),
    },
    chrome: { runtime: { async sendMessage(/** @type {{method: string, params: {id: string}}} */ { method, params: { id } }) {
      asked.push(`${method} ${id}`);
      return method === "models.open" && opening ? opening() : { done: {} };
    } } },
  });
  models = withLoads();
});

/** Models of an engine whose loads wait. */
const withLoads = () => new Models(/** @type {any} */ ({
  request: (/** @type {string} */ _, /** @type {{model: string, context?: number}} */ { model, context }) =>
    new Promise((resolve, reject) => loads.set(model, { context, resolve, reject })),
}));

/** Chooses a model, whose loading then waits. @param {string} id */
function choose(id) {
  const result = models.choose({ id }).then(() => "loaded", ({ message }) => message);
  const load = loads.get(id) ?? assert.fail();
  return {
    succeed: () => { load.resolve({ id }); return result; },
    fail: () => { load.reject(new Error("failed")); return result; },
  };
}

test("a choice counts at once, and outlives the document once it is loaded", async () => {
  const a = choose("a");
  assert.deepEqual([models.chosen, stored.get("model")], ["a", undefined]);
  assert.equal(await a.succeed(), "loaded");
  assert.deepEqual([models.chosen, stored.get("model")], ["a", "a"]);
});

test("a choice that fails leaves the one before, the embedded model's too", async () => {
  await choose("a").succeed();
  const b = choose("b");
  assert.equal(models.chosen, "b");
  assert.equal(await b.fail(), "failed");
  assert.equal(models.chosen, "a");
  const embedded = choose("spark-28m");
  assert.equal(models.chosen, undefined);
  await embedded.fail();
  assert.equal(models.chosen, "a");
  await choose("spark-28m").succeed();
  assert.equal(models.chosen, undefined);
});

test("a context is kept with the choice that it was made for, and told to the engine whenever it loads that model", async () => {
  const context = (/** @type {string} */ id) => models.answer("models.context", { id });
  const load = async (/** @type {string} */ id, /** @type {number | undefined} */ tokens) => {
    const chosen = models.choose({ id, context: tokens });
    assert.equal(await context(id), tokens ?? null, "while it is loaded");
    loads.get(id)?.resolve({ id });
    await chosen;
  };
  await load("a", 640);
  assert.deepEqual([loads.get("a")?.context, await context("a"), await context("b")], [640, 640, null]);
  models = new Models(/** @type {any} */ ({}));
  assert.equal(await context("a"), 640, "in the next document too");
  models = withLoads();
  await load("b", undefined);
  assert.deepEqual([await context("a"), await context("b"), stored.size], [null, null, 1]);
  await load("b", 320);
  await models.forget({ id: "b" });
  assert.equal(stored.size, 0);
  for (const wrong of [0, -1, 1.5, NaN, 2 ** 32, /** @type {any} */ ("640")]) {
    await assert.rejects(models.choose({ id: "a", context: wrong }), { code: "invalid_request" });
  }
});

test("of two choices the last counts; if it fails, the one that is still being loaded", async () => {
  const [a, b, c] = ["a", "b", "c"].map(choose);
  assert.equal(models.chosen, "c");
  await c?.fail();
  assert.equal(models.chosen, "b");
  await a?.fail();
  assert.equal(models.chosen, "b");
  await b?.succeed();
  assert.equal(models.chosen, "b");
});

test("a forgotten model stays forgotten, after a failed load and after its own", async () => {
  await choose("picked-a").succeed();
  const b = choose("b");
  await models.forget({ id: "picked-a" });
  await b.fail();
  assert.equal(models.chosen, undefined);
  const c = choose("picked-c");
  await models.forget({ id: "picked-c" });
  assert.equal(models.chosen, undefined);
  await c.succeed();
  assert.equal(models.chosen, undefined);
});

test("the name that pages see tells no model of the user's, not even an earlier one", () => {
  assert.deepEqual(models.forPage({ model: "secret", choices: [] }), { model: "local", choices: [] });
  assert.deepEqual(models.forPage({ model: "spark-28m" }), { model: "spark-28m" });
  assert.deepEqual(models.forPage({ tokens: 1 }), { tokens: 1 });
});

test("the chosen model's name is known without engine and host", async () => {
  assert.equal(await models.chosenName(), "Spark 28M");
  await choose("a").succeed();
  assert.equal(await models.chosenName(), "your own model");
  const file = { kind: "file", name: "mine.gguf", getFile: async () => new Blob(["x"]) };
  const [id = ""] = await add([/** @type {any} */ (file)]);
  await choose(id).succeed();
  assert.equal(await models.chosenName(), "mine.gguf");
  await models.forget({ id });
  assert.deepEqual(asked, []);
});

test("models known at once are listed without the host", async () => {
  const engine = { request: async () => ({ data: [{ id: "spark-28m", name: "Spark 28M" }] }) };
  const { data, chosen } = await new Models(/** @type {any} */ (engine)).list({ host: false });
  assert.deepEqual([data.map(({ id }) => id), chosen, asked], [["spark-28m"], "spark-28m", []]);
});

const answer = (/** @type {string} */ method, id = "a") => models.answer(`models.${method}`, { id });

test("a model of the host is closed with its last user; a second open of one user counts once", async () => {
  await answer("open");
  await answer("open");
  await models.answer("models.open", { id: "a", again: true });
  await answer("close");
  assert.deepEqual(asked, ["models.open a", "models.open a", "models.open a"]);
  await answer("close");
  assert.deepEqual(asked.slice(3), ["models.close a"]);
});

test("a model that is just being opened is not closed by another's end", async () => {
  await answer("open");
  /** @type {(answer: object) => void} */
  let say = () => {};
  opening = () => new Promise((resolve) => { say = resolve; });
  const second = answer("open");
  await answer("close");
  assert.ok(!asked.includes("models.close a"));
  say({ error: { name: "NotFoundError", code: "not_found", message: "It is gone." } });
  await assert.rejects(second, { code: "not_found" });
  assert.equal(asked.at(-1), "models.close a");
});

test("only messages that are forwarded reach the native host", async () => {
  await models.answer("read", { id: "a" });
  for (const method of ["hello", "models.stat", "ping", "grants.list", "toString"]) {
    await assert.rejects(models.answer(method, { id: "a" }), { code: "unknown_method" });
  }
  assert.deepEqual(asked, ["read a"]);
});

test("everything is closed when the engine's worker ends", async () => {
  for (const id of ["a", "b", "b"]) await answer("open", id);
  models.closeAll();
  assert.deepEqual(asked.slice(3), ["models.close a", "models.close b"]);
});

test("public errors reach pages as they are, all others without a word about the model", () => {
  const error = { name: "QuotaExceededError", code: "context_length_exceeded", message: "Words.", data: { quota: 8 } };
  assert.deepEqual(models.errorForPage({ ...error, public: true }), error);
  for (const rest of [{ public: false }, {}]) {
    assert.deepEqual(models.errorForPage({ ...error, message: "secret.gguf", data: "secret.gguf", ...rest }), toWire(modelUnavailable()));
  }
});

test("a page whose request took the engine down is told what to do, and not why", () => {
  const error = toWire(engineStopped("panicked at engine/src/kernels/matmul.rs:7"));
  assert.match(error.message, /matmul/, "the extension's own pages are");
  assert.deepEqual(models.errorForPage(error), {
    name: "OperationError", code: "engine_stopped", message: "The engine stopped: ask again, it starts afresh.",
  });
});
