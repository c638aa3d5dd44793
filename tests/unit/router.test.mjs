// The router's rules that need no browser: which frames are taken, and what an origin may have running.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isFrame, MAX_FRAME, MAX_OPEN } from "../../extension/offscreen/frames.js";
import { PageConnection } from "../../extension/offscreen/page-connection.js";
import { Quota } from "../../extension/offscreen/quota.js";
import { engineStopped, Refusal, toWire } from "../../extension/shared/errors.js";

const query = { id: 1, method: "permissions.query", params: {} };

test("well-formed frames are accepted", () => {
  assert.ok(isFrame(query, -1));
  assert.ok(isFrame({ id: 1, method: "cancel" }, 5));
});

test("what was delivered of an answer is accepted with the request that goes on, well-formed", () => {
  const chat = { id: 1, method: "chat.completions", params: {} };
  const resume = { id: "x", created: 7, model: 3, tokens: [1, 2 ** 32 - 1], retell: false };
  assert.ok(isFrame({ ...chat, resume }, -1));
  assert.equal(isFrame({ ...query, resume }, -1), false);
  for (const wrong of [
    null, [], {}, { ...resume, more: 1 }, { ...resume, id: 1 }, { ...resume, id: "x".repeat(65) }, { ...resume, created: "7" }, { ...resume, model: -1 },
    { ...resume, retell: true }, { ...resume, tokens: "12" }, { ...resume, tokens: [0.5] }, { ...resume, tokens: [2 ** 32] }, { ...resume, tokens: [null] },
  ]) {
    assert.equal(isFrame({ ...chat, resume: wrong }, -1), false, JSON.stringify(wrong));
  }
});

test("malformed frames are refused", () => {
  for (const frame of [
    null, undefined, 1, "permissions.query", [], {}, { ...query, id: "1" }, { ...query, id: NaN }, { ...query, id: 2 ** 53 }, { ...query, id: -1 },
    { ...query, method: undefined }, { ...query, params: null }, { ...query, params: [] }, { ...query, params: "x" }, { ...query, more: 1 },
    { id: 1, method: "cancel", params: {} }, { ...query, params: { text: "x".repeat(MAX_FRAME) } },
  ]) {
    assert.equal(isFrame(frame, -1), false, JSON.stringify(frame)?.slice(0, 80));
  }
});

test("a request with a used id is refused", () => {
  assert.equal(isFrame(query, 1), false);
  assert.equal(isFrame(query, 2), false);
});

/** A page whose questions nobody answers, and what it is told. */
function silentPage() {
  Object.assign(globalThis, { chrome: { runtime: { sendMessage: () => new Promise(() => {}) } } });
  /** @type {((frame: any) => void)[]} */
  const listeners = [];
  /** @type {any[]} */
  const told = [];
  const page = { told, open: true, gone: 0, say: (/** @type {any} */ frame) => listeners.forEach((listener) => listener(frame)) };
  const port = {
    onMessage: { addListener: (/** @type {(frame: any) => void} */ listener) => listeners.push(listener) },
    onDisconnect: { addListener() {} },
    postMessage: (/** @type {any} */ frame) => told.push(frame),
    disconnect() { page.open = false; },
  };
  const none = /** @type {any} */ ({});
  new PageConnection(/** @type {any} */ (port), { origin: "https://x.org", documentId: "d", tab: 1 }, none, none, none, () => { page.gone++; });
  return page;
}

test("a page has so many requests open, and is told of one too many", () => {
  const page = silentPage();
  for (let id = 0; id < MAX_OPEN; id++) page.say({ ...query, id });
  assert.equal(page.told.length, 0);
  page.say({ ...query, id: MAX_OPEN });
  assert.deepEqual(page.told.map(({ id, error }) => [id, error?.code]), [[MAX_OPEN, "too_many_requests"]]);
  page.say({ id: 0, method: "cancel" });
  page.say({ ...query, id: MAX_OPEN + 1 });
  assert.deepEqual(page.told.slice(1).map(({ id, error }) => [id, error?.code]), [[0, "aborted"]]);
  assert.deepEqual([page.open, page.gone], [true, 0]);
});

test("a page that breaks the protocol is cut off and forgotten", () => {
  const page = silentPage();
  page.say(query);
  page.say(query);
  assert.deepEqual([page.open, page.gone, page.told], [false, 1, []]);
});

test("quota: the oldest run, the rest wait their turn, the last is refused", () => {
  const quota = new Quota({ running: 2, queued: 2 });
  /** @type {string[]} */
  const started = [];
  const [a, b, c] = ["a", "b", "c", "d"].map((name) => quota.enter("https://x.org", () => started.push(name), (thrown) => assert.fail(String(thrown))));
  assert.deepEqual(started, ["a", "b"]);
  assert.throws(() => quota.enter("https://x.org", () => {}, () => {}), { name: "QuotaExceededError", code: "too_many_requests" });
  quota.enter("https://y.org", () => started.push("y"), (thrown) => assert.fail(String(thrown)));
  assert.deepEqual(started, ["a", "b", "y"]);
  c?.(); // leaves while it waits: it never starts
  a?.();
  assert.deepEqual(started, ["a", "b", "y", "d"]);
  quota.enter("https://x.org", () => started.push("e"), (thrown) => assert.fail(String(thrown)));
  a?.(); // twice does nothing: who waits keeps its place
  b?.();
  assert.deepEqual(started, ["a", "b", "y", "d", "e"]);
});

test("errors on the wire say name, code and sentence, whatever was thrown", () => {
  assert.deepEqual(toWire(new Refusal("NotAllowedError", "no", "No.")), { name: "NotAllowedError", code: "no", message: "No." });
  assert.deepEqual(toWire(new Refusal("DataError", "no", "No.", { at: 1 })).data, { at: 1 });
  assert.deepEqual(toWire(new DOMException("Gone.", "NotFoundError")), { name: "NotFoundError", code: "not_found", message: "Gone." });
  assert.deepEqual(toWire(new Error("odd")), { name: "UnknownError", code: "internal", message: "odd" });
  assert.equal(toWire(toWire(engineStopped("out of memory"))).message, "The engine stopped (out of memory): ask again, it starts afresh.");
});
