// The dedicated worker that runs the engine: started on the first request, started afresh after it died.

import { engineStopped, toWire } from "../shared/errors.js";

/**
 * @typedef {import("../shared/errors.js").WireError} WireError
 * @typedef {{chunk: (chunk: any) => void, done: (done: any) => void, error: (error: WireError) => void}} Receiver
 *   zero or more `chunk`, then exactly one of `done` and `error`
 */

export class Engine {
  /** @type {Worker | undefined} */
  #worker;
  /** @type {Map<string, Receiver>} */
  #running = new Map();
  #next = 0;
  #onEvent;
  #answer;
  #onDeath;

  /**
   * @param {(event: string, detail: any) => void} onEvent  what the worker says unasked, `status` above all
   * @param {(method: string, params: any) => Promise<unknown>} answer  what the worker asks: where a model's bytes are, what is kept
   * @param {(client?: string) => void} onDeath  the worker ended, with all that it had; `client`: whose request ended it, where that is known
   */
  constructor(onEvent, answer, onDeath) {
    this.#onEvent = onEvent;
    this.#answer = answer;
    this.#onDeath = onDeath;
  }

  /**
   * Sends a request; the worker is started if there is none.
   * @param {string} method
   * @param {object} params
   * @param {Receiver} receiver
   * @param {string} [client]  the origin that asks, as the browser attested it: only texts of the same one are continued from the cache
   * @returns {() => void}  cancels: the receiver still gets its one `done` or `error`
   */
  send(method, params, receiver, client) {
    const worker = this.#worker ??= this.#start();
    const id = `r${this.#next++}`;
    // First: what cannot be sent is not running.
    worker.postMessage({ id, method, params, client });
    this.#running.set(id, receiver);
    return () => {
      if (this.#running.has(id)) worker.postMessage({ id, method: "cancel" });
    };
  }

  /**
   * The same as a promise.
   * @param {string} method
   * @param {object} params
   * @param {{onChunk?: (chunk: any) => void, signal?: AbortSignal, client?: string}} [options]
   * @returns {Promise<any>}  rejects with a `WireError`
   */
  request(method, params, { onChunk, signal, client } = {}) {
    return new Promise((resolve, reject) => {
      const cancel = this.send(method, params, { chunk: (chunk) => onChunk?.(chunk), done: resolve, error: reject }, client);
      if (signal?.aborted) cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  #start() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "doppler-engine" });
    worker.onmessage = ({ data }) => this.#receive(worker, data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#died(worker, event.message || "its program could not be started");
    };
    worker.onmessageerror = () => this.#died(worker, "it sent an unreadable message");
    return worker;
  }

  /**
   * @param {Worker} worker
   * @param {any} frame
   */
  #receive(worker, frame) {
    if (worker !== this.#worker) return;
    if (frame.event) return this.#event(worker, frame.event, frame.detail);
    if (frame.ask !== undefined) {
      this.#answer(frame.method, frame.params).then(
        (done) => worker.postMessage({ answer: frame.ask, done }),
        (thrown) => worker.postMessage({ answer: frame.ask, error: toWire(thrown) }));
      return;
    }
    const receiver = this.#running.get(frame.id);
    if (!receiver) return;
    if ("chunk" in frame) return receiver.chunk(frame.chunk);
    this.#running.delete(frame.id);
    if (frame.error) receiver.error(frame.error);
    else receiver.done(frame.done);
  }

  /**
   * @param {Worker} worker
   * @param {string} event
   * @param {any} detail
   */
  #event(worker, event, detail) {
    if (event === "fatal") return this.#died(worker, detail?.message ?? "unknown reason", detail?.client);
    this.#onEvent(event, detail);
  }

  /**
   * @param {Worker} worker
   * @param {string} why
   * @param {string} [client]  whose request it was working for
   */
  #died(worker, why, client) {
    if (worker !== this.#worker) return;
    worker.terminate();
    this.#worker = undefined;
    this.#onDeath(client);
    const error = toWire(engineStopped(why));
    // Pages are not told why, and the extension's own may all be closed.
    console.error(error.message);
    const receivers = [...this.#running.values()];
    this.#running.clear();
    this.#event(worker, "status", { state: "failed", error });
    for (const receiver of receivers) receiver.error(error);
  }
}
