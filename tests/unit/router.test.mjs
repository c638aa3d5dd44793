// The router's rules that need no browser: which frames are taken, and what an origin may have running.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isFrame, MAX_FRAME, MAX_OPEN } from "../../extension/offscreen/frames.js";
import { Quota } from "../../extension/offscreen/quota.js";
import { engineStopped, Refusal, toWire } from "../../extension/shared/errors.js";

const hello = { id: 1, method: "hello", params: {} };

test("well-formed frames are taken", () => {
  assert.ok(isFrame(hello, -1, 0));
  assert.ok(isFrame({ id: 1, method: "cancel" }, 5, MAX_OPEN));
});

test("anything else is not", () => {
  for (const frame of [
    null, undefined, 1, "hello", [], {}, { ...hello, id: "1" }, { ...hello, id: NaN }, { ...hello, id: 2 ** 53 }, { ...hello, id: -1 },
    { ...hello, method: undefined }, { ...hello, params: null }, { ...hello, params: [] }, { ...hello, params: "x" }, { ...hello, more: 1 },
    { id: 1, method: "cancel", params: {} }, { ...hello, params: { text: "x".repeat(MAX_FRAME) } },
  ]) {
    assert.equal(isFrame(frame, -1, 0), false, JSON.stringify(frame)?.slice(0, 80));
  }
});

test("an id is used once, and a client has so many requests open", () => {
  assert.equal(isFrame(hello, 1, 0), false);
  assert.equal(isFrame(hello, 2, 0), false);
  assert.equal(isFrame(hello, 0, MAX_OPEN), false);
});

test("quota: the oldest run, the rest wait their turn, the last is refused", () => {
  const quota = new Quota({ running: 2, queued: 2 });
  /** @type {string[]} */
  const started = [];
  const [a, , c] = ["a", "b", "c", "d"].map((name) => quota.enter("https://x.org", () => started.push(name)));
  assert.deepEqual(started, ["a", "b"]);
  assert.throws(() => quota.enter("https://x.org", () => {}), { name: "QuotaExceededError", code: "too_many_requests" });
  quota.enter("https://y.org", () => started.push("y"));
  assert.deepEqual(started, ["a", "b", "y"]);
  c?.(); // leaves while it waits: it never starts
  a?.();
  a?.(); // twice does nothing
  assert.deepEqual(started, ["a", "b", "y", "d"]);
});

test("errors on the wire say name, code and sentence, whatever was thrown", () => {
  assert.deepEqual(toWire(new Refusal("NotAllowedError", "no", "No.")), { name: "NotAllowedError", code: "no", message: "No." });
  assert.deepEqual(toWire(new Refusal("DataError", "no", "No.", { at: 1 })).data, { at: 1 });
  assert.deepEqual(toWire(new DOMException("Gone.", "NotFoundError")), { name: "NotFoundError", code: "not_found", message: "Gone." });
  assert.deepEqual(toWire(new Error("odd")), { name: "UnknownError", code: "internal", message: "odd" });
  assert.equal(toWire(toWire(engineStopped("out of memory"))).message, "The engine stopped (out of memory): ask again, it starts afresh.");
});
