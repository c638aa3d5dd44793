// Requests and their answers by number.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Refusal } from "../../extension/shared/errors.js";
import { Answers, Calls } from "../../extension/shared/rpc.js";

const setUp = () => {
  /** @type {any[]} */
  const sent = [];
  /** @type {Calls<any>} */
  const calls = new Calls((frame) => sent.push(frame));
  return { sent, calls };
};

test("answers find their requests, in any order", async () => {
  const { sent, calls } = setUp();
  /** @type {any[]} */
  const chunks = [];
  const [a, b] = [calls.call("a", { x: 1 }, { onChunk: (chunk) => chunks.push(chunk) }), calls.call("b", {})];
  assert.deepEqual(sent, [{ id: 1, method: "a", params: { x: 1 } }, { id: 2, method: "b", params: {} }]);
  assert.equal(calls.receive({ id: 1, chunk: "c" }), false);
  assert.equal(calls.receive({ id: 2, done: "B" }), true);
  assert.equal(calls.receive({ id: 1, done: "A" }), true);
  assert.deepEqual([await a, await b, chunks, calls.size], ["A", "B", ["c"], 0]);
});

test("an answer to nothing is passed over", () => {
  const { calls } = setUp();
  void calls.call("a", {});
  assert.deepEqual([null, { id: 7, done: 1 }, { id: 7, chunk: 1 }].map((frame) => calls.receive(frame)), [false, false, false]);
  assert.equal(calls.size, 1);
});

test("a refusal carries the wire's words", async () => {
  const { calls } = setUp();
  const refused = calls.call("a", {});
  calls.receive({ id: 1, error: { name: "DataError", code: "no", message: "No.", data: { x: 1 } } });
  await assert.rejects(refused, { name: "DataError", code: "no", message: "No.", data: { x: 1 } });
});

test("a cancelled request ends once, as the other side says; one that has ended is not cancelled", async () => {
  const { sent, calls } = setUp();
  const abort = new AbortController();
  const [a, b] = [calls.call("a", {}, { signal: abort.signal }), calls.call("b", {}, { signal: abort.signal })];
  calls.receive({ id: 1, done: "A" });
  abort.abort();
  assert.deepEqual(sent.slice(2), [{ id: 2, method: "cancel" }]);
  calls.receive({ id: 2, done: "B" });
  assert.deepEqual([await a, await b], ["A", "B"]);
});

test("the end of the other side ends all requests", async () => {
  const { calls } = setUp();
  const requests = [calls.call("a", {}), calls.call("b", {})];
  calls.end(new Error("gone"));
  for (const request of requests) await assert.rejects(request, { message: "gone" });
  assert.equal(calls.size, 0);
});

test("a request that cannot be sent fails at once", async () => {
  /** @type {Calls<any>} */
  const calls = new Calls(() => { throw new Error("closed"); });
  await assert.rejects(calls.call("a", {}), { message: "closed" });
  assert.equal(calls.size, 0);
});

test("a request is answered once, with its chunks before, a cancelled one as its work says", async () => {
  /** @type {any[]} */
  const sent = [];
  const answers = new Answers((frame) => sent.push(frame), async (method, params, { onChunk, signal }) => {
    if (method === "wait") await new Promise((_, reject) => { signal.onabort = () => reject(signal.reason); });
    if (method === "fail") throw new Refusal("DataError", "no", "No.");
    onChunk(params.x);
    return params.x && "done";
  });
  await answers.receive({ id: 1, method: "echo", params: { x: 7 } });
  await answers.receive({ id: 2, method: "echo" });
  await answers.receive({ id: 3, method: "fail", params: {} });
  assert.deepEqual(sent, [
    { id: 1, chunk: 7 }, { id: 1, done: "done" }, { id: 2, chunk: undefined }, { id: 2, done: {} },
    { id: 3, error: { name: "DataError", code: "no", message: "No." } },
  ]);
  const waiting = [answers.receive({ id: 4, method: "wait" }), answers.receive({ id: 5, method: "wait" })];
  await answers.receive({ id: 4, method: "cancel" });
  await waiting[0];
  assert.deepEqual(sent.slice(5).map(({ id, error }) => [id, error?.name]), [[4, "AbortError"]]);
  answers.end();
  await waiting[1];
  assert.deepEqual(sent.slice(6).map(({ id, error }) => [id, error?.name]), [[5, "AbortError"]]);
});
