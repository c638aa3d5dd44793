// The engine's worker from the router's side: what becomes of requests when it dies or falls silent. The workers are made up.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Engine } from "../../extension/offscreen/engine.js";

/** @typedef {import("../../extension/shared/protocol.js").Resume} Resume */
/** @typedef {{id: number, method: string, params: any, origin?: string, priority?: string, resume?: Resume, ping?: boolean}} Frame */

/** A worker that does what the test says. */
class FakeWorker {
  /** @type {FakeWorker[]} */
  static all = [];
  /** @type {Frame[]} */
  asked = [];
  pings = 0;
  ended = false;
  working = new Int32Array(new SharedArrayBuffer(4));
  onmessage = (/** @type {object} */ _) => {};
  onerror = (/** @type {object} */ _) => {};

  constructor() {
    FakeWorker.all.push(this);
  }

  /** @param {Frame} frame */
  postMessage(frame) {
    if (frame.ping) this.pings++;
    else this.asked.push(frame);
  }

  terminate() {
    this.ended = true;
  }

  /** @param {object} data */
  say(data) {
    this.onmessage({ data });
  }

  /** Its program runs, and works for a request from now on. @param {string} [text] */
  workFor(text) {
    this.say({ working: this.working });
    this.working[0] = text === undefined ? 0 : this.idOf(text);
  }

  die() {
    this.onerror({ message: "out of memory", preventDefault() {} });
  }

  /** Texts that it was asked to answer, in order. */
  get chats() {
    return this.asked.filter(({ method }) => method === "chat.completions").map(({ params }) => params.text);
  }

  /** The id under which it was asked last. @param {string} text */
  idOf(text) {
    return /** @type {Frame} */ (this.asked.findLast(({ params }) => params?.text === text)).id;
  }
}

/** @returns {FakeWorker} */
const worker = () => /** @type {FakeWorker} */ (FakeWorker.all.at(-1));

beforeEach(() => {
  FakeWorker.all = [];
  Object.assign(globalThis, { Worker: FakeWorker });
  mock.reset();
  mock.method(console, "error", () => {});
  // A worker with something to do is asked for ever whether it still answers.
  mock.timers.enable({ apis: ["setTimeout"] });
});

/** @param {{every: number, missed: number}} [heartbeat] */
function setUp(heartbeat = { every: 1e6, missed: 3 }) {
  /** @type {any[]} */
  const events = [];
  /** @type {(string | undefined)[]} */
  const culprits = [];
  const engine = new Engine({
    status: (status) => events.push(["status", status]),
    activity: (origins) => events.push(["activity", { origins }]),
    answer: async () => ({}),
    death: (origin) => { culprits.push(origin); },
  }, heartbeat);
  /** @param {string} text @param {string} [method] @param {string} [origin] */
  const ask = (text, method = "chat.completions", origin = "https://x.org") => {
    /** @type {{chunks: any[], ends: any[], cancel: () => void}} */
    const heard = { chunks: [], ends: [], cancel() {} };
    heard.cancel = engine.send(/** @type {any} */ (method), { text }, {
      chunk: (chunk) => heard.chunks.push(chunk),
      done: (done) => heard.ends.push(done),
      error: ({ code }) => heard.ends.push(code),
    }, origin);
    return heard;
  };
  return { engine, ask, events, culprits };
}

/** A chunk with its tokens, as the worker sends it. @param {string} text @param {...number} tokens */
const part = (text, ...tokens) => ({ chunk: { id: "x", created: 7, text }, part: { model: 3, tokens } });

test("a worker is told what was read of the answers that it has", () => {
  const { engine } = setUp();
  const receiver = { chunk() {}, done() {}, error() {}, maxUnread: 8 };
  engine.read(receiver, 1);
  engine.send("chat.completions", /** @type {any} */ ({ text: "paced" }), receiver, "https://x.org");
  const { id, max_unread } = /** @type {any} */ (worker().asked.find(({ params }) => params?.text === "paced"));
  assert.equal(max_unread, 8);
  engine.read(receiver, 3);
  assert.deepEqual(worker().asked.at(-1), { id, method: "read", params: { parts: 3 } });
  worker().say({ id, done: {} });
  const count = worker().asked.length;
  engine.read(receiver, 3);
  assert.equal(worker().asked.length, count, "the answer has ended");
});

