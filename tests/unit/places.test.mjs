// An origin's places at the engine: free again after every way in which a request can fail, and taken from who stops the engine.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Engine } from "../../extension/offscreen/engine.js";
import { isFrame, MAX_DEPTH } from "../../extension/offscreen/frames.js";
import { Models } from "../../extension/offscreen/models.js";
import { PageConnection, requesterOf } from "../../extension/offscreen/page-connection.js";
import { Quota } from "../../extension/offscreen/quota.js";

const LIMITS = { running: 2, queued: 3, background: 64 };
const ORIGIN = "https://x.org";
const turn = () => new Promise((resolve) => setTimeout(resolve));

/** @type {Quota} */
let quota;
/** @type {Engine} */
let engine;
/** @type {Models} */
let models;
/** The engine's worker. */
let worker = { sent: /** @type {any[]} */ ([]), refuses: false, say(/** @type {any} */ _frame) {}, end() {} };
/** What the user grants. */
let state = "granted";

const timeout = setTimeout;

beforeEach(() => {
  mock.method(console, "error", () => {});
  // Requests that a test leaves running keep no heartbeat alive.
  mock.method(globalThis, "setTimeout", (/** @type {() => void} */ run, /** @type {number} */ ms = 0) =>
    ms < 1000 ? timeout(run, ms) : timeout(run, ms).unref());
  state = "granted";
  quota = new Quota(LIMITS);
  engine = new Engine({
    status() {}, activity() {}, answer: async () => ({}), death: (origin) => { if (origin !== undefined) quota.pause(origin); },
  });
  models = new Models(engine);
  class FakeWorker {
    onmessage = (/** @type {{data: any}} */ _) => {};
    onerror = (/** @type {object} */ _) => {};
    terminate() {}
    postMessage(/** @type {any} */ frame) {
      if (worker.refuses) throw new DOMException("It could not be cloned.", "DataCloneError");
      worker.sent.push(frame);
    }
    constructor() {
      worker = {
        sent: [], refuses: worker.refuses,
        say: (data) => this.onmessage({ data }),
        end: () => this.onerror({ message: "out of memory", preventDefault() {} }),
      };
    }
  }
  worker = { sent: [], refuses: false, say() {}, end() {} };
  Object.assign(globalThis, {
    Worker: FakeWorker,
    localStorage: { getItem: () => null },
    chrome: { runtime: { id: "us", getManifest: () => ({ version: "1" }), sendMessage: async () => ({ done: { state } }) } },
  });
});

/** A page with a port to the router. */
function openPage(origin = ORIGIN) {
  /** @type {((frame: any) => void)[]} */
  const listeners = [];
  /** @type {(() => void)[]} */
  const closings = [];
  const page = {
    told: /** @type {any[]} */ ([]), deaf: false, cut: false, next: 0,
    say: (/** @type {any} */ frame) => listeners.forEach((listener) => listener(frame)),
    close: () => closings.forEach((listener) => listener()),
    /** @param {number} times @param {string} [method] */
    async ask(times, method = "chat.completions") {
      for (let i = 0; i < times; i++) page.say({ id: page.next++, method, params: { messages: [] } });
      await turn();
    },
    codes: () => page.told.map(({ error }) => error?.code),
    connection: /** @type {PageConnection} */ (/** @type {unknown} */ (undefined)),
  };
  const port = {
    onMessage: { addListener: (/** @type {any} */ listener) => listeners.push(listener) },
    onDisconnect: { addListener: (/** @type {any} */ listener) => closings.push(listener) },
    postMessage(/** @type {any} */ frame) {
      if (page.deaf) throw new Error("Attempting to use a disconnected port object");
      page.told.push(frame);
    },
    disconnect() { page.cut = true; },
  };
  page.connection = new PageConnection(/** @type {any} */ (port), { origin, documentId: "d", tab: 1 }, engine, models, quota, () => {});
  return page;
}

/** Requests that the worker has and has not answered. @returns {any[]} */
const running = () => worker.sent.filter(({ id, method }) => method !== "cancel" && !worker.sent.some((other) => other.method === "ended" && other.id === id));
/** @param {(id: number) => object} answer */
function answerAll(answer) {
  for (const { id } of running()) {
    worker.sent.push({ id, method: "ended" });
    worker.say(answer(id));
  }
}

