// The router's rules that need no browser: which frames are taken, what an origin may have running, and what is told of it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { figures } from "../../extension/offscreen/activity.js";
import { isFrame, isPriorityChange, isRead, MAX_FRAME, MAX_OPEN } from "../../extension/offscreen/frames.js";
import { PageConnection } from "../../extension/offscreen/page-connection.js";
import { Quota } from "../../extension/offscreen/quota.js";
import { engineStopped, Refusal, toWire } from "../../extension/shared/errors.js";

const query = { id: 1, method: "permissions.query", params: {} };

test("well-formed frames are accepted", () => {
  assert.ok(isFrame(query, -1));
  assert.ok(isFrame({ id: 1, method: "cancel" }, 5));
  assert.ok(isFrame({ ...query, priority: "background" }, -1));
  assert.ok(isPriorityChange({ priority: "foreground" }));
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
    { id: 1, method: "cancel", params: {} }, { ...query, priority: "urgent" }, { id: 1, method: "cancel", priority: "background" }, { ...query, params: { text: "x".repeat(MAX_FRAME) } },
  ]) {
    assert.equal(isFrame(frame, -1), false, JSON.stringify(frame)?.slice(0, 80));
  }
  for (const frame of [null, "foreground", {}, { priority: "urgent" }, { priority: ["foreground"] }, { ...query, priority: "foreground" }]) {
    assert.equal(isPriorityChange(frame), false, JSON.stringify(frame));
  }
});

test("only well-formed words of a reader are taken", () => {
  const read = { id: 1, method: "read", params: { parts: 32 } };
  assert.ok(isRead(read));
  assert.equal(isFrame(read, -1), false, "it is no request");
  for (const frame of [
    null, 7, "read", query, { ...read, priority: "foreground" }, { ...read, id: "1" }, { ...read, id: -1 }, { ...read, params: [32] }, { ...read, params: null },
    { ...read, params: {} }, { ...read, params: { parts: 0 } }, { ...read, params: { parts: 0.5 } }, { ...read, params: { parts: 2 ** 32 } },
    { ...read, params: { parts: 1, more: 1 } },
  ]) {
    assert.equal(isRead(frame), false, JSON.stringify(frame));
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

/** @param {Partial<Quota["limits"]>} limits */
function setUpQuota(limits) {
  const quota = new Quota({ running: 2, queued: 2, background: 2, ...limits });
  /** Requests in the order in which they started. @type {string[]} */
  const started = [];
  /** @param {string} origin @param {string} name @param {"foreground" | "background"} [priority] */
  const enter = (origin, name, priority = "foreground") =>
    quota.enter(`https://${origin}.org`, priority, () => started.push(name), (thrown) => assert.fail(String(thrown)));
  return { quota, started, enter };
}

test("quota: the oldest run, the rest wait their turn, the last is refused", () => {
  const { started, enter } = setUpQuota({});
  const [a, b, c] = ["a", "b", "c", "d"].map((name) => enter("x", name));
  assert.deepEqual(started, ["a", "b"]);
  assert.throws(() => enter("x", "e"), { name: "QuotaExceededError", code: "too_many_requests" });
  enter("y", "y");
  assert.deepEqual(started, ["a", "b", "y"]);
  c?.leave(); // leaves while it waits: it never starts
  a?.leave();
  assert.deepEqual(started, ["a", "b", "y", "d"]);
  enter("x", "e");
  a?.leave(); // twice does nothing: who waits keeps its place
  b?.leave();
  assert.deepEqual(started, ["a", "b", "y", "d", "e"]);
});

test("quota: hidden tabs share so many places, of which each origin gets one in turn", () => {
  const { started, enter } = setUpQuota({});
  const [a1, a2] = ["a1", "a2"].map((name) => enter("a", name, "background"));
  ["b1", "b2"].forEach((name) => enter("b", name, "background"));
  enter("c", "c", "background");
  assert.deepEqual(started, ["a1", "a2"]);
  // What the user sees waits for none of them.
  ["d1", "d2"].forEach((name) => enter("d", name));
  assert.deepEqual(started, ["a1", "a2", "d1", "d2"]);
  a1?.leave();
  a2?.leave();
  assert.deepEqual(started, ["a1", "a2", "d1", "d2", "b1", "c"]);
});

test("quota: a tab that is shown starts at once, and first among its origin's; one that is hidden takes a place", () => {
  const { started, enter } = setUpQuota({ running: 1, background: 1 });
  const first = enter("a", "first", "background");
  const shown = enter("b", "shown", "background");
  assert.deepEqual(started, ["first"]);
  shown.setPriority("foreground");
  assert.deepEqual(started, ["first", "shown"]);
  enter("b", "older", "background");
  enter("b", "newer");
  shown.setPriority("background");
  first.leave();
  assert.deepEqual(started, ["first", "shown"], "the one that was hidden has the place now");
  shown.leave();
  assert.deepEqual(started, ["first", "shown", "newer"]);
});

test("activity: the figures of an origin's conversations together, and those that wait here", () => {
  const chat = { origin: "https://a.org", model: "Spark 28M", running: true, tokens: 100, tokens_per_second: 2.5 };
  const waits = { ...chat, model: null, running: false, tokens: 0, tokens_per_second: 0 };
  const open = ["https://b.org", "https://a.org", "https://a.org", "https://a.org", "https://a.org"];
  assert.deepEqual(figures(open, [chat, { ...chat, tokens: 20 }, waits, { ...chat, origin: "https://left.org" }], "Mine"), [
    { origin: "https://a.org", models: ["Spark 28M", "Mine"], running: 2, waiting: 2, tokens: 120, tokens_per_second: 5 },
    { origin: "https://b.org", models: ["Mine"], running: 0, waiting: 1, tokens: 0, tokens_per_second: 0 },
  ]);
  assert.deepEqual(figures([], [chat], "Mine"), []);
  assert.equal(figures(["https://a.org"], [chat, chat], "Mine")[0]?.waiting, 0, "one that was cancelled is still computed");
});

test("errors on the wire say name, code and sentence, whatever was thrown", () => {
  assert.deepEqual(toWire(new Refusal("NotAllowedError", "no", "No.")), { name: "NotAllowedError", code: "no", message: "No." });
  assert.deepEqual(toWire(new Refusal("DataError", "no", "No.", { at: 1 })).data, { at: 1 });
  assert.deepEqual(toWire(new DOMException("Gone.", "NotFoundError")), { name: "NotFoundError", code: "not_found", message: "Gone." });
  assert.deepEqual(toWire(new Error("odd")), { name: "UnknownError", code: "internal", message: "odd" });
  assert.equal(toWire(toWire(engineStopped("out of memory"))).message, "The engine stopped (out of memory): ask again, it starts afresh.");
});