test("the worker dies: what had begun goes on behind what was delivered, or ends with an error where that is not known", () => {
  const { ask, culprits } = setUp();
  const [begun, other, unknown] = [ask("begun"), ask("other"), ask("unknown")];
  const first = worker();
  first.say({ id: first.idOf("begun"), ...part("a", 1, 2) });
  first.say({ id: first.idOf("begun"), ...part("b") });
  first.say({ id: first.idOf("begun"), ...part("c", 3) });
  first.say({ id: first.idOf("unknown"), chunk: "a" });
  first.workFor();
  first.die();
  assert.deepEqual([unknown.ends, culprits, worker().chats], [["engine_stopped"], [undefined], ["begun"]]);
  const { resume } = /** @type {Frame} */ (worker().asked.at(-1));
  assert.deepEqual(resume, { id: "x", created: 7, model: 3, tokens: [1, 2, 3], retell: false });
  worker().say({ id: worker().idOf("begun"), ...part("d", 4) });
  worker().die();
  assert.deepEqual([worker().chats, worker().asked.at(-1)?.resume], [["other"], undefined]);
  worker().say({ id: worker().idOf("other"), done: "end" });
  assert.deepEqual(worker().asked.at(-1)?.resume?.tokens, [1, 2, 3, 4]);
  worker().say({ id: worker().idOf("begun"), done: "end" });
  assert.deepEqual([begun.chunks.map(({ text }) => text), begun.ends, other.ends], [["a", "b", "c", "d"], ["end"], ["end"]]);
});

test("an answer that its document before had begun goes on behind that", () => {
  const { engine } = setUp();
  const before = { id: "x", created: 7, model: 3, tokens: [1, 2], retell: true };
  engine.send("chat.completions", /** @type {any} */ ({ text: "begun" }), { chunk() {}, done() {}, error() {} }, "https://x.org", undefined, before);
  assert.deepEqual(worker().asked.at(-1)?.resume, before);
  worker().die();
  assert.deepEqual(worker().asked.at(-1)?.resume, before, "nothing of it was told again");
  worker().say({ id: worker().idOf("begun"), ...part("ab") });
  worker().die();
  assert.deepEqual(worker().asked.at(-1)?.resume, { ...before, retell: false });
});

test("the worker dies: what had not begun is asked again and answered once", () => {
  const { ask, culprits } = setUp();
  const waiting = ask("waiting");
  const first = worker();
  first.die();
  first.die();
  assert.deepEqual([culprits, first.ended], [[undefined], true]);
  assert.deepEqual(worker().chats, ["waiting"]);
  // A late word of the first one is not heard.
  first.say({ id: first.idOf("waiting"), done: "stale" });
  worker().say({ id: worker().idOf("waiting"), chunk: "b" });
  worker().say({ id: worker().idOf("waiting"), done: "end" });
  assert.deepEqual([waiting.chunks, waiting.ends], [["b"], ["end"]]);
});

test("a request that takes the worker down comes to an end, and takes no other with it", () => {
  const { ask, culprits } = setUp();
  const poison = ask("poison", "chat.completions", "https://poison.org");
  const others = ["a", "b", "c"].map((text) => ask(text));
  worker().workFor();
  worker().die();
  // One after the other, so that it is known which it was.
  assert.deepEqual(worker().chats, ["poison"]);
  worker().workFor();
  worker().die();
  assert.deepEqual([poison.ends, culprits], [["engine_stopped"], [undefined, "https://poison.org"]]);
  for (const text of ["a", "b", "c"]) {
    assert.equal(worker().chats.at(-1), text);
    // Not before it has ended: the next may be what ends the worker.
    worker().say({ id: worker().idOf(text), chunk: text });
    assert.equal(worker().chats.at(-1), text);
    worker().say({ id: worker().idOf(text), done: text });
  }
  assert.deepEqual(others.map(({ ends }) => ends), [["a"], ["b"], ["c"]]);
  assert.equal(FakeWorker.all.length, 3);
});

