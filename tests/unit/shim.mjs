// window.doppler without a browser: the page's shim, and whatever the test says at the other end of its port.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const SOURCE = await readFile(fileURLToPath(new URL("../../extension/page/shim.js", import.meta.url)), "utf8");

/** @typedef {{id: number, method: string, params: any}} Frame */

/** Node.js's cannot be cancelled. */
class MessageEvent extends Event {
  /**
   * @param {string} type
   * @param {EventInit & {ports: MessagePort[]}} init
   */
  constructor(type, init) {
    super(type, init);
    this.ports = init.ports;
  }
}

/** Node.js has none. */
class ProgressEvent extends Event {
  /**
   * @param {string} type
   * @param {{loaded: number}} init
   */
  constructor(type, { loaded }) {
    super(type);
    this.loaded = loaded;
  }
}

/**
 * @param {(frame: Frame, reply: (frame: object) => void) => void} answer  called for each request, not for cancels
 */
export async function openPage(answer) {
  const page = new EventTarget();
  const names = { addEventListener: page.addEventListener, removeEventListener: page.removeEventListener, dispatchEvent: page.dispatchEvent };
  const bound = Object.fromEntries(Object.entries(names).map(([name, method]) => [name, method.bind(page)]));
  const window = Object.assign(page, {
    AbortController, AbortSignal, CustomEvent, DOMException, Event, MessageEvent, ProgressEvent, Promise, ReadableStream, TypeError,
  });
  /** @type {Frame[]} */
  const asked = [];
  /** @type {MessagePort | undefined} */
  let port;
  page.addEventListener("doppler:connect", function take(event) {
    page.removeEventListener("doppler:connect", take);
    event.preventDefault();
    port = /** @type {MessageEvent} */ (event).ports[0];
    if (!port) throw new Error("The shim has no port.");
    const post = port.postMessage.bind(port);
    port.onmessage = ({ data }) => {
      asked.push(data);
      if (data.method !== "cancel") answer(data, post);
    };
  });
  const scope = { window, isSecureContext: true, ...bound };
  new Function(...Object.keys(scope), SOURCE)(...Object.values(scope));
  const { doppler } = /** @type {{doppler: any}} */ (/** @type {unknown} */ (window));
  return { window: page, doppler, asked, close: () => port?.close() };
}

/**
 * An engine of one word, whose context holds 100 characters.
 * @param {Frame} frame
 * @param {(frame: object) => void} reply
 */
export function echo({ id, method, params }, reply) {
  const length = (params.messages ?? []).reduce((/** @type {number} */ sum, /** @type {any} */ { content }) => sum + content.length, 0);
  if (method === "models.list") return reply({ id, done: { object: "list", data: [{ id: "one" }] } });
  if (method === "tokens.count") return reply({ id, done: { tokens: length, context: 100 } });
  if (length >= 100) {
    const data = { requested: length, quota: 100 };
    return reply({ id, error: { name: "QuotaExceededError", code: "context_length_exceeded", message: "Too long.", data } });
  }
  const choice = { index: 0, delta: { content: "word" }, message: { content: "word" }, finish_reason: null };
  if (!params.stream) return reply({ id, done: { choices: [choice] } });
  reply({ id, chunk: { choices: [choice] } });
  reply({ id, chunk: { choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage: { total_tokens: length + 4 } } });
  reply({ id, done: {} });
}
