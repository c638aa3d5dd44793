// Requests to another part of the extension, and what comes of each: a number goes out with a request and comes back with its answer.
// `Calls` is the end that asks, `Answers` the end that is asked.

import { fromWire, toWire } from "./errors.js";

/**
 * @typedef {import("./protocol.js").Failure} Failure
 * @typedef {{chunk: (chunk: any, part?: import("./protocol.js").Part) => void, done: (done: any) => void, error: (error: any) => void}} Receiver
 *   zero or more `chunk`, from the worker with what it takes to go on behind it, then exactly one of `done` and `error`, which gets a `Failure` or what `Calls.end` was called with
 */

/**
 * What answers the methods of a table of protocol.d.ts. No answer is an empty one.
 * @template {{[K in keyof M]: {params: any, done: any}}} M
 * @typedef {{[K in keyof M]: (params: M[K]["params"]) => M[K]["done"] | void | Promise<M[K]["done"] | void>}} Handlers
 */

/**
 * @template {{[K in keyof M]: {params: any, done: any, chunk: any}}} M   a table of protocol.d.ts
 * @template {Receiver} [R=Receiver]
 */
export class Calls {
  /** Of requests that have not ended, oldest first. @type {Map<number, R>} */
  #receivers = new Map();
  #next = 1;
  #post;
  #toError;

  /**
   * @param {(frame: import("./protocol.js").Request<any>) => void} post
   * @param {(error: any) => Error} [toError]  makes the exception of a refusal
   */
  constructor(post, toError = fromWire) {
    this.#post = post;
    this.#toError = toError;
  }

  /** Requests that have not ended. */
  get size() {
    return this.#receivers.size;
  }

  /** Of requests that have not ended, oldest first. */
  get receivers() {
    return [...this.#receivers.values()];
  }

  /**
   * @param {number} id
   * @returns {R | undefined}  undefined: the request has ended
   */
  get(id) {
    return this.#receivers.get(id);
  }

  /**
   * @template {keyof M & string} K
   * @param {K} method
   * @param {M[K]["params"]} params
   * @param {R} receiver
   * @param {{origin?: string, priority?: import("./protocol.js").Priority, resume?: import("./protocol.js").Resume, max_unread?: number}} [fields]  of the frame
   * @returns {number}  the request's id
   */
  send(method, params, receiver, fields) {
    const id = this.#next++;
    // First: what cannot be sent is not waited for.
    this.#post({ id, method, params, ...fields });
    this.#receivers.set(id, receiver);
    return id;
  }

  /**
   * The same as a promise.
   * @template {keyof M & string} K
   * @param {K} method
   * @param {M[K]["params"]} params
   * @param {{onChunk?: (chunk: M[K]["chunk"]) => void, signal?: AbortSignal}} [options]
   *   `signal` cancels: the request still ends once, as the other side says
   * @returns {Promise<M[K]["done"]>}
   */
  call(method, params, { onChunk, signal } = {}) {
    return new Promise((resolve, reject) => {
      /** @type {Receiver} */
      const receiver = {
        chunk: (chunk) => onChunk?.(chunk),
        done: resolve,
        error: (error) => reject(error instanceof Error ? error : this.#toError(error)),
      };
      const id = this.send(method, params, /** @type {R} */ (receiver));
      signal?.addEventListener("abort", () => this.cancel(id), { once: true });
    });
  }

  /**
   * Asks the other side to end a request, unless it has ended.
   * @param {number} id
   */
  cancel(id) {
    if (this.#receivers.has(id)) this.#post({ id, method: "cancel" });
  }

  /**
   * Says how many more parts of an answer were read.
   * @param {number} id
   * @param {number} parts
   */
  read(id, parts) {
    this.#post({ id, method: "read", params: { parts } });
  }

  /**
   * @param {any} frame  as it came
   * @returns {boolean}  whether a request has ended
   */
  receive(frame) {
    const receiver = frame && this.#receivers.get(frame.id);
    if (!receiver) return false;
    if ("chunk" in frame) {
      receiver.chunk(frame.chunk, frame.part);
      return false;
    }
    this.#receivers.delete(frame.id);
    if (frame.error) receiver.error(frame.error);
    else receiver.done(frame.done);
    return true;
  }

  /**
   * The other side is gone.
   * @param {Error} error
   */
  end(error) {
    for (const { error: fail } of this.receivers) fail(error);
    this.#receivers.clear();
  }
}

export class Answers {
  /** Requests that have not ended. @type {Map<number, AbortController>} */
  #open = new Map();
  #post;
  #handle;

  /**
   * @param {(frame: import("./protocol.js").Answer<any>) => void} post
   * @param {(method: string, params: any, options: {onChunk: (chunk: any) => void, signal: AbortSignal}) => Promise<unknown>} handle
   */
  constructor(post, handle) {
    this.#post = post;
    this.#handle = handle;
  }

  /** @param {any} frame  as it came */
  async receive({ id, method, params = {} }) {
    if (method === "cancel") return this.#open.get(id)?.abort();
    const abort = new AbortController();
    this.#open.set(id, abort);
    try {
      const done = await this.#handle(method, params, { onChunk: (chunk) => this.#post({ id, chunk }), signal: abort.signal });
      this.#post({ id, done: done ?? {} });
    } catch (thrown) {
      this.#post({ id, error: toWire(thrown) });
    } finally {
      this.#open.delete(id);
    }
  }

  /** The other side is gone: no answer is wanted any more. */
  end() {
    for (const abort of this.#open.values()) abort.abort();
  }
}
