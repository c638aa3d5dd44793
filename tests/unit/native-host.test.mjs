// The service worker's end of native messaging, with a port that the test plays.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { NativeHost } from "../../extension/background/native-host.js";

/** @typedef {{id: number, method: string, params: any}} Frame */

/** A port as the browser would give it, and what was said into it. */
class Port {
  /** @type {Frame[]} */
  sent = [];
  open = true;
  /** @type {((frame: any) => void)[]} */
  #heard = [];
  /** @type {(() => void)[]} */
  #closed = [];
  onMessage = { addListener: (/** @type {(frame: any) => void} */ listener) => this.#heard.push(listener) };
  onDisconnect = { addListener: (/** @type {() => void} */ listener) => this.#closed.push(listener) };
  /** @param {Frame} frame */
  postMessage(frame) { this.sent.push(frame); }
  disconnect() { this.open = false; }
  /** The host says something. @param {object} frame */
  say(frame) { for (const listener of this.#heard) listener(frame); }
  /** The host is gone. */
  close() { for (const listener of this.#closed) listener(); }
  /** Answers the frame that was sent last, once there is one of this method. @param {string} method @param {object} answer */
  async answer(method, answer) {
    while (this.sent.at(-1)?.method !== method) await new Promise(setImmediate);
    this.say({ id: this.sent.at(-1)?.id, ...answer });
  }
}

const HELLO = { done: { protocol: 1, version: "0.1.0", base: "http://127.0.0.1:1", token: "secret" } };

/** @type {Port[]} */
let ports;
/** @type {string | undefined} */
let lastError;
/** @type {NativeHost} */
let host;
beforeEach(() => {
  Object.assign(globalThis, { chrome: { runtime: { getManifest: () => ({ version: "0.1.0" }) } } });
  ports = [];
  lastError = undefined;
  host = new NativeHost(() => /** @type {any} */ (ports[ports.push(new Port()) - 1]), () => lastError);
});
const port = () => ports.at(-1) ?? assert.fail("nobody connected");
// Its timers would keep the process.
afterEach(() => port().close());

test("one connection and one greeting for all who ask", async () => {
  const answers = Promise.all([host.forward("models.list", {}), host.forward("read", { id: "a", file: 0, offset: 0, bytes: 1, etag: "" })]);
  await port().answer("hello", HELLO);
  await port().answer("read", { done: { data: "AA==" } });
  port().say({ id: port().sent.find(({ method }) => method === "models.list")?.id, done: { models: [] } });
  assert.deepEqual(await answers, [{ models: [] }, { data: "AA==" }]);
  assert.equal(ports.length, 1);
  assert.deepEqual(port().sent.map(({ method }) => method), ["hello", "models.list", "read"]);
  assert.equal(port().sent[0]?.params.protocol, 1);
});

test("the token is in the answer to open alone", async () => {
  const opening = host.forward("models.open", { id: "a" });
  await port().answer("hello", HELLO);
  await port().answer("models.open", { done: { id: "a", name: "A", files: [] } });
  assert.deepEqual(await opening, { id: "a", name: "A", files: [], base: "http://127.0.0.1:1", token: "secret" });
  assert.ok(!JSON.stringify(port().sent).includes("secret"));
});

test("a port that closes says why in words that help, and the next question starts another host", async () => {
  for (const [message, code] of [
    ["Specified native messaging host not found.", "host_missing"],
    ["Access to the specified native messaging host is forbidden.", "host_forbidden"],
    ["Failed to start native messaging host.", "host_broken"],
    ["Native host has exited.", "host_exited"],
    [undefined, "host_exited"],
  ]) {
    const asked = host.forward("models.list", {});
    lastError = message;
    port().close();
    await assert.rejects(asked, { code }, `${message}`);
  }
  assert.equal(ports.length, 5);
});

test("the host dies while others wait: each is told, and what was open is not closed at the next one", async () => {
  const opening = host.forward("models.open", { id: "a" });
  await port().answer("hello", HELLO);
  await port().answer("models.open", { done: { files: [] } });
  await opening;
  const reading = host.forward("read", { id: "a", file: 0, offset: 0, bytes: 1, etag: "" });
  while (port().sent.at(-1)?.method !== "read") await new Promise(setImmediate);
  port().close();
  await assert.rejects(reading, { code: "host_exited" });
  await host.forward("models.close", { id: "a" });
  assert.equal(ports.length, 1, "closing starts no host");
});

test("a refusal of the host keeps code and words; another protocol version is named and the port closed", async () => {
  const opening = host.forward("models.open", { id: "a" });
  await port().answer("hello", HELLO);
  await port().answer("models.open", { error: { code: "not_found", message: "It is gone." } });
  await assert.rejects(opening, { name: "NotFoundError", code: "not_found", message: "It is gone." });

  port().close();
  const asked = host.forward("models.list", {});
  await port().answer("hello", { error: { code: "protocol", message: "Update the host.", data: { protocol: 2 } } });
  await assert.rejects(asked, { code: "host_version", message: "Update the host." });
  assert.equal(port().open, false);
});

test("the host is disconnected some time after its last model closes, and not before", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const opening = host.forward("models.open", { id: "a" });
  await port().answer("hello", HELLO);
  await port().answer("models.open", { done: { files: [] } });
  await opening;
  t.mock.timers.tick(60_000);
  assert.ok(port().open, "a model is open");
  const closing = host.forward("models.close", { id: "a" });
  await port().answer("models.close", { done: {} });
  await closing;
  t.mock.timers.tick(60_000);
  assert.ok(!port().open);
});

test("models are closed when the document that opened them ends, also while they are being opened", async () => {
  const opening = host.forward("models.open", { id: "a" });
  await port().answer("hello", HELLO);
  await port().answer("models.open", { done: { files: [] } });
  await opening;
  void host.forward("models.open", { id: "b" }).catch(() => {});
  while (port().sent.at(-1)?.params.id !== "b") await new Promise(setImmediate);
  host.closeAll();
  await new Promise(setImmediate);
  assert.deepEqual(port().sent.slice(3).map(({ method, params }) => `${method} ${params.id}`), ["models.close a", "models.close b"]);
});