/** The worker ends, and where something waited another begins. @param {string} [origin]  whose request it was working for, if that is known */
function die(origin) {
  const { sent, say, end } = worker;
  if (origin !== undefined) {
    say({ working: Int32Array.of(sent.find((frame) => frame.origin === origin).id) });
  }
  end();
  sent.length = 0;
}

/** All places of an origin are free: as many as there are begin at once, and as many wait. */
async function assertFree(origin = ORIGIN) {
  const began = running().length;
  const page = openPage(origin);
  await page.ask(LIMITS.running + LIMITS.queued);
  assert.equal(running().length - began, LIMITS.running);
  assert.deepEqual(page.codes(), [], "none is refused");
  await page.ask(1);
  assert.deepEqual(page.codes(), ["too_many_requests"]);
}

const error = { name: "OperationError", code: "internal", message: "It failed." };
/** @type {Record<string, (page: ReturnType<typeof openPage>) => unknown>} */
const failures = {
  "the engine answers": () => { for (let i = 0; i < 3; i++) answerAll((id) => ({ id, done: {} })); },
  "the engine refuses": () => { for (let i = 0; i < 3; i++) answerAll((id) => ({ id, error })); },
  "the engine's worker dies": async (page) => {
    // Each is handed to three workers before it ends.
    for (let i = 0; i < 3 * (LIMITS.running + LIMITS.queued) && page.told.length < page.next; i++) {
      die();
      await turn();
    }
  },
  "the page cancels": async (page) => {
    for (let id = 0; id < page.next; id++) page.say({ id, method: "cancel" });
    answerAll((id) => ({ id, error }));
  },
  "the page goes": (page) => {
    page.close();
    answerAll((id) => ({ id, error }));
  },
  "the page is gone before anybody knows": (page) => {
    page.deaf = true;
    answerAll((id) => ({ id, done: {} }));
    answerAll((id) => ({ id, error }));
  },
  "the page breaks the protocol": (page) => {
    page.say({ id: 0, method: "again", params: {} });
    assert.ok(page.cut);
    answerAll((id) => ({ id, error }));
  },
  "the user takes the grant back": async (page) => {
    state = "prompt";
    await page.connection.regrant(false);
    answerAll((id) => ({ id, error }));
    state = "granted";
  },
};
for (const [failure, fail] of Object.entries(failures)) {
  test(`places are free after every kind of failure: ${failure}`, async () => {
    const page = openPage();
    await page.ask(LIMITS.running + LIMITS.queued);
    assert.equal(running().length, LIMITS.running);
    await fail(page);
    await turn();
    await assertFree();
  });
}

test("places are free after every kind of failure: a request cannot be sent to the worker", async () => {
  worker.refuses = true;
  const page = openPage();
  await page.ask(LIMITS.running + LIMITS.queued + 4);
  assert.deepEqual(page.codes(), Array(LIMITS.running + LIMITS.queued + 4).fill("data_clone"), "each is answered");
  worker.refuses = false;
  await assertFree();
});

test("places are free after every kind of failure: one that waited cannot be sent when its turn comes", async () => {
  const page = openPage();
  await page.ask(LIMITS.running + LIMITS.queued);
  worker.refuses = true;
  answerAll((id) => ({ id, done: {} }));
  assert.deepEqual(page.codes().sort(), [...Array(LIMITS.queued).fill("data_clone"), undefined, undefined], "each is answered, those before too");
  worker.refuses = false;
  await assertFree();
});

test("frames are as deep as the shim sends them, and no deeper", () => {
  const frame = (/** @type {number} */ depth, /** @type {(value: object) => object} */ wrap) => {
    let params = /** @type {object} */ ({});
    for (let i = 1; i < depth; i++) params = wrap(params);
    return { id: 1, method: "chat.completions", params: { ...params } };
  };
  for (const wrap of [(/** @type {object} */ a) => ({ a }), (/** @type {object} */ a) => ({ a: "x", b: [a] }), (/** @type {object} */ a) => ({ 0: null, a })]) {
    const per = Object.values(wrap({})).some(Array.isArray) ? 2 : 1;
    assert.ok(isFrame(frame(Math.floor((MAX_DEPTH - 1) / per) + 1, wrap), -1));
    assert.equal(isFrame(frame(MAX_DEPTH + 1, wrap), -1), false);
    assert.equal(isFrame(frame(200_000, wrap), -1), false, "the stack is not what ends it");
  }
});