test("a worker that traps or falls silent ends the requests of the origin it worked for; others are asked again", () => {
  for (const end of [() => worker().die(), () => worker().say({ event: "fatal", detail: { message: "unreachable" } }), () => mock.timers.tick(10)]) {
    const { ask, culprits } = setUp({ every: 10, missed: 0 });
    const [before, poison, other] = ["before", "poison", "other"].map((text) => ask(text, "chat.completions", text === "other" ? "https://y.org" : "https://x.org"));
    const first = worker();
    first.workFor("poison");
    end();
    assert.deepEqual([first.ended, culprits], [true, ["https://x.org"]]);
    assert.deepEqual([before?.ends, poison?.ends, worker().chats], [["engine_stopped"], ["engine_stopped"], ["other"]]);
    // It was not suspected, and that the next worker ends for no known reason is not its fault.
    worker().workFor();
    worker().die();
    assert.deepEqual([other?.ends, culprits, worker().chats], [[], ["https://x.org", undefined], ["other"]]);
    worker().die();
    assert.deepEqual([other?.ends, culprits], [["engine_stopped"], ["https://x.org", undefined, undefined]]);
  }
});

test("a worker that cannot start blocks no site", () => {
  const { ask, culprits } = setUp();
  const lone = ask("lone");
  for (const _ of [1, 2, 3]) worker().die();
  assert.deepEqual([lone.ends, culprits], [["engine_stopped"], [undefined, undefined, undefined]]);
});

test("requests that were cancelled, or that change something, are not asked again", () => {
  const { ask } = setUp();
  const [first, cancelled, later, tune] = [ask("first"), ask("cancelled"), ask("later"), ask("tune", "engine.tune")];
  cancelled.cancel();
  worker().die();
  assert.deepEqual([cancelled.ends, tune.ends, worker().chats], [["engine_stopped"], ["engine_stopped"], ["first"]]);
  later.cancel();
  later.cancel();
  assert.deepEqual(later.ends, ["aborted"]);
  worker().say({ id: worker().idOf("first"), done: 1 });
  assert.deepEqual([first.ends, worker().chats], [[1], ["first"]]);
});

test("a worker that does not answer is ended; one that is only busy, or has nothing to do, is not", () => {
  const seconds = (/** @type {number} */ count) => { for (let i = 0; i < count; i++) mock.timers.tick(1000); };
  const { ask } = setUp({ every: 1000, missed: 3 });
  const begun = ask("begun");
  const waiting = ask("waiting");
  const first = worker();
  // Every word counts, and so does the answer to the question alone.
  for (let i = 0; i < 10; i++) {
    seconds(3);
    first.say(i % 2 ? { pong: true } : { id: first.idOf("begun"), chunk: i });
  }
  assert.ok(first.pings > 20);
  assert.equal(first.ended, false);
  seconds(4);
  assert.equal(first.ended, true);
  assert.deepEqual(begun.ends, ["engine_stopped"]);
  worker().say({ id: worker().idOf("waiting"), done: "end" });
  assert.deepEqual(waiting.ends, ["end"]);
  const idle = worker();
  const { pings } = idle;
  seconds(100);
  assert.deepEqual([idle.ended, idle.pings], [false, pings]);
});

test("a request keeps origin and priority, also when it is asked again", () => {
  const { engine } = setUp();
  const receiver = { chunk() {}, done() {}, error() {} };
  engine.send("chat.completions", /** @type {any} */ ({}), receiver, "https://x.org", "background");
  worker().die();
  const asked = FakeWorker.all.map((worker) => worker.asked.map(({ origin, priority }) => [origin, priority]));
  assert.deepEqual(asked, Array(2).fill([["https://x.org", "background"]]));
});

test("the sites being answered are reported at every change", () => {
  const { engine, ask, events } = setUp();
  ask("a", "chat.completions", "https://x.org");
  ask("b", "chat.completions", "https://y.org");
  ask("c", "tokens.count", "https://z.org");
  assert.deepEqual(engine.origins, ["https://x.org", "https://y.org"]);
  worker().die();
  assert.deepEqual(engine.origins, ["https://x.org", "https://y.org"]);
  worker().say({ id: worker().idOf("a"), done: 1 });
  assert.deepEqual(engine.origins, ["https://y.org"]);
  assert.deepEqual(events.filter(([event]) => event === "activity").at(-1), ["activity", { origins: ["https://y.org"] }]);
});
