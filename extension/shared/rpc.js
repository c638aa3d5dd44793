// Requests to another part of the extension, and what comes of each: a number goes out with a request and comes back with its answer.

import { fromWire } from "./errors.js";

/**
 * @typedef {{onChunk?: (chunk: any) => void, signal?: AbortSignal}} Options
 * @typedef {{resolve: (done: any) => void, reject: (error: Error) => void, onChunk?: (chunk: any) => void}} Waiting
 */

export class Calls {
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #next = 1;
  #post;
  #toError;

  /**
   * @param {(frame: {id: number, method: string, params?: object}) => void} post
   * @param {(error: any) => Error} [toError]  makes the exception of a refusal
   */
  constructor(post, toError = fromWire) {
    this.#post = post;
    this.#toError = toError;
  }

  /** Requests that have not ended. */
  get size() {
    return this.#waiting.size;
  }

  /**
   * @param {string} method
   * @param {object} params
   * @param {Options} [options]  `signal` cancels: the request still ends once, as the other side says
   * @returns {Promise<any>}
   */
  call(method, params, { onChunk, signal } = {}) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      // First: what cannot be sent is not waited for.
      this.#post({ id, method, params });
      this.#waiting.set(id, { resolve, reject, onChunk });
      signal?.addEventListener("abort", () => {
        if (this.#waiting.has(id)) this.#post({ id, method: "cancel" });
      }, { once: true });
    });
  }

  /**
   * @param {{id: number, chunk?: any, done?: any, error?: any} | null} frame
   * @returns {boolean}  whether a request has ended
   */
  receive(frame) {
    const waiting = frame && this.#waiting.get(frame.id);
    if (!waiting) return false;
    if ("chunk" in frame) {
      waiting.onChunk?.(frame.chunk);
      return false;
    }
    this.#waiting.delete(frame.id);
    if (frame.error) waiting.reject(this.#toError(frame.error));
    else waiting.resolve(frame.done);
    return true;
  }

  /**
   * The other side is gone.
   * @param {Error} error
   */
  end(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