test("a site whose request stopped the engine is not heard for a while, longer each time; others are", async (t) => {
  t.mock.timers.enable({ apis: ["Date"] });
  const [culprit, other] = [openPage(), openPage("https://y.org")];
  for (const [times, seconds] of [[1, 10], [2, 20], [3, 40]]) {
    culprit.told.length = other.told.length = 0;
    await culprit.ask(LIMITS.running + 1);
    await other.ask(1);
    die(ORIGIN);
    await turn();
    assert.deepEqual(culprit.codes(), ["site_paused", "engine_stopped", "engine_stopped"], "what waits is not begun");
    assert.deepEqual(other.codes(), [], "it is asked again");
    answerAll((id) => ({ id, done: {} }));
    assert.deepEqual(other.told.map(({ done }) => done), [{}]);
    await culprit.ask(1);
    assert.deepEqual(culprit.told.at(-1).error, {
      name: "OperationError", code: "site_paused",
      message: `A request of this site stopped the engine: the site is heard again in ${seconds} s.`,
    }, `time ${times}`);
    await assertFree("https://y.org");
    answerAll((id) => ({ id, done: {} }));
    answerAll((id) => ({ id, done: {} }));
    answerAll((id) => ({ id, done: {} }));
    other.told.length = 0;
    t.mock.timers.tick((seconds ?? 0) * 1000);
  }
  await assertFree();
  t.mock.timers.tick(2 * 60 * 60_000);
  quota.pause("https://z.org");
  assert.throws(() => quota.enter("https://z.org", "foreground", () => {}, () => {}), { message: /in 10 s/ });
  for (let i = 0; i < 20; i++) quota.pause("https://z.org");
  assert.throws(() => quota.enter("https://z.org", "foreground", () => {}, () => {}), { message: /in 600 s/ });
  t.mock.timers.tick(2 * 60 * 60_000);
  quota.pause("https://z.org");
  assert.throws(() => quota.enter("https://z.org", "foreground", () => {}, () => {}), { message: /in 10 s/ });
});

test("a request reaches the engine with the priority that its page has then", async () => {
  const page = openPage();
  const priorities = () => worker.sent.filter(({ method }) => method === "chat.completions").map(({ priority }) => priority);
  page.say({ id: page.next++, method: "chat.completions", params: { messages: [] }, priority: "background" });
  await page.ask(2);
  assert.deepEqual(priorities(), ["background", "background"]);
  page.say({ priority: "foreground" });
  answerAll((id) => ({ id, done: {} }));
  assert.deepEqual(priorities(), ["background", "background", "foreground"]);
  page.say({ priority: "urgent" });
  assert.equal(page.cut, true);
});

test("a crash that no request caused blocks no site", async () => {
  const page = openPage();
  await page.ask(1);
  for (const _ of [1, 2]) {
    die();
    assert.deepEqual(page.codes(), [], "it is asked again");
  }
  die();
  assert.deepEqual(page.codes(), ["engine_stopped"]);
  await assertFree();
});

test("load progress is sent to requests that wait for a count, and to no other", async () => {
  const page = openPage();
  await page.ask(1, "tokens.count");
  await page.ask(1);
  page.connection.loading(0.5);
  assert.deepEqual(page.told, [{ id: 0, chunk: { loaded: 0.5 } }]);
  answerAll((id) => ({ id, done: {} }));
  page.told.length = 0;
  page.connection.loading(0.75);
  assert.deepEqual(page.told, []);
});

test("only top frames of secure origins are served, this computer's with a dot at the end too", () => {
  const sender = (/** @type {string} */ origin) => /** @type {any} */ ({
    id: "us", tab: { id: 7 }, frameId: 0, documentLifecycle: "active", documentId: "d", origin, url: `${origin}/`,
  });
  for (const origin of ["https://x.org", "https://x.org.", "http://localhost", "http://localhost:8080", "http://localhost.", "http://localhost.:8080", "http://127.0.0.1"]) {
    assert.equal(requesterOf(sender(origin))?.origin, origin);
  }
  for (const origin of ["http://x.org", "null", "http://localhost.x.org", "http://localhost..", "file://", "https://x.org/path"]) {
    assert.equal(requesterOf(sender(origin)), undefined, origin);
  }
});
