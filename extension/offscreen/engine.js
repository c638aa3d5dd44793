// The dedicated worker that runs the engine: started on the first request, started afresh after it died or fell silent. What had
// not begun to be answered then is asked again.

import { Heartbeat } from "./heartbeat.js";
import { HEARTBEAT } from "./limits.js";
import { engineStopped, Refusal, toWire } from "../shared/errors.js";

/**
 * @typedef {import("../shared/errors.js").WireError} WireError
 * @typedef {{chunk: (chunk: any) => void, done: (done: any) => void, error: (error: WireError) => void}} Receiver
 *   zero or more `chunk`, then exactly one of `done` and `error`
 * @typedef {{method: string, params: object, client: string | undefined, receiver: Receiver, tries: number, settled: boolean, suspected: boolean}} Request
 *   `tries`: how often it was handed to a worker; `settled`: a part of its answer was delivered, or nobody wants one any more;
 *   `suspected`: a worker that had it ended, and it is not known for whom it worked
 */

/** What may be asked again: its answer does not depend on what became of the first time. */
const REPEATED = new Set(["chat.completions", "tokens.count", "models.list", "engine.status"]);
/** Times that a request is handed to a worker: one that takes the worker down must come to an end. */
const TRIES = 2;

export class Engine {
  /** @type {Worker | undefined} */
  #worker;
  #heart;
  /** In memory shared with the worker, once its program runs: the id of the request that it works for, or 0. @type {Int32Array | undefined} */
  #working;
  /** Whether the worker loads a model. */
  #loading = false;
  /** What the worker has. @type {Map<number, Request>} */
  #running = new Map();
  /** What is handed over again, one after the other: any of them may be what ended the worker. @type {Map<number, Request>} */
  #waiting = new Map();
  /** The last of those that was handed over, until it ends: the next may end the worker, and its answer with it. @type {number | undefined} */
  #suspect;
  #next = 1;
  #onEvent;
  #answer;
  #onDeath;

  /**
   * @param {(event: string, detail: any) => void} onEvent  what the worker says unasked, `status` above all, and `activity`
   * @param {(method: string, params: any) => Promise<unknown>} answer  what the worker asks: where a model's bytes are, what is kept
   * @param {(client?: string) => void} onDeath  the worker ended, with all that it had; `client`: whose request ended it, where that is known
   * @param {{every: number, missed: number}} [heartbeat]
   */
  constructor(onEvent, answer, onDeath, heartbeat = HEARTBEAT) {
    this.#onEvent = onEvent;
    this.#answer = answer;
    this.#onDeath = onDeath;
    const silence = `it did not answer for ${Math.round(heartbeat.every * heartbeat.missed / 1000)} s`;
    this.#heart = new Heartbeat(() => this.#worker?.postMessage({ ping: true }), () => this.#died(this.#worker, silence), heartbeat);
  }

  /** Who asks for answers now, each origin once. @returns {string[]} */
  get clients() {
    const chats = [...this.#running.values(), ...this.#waiting.values()].filter(({ method }) => method === "chat.completions");
    return [...new Set(chats.flatMap(({ client }) => client ?? []))];
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
    const id = this.#next++;
    /** @type {Request} */
    const request = { method, params, client, receiver, tries: 0, settled: false, suspected: false };
    this.#post(id, request);
    return () => {
      request.settled = true;
      if (this.#running.has(id)) return this.#worker?.postMessage({ id, method: "cancel" });
      if (this.#take(this.#waiting, id)) this.#finish(request, toWire(new Refusal("AbortError", "aborted", "The request was aborted.")));
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

  /**
   * Hands a request to the worker.
   * @param {number} id
   * @param {Request} request
   */
  #post(id, request) {
    const worker = this.#worker ??= this.#start();
    const { method, params, client } = request;
    // First: what cannot be sent is not running.
    worker.postMessage({ id, method, params, client });
    request.tries++;
    this.#running.set(id, request);
    this.#heart.start();
    if (request.tries === 1) this.#changed(request);
  }

  /** Who asks for answers may be others than before. @param {Request} request */
  #changed({ method }) {
    if (method === "chat.completions") this.#onEvent("activity", { clients: this.clients });
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
    this.#heart.heard();
    if (frame.pong) return;
    if (frame.working) {
      this.#working = frame.working;
      return;
    }
    if (frame.event) return this.#event(worker, frame.event, frame.detail);
    if (frame.ask !== undefined) {
      this.#answer(frame.method, frame.params).then(
        (done) => worker.postMessage({ answer: frame.ask, done }),
        (thrown) => worker.postMessage({ answer: frame.ask, error: toWire(thrown) }));
      return;
    }
    const request = this.#running.get(frame.id);
    if (!request) return;
    if ("chunk" in frame) {
      request.settled = true;
      return request.receiver.chunk(frame.chunk);
    }
    // The next request opens the device again.
    if (frame.error?.code === "device_lost" && repeatable(request)) return this.#post(frame.id, request);
    this.#running.delete(frame.id);
    if (this.#running.size === 0) this.#heart.stop();
    this.#finish(request, frame.error, frame.done);
    this.#cleared(frame.id);
  }

  /**
   * @param {Request} request
   * @param {WireError | undefined} error
   * @param {any} [done]
   */
  #finish(request, error, done) {
    if (error) request.receiver.error(error);
    else request.receiver.done(done);
    this.#changed(request);
  }

  /**
   * A request has ended: if it was the suspect, the next one is.
   * @param {number} id
   */
  #cleared(id) {
    if (this.#suspect === id) this.#suspect = undefined;
    if (this.#suspect !== undefined) return;
    const [next] = this.#waiting.keys();
    if (next === undefined) return;
    this.#suspect = next;
    this.#post(next, /** @type {Request} */ (this.#take(this.#waiting, next)));
  }

  /**
   * @param {Map<number, Request>} requests
   * @param {number} id
   */
  #take(requests, id) {
    const request = requests.get(id);
    requests.delete(id);
    return request;
  }

  /**
   * @param {Worker} worker
   * @param {string} event
   * @param {any} detail
   */
  #event(worker, event, detail) {
    if (event === "fatal") return this.#died(worker, detail?.message ?? "unknown reason");
    if (event === "status") this.#loading = detail?.state === "loading";
    this.#onEvent(event, detail);
  }

  /**
   * The request that stopped the worker, where that is known: its program worked for it, or had nothing else and the request is suspected.
   * @returns {Request | undefined}
   */
  #culprit() {
    if (!this.#working) return undefined;
    const [only, ...others] = this.#running.values();
    // A model that stops the worker while it is loaded is the user's, whichever site asks.
    const alone = others.length === 0 && only?.suspected && !this.#loading ? only : undefined;
    return this.#running.get(Atomics.load(this.#working, 0)) ?? alone;
  }

  /**
   * @param {Worker | undefined} worker
   * @param {string} why
   */
  #died(worker, why) {
    if (!worker || worker !== this.#worker) return;
    worker.terminate();
    const culprit = this.#culprit();
    const client = culprit?.client;
    this.#worker = undefined;
    this.#working = undefined;
    this.#loading = false;
    this.#heart.stop();
    this.#onDeath(client);
    const error = toWire(engineStopped(why));
    // Pages are not told why, and the extension's own may all be closed.
    console.error(error.message);
    const requests = [...this.#running];
    this.#running.clear();
    this.#onEvent("status", { state: "failed", error });
    for (const [id, request] of requests) {
      request.suspected = culprit === undefined;
      const blamed = request === culprit || (client !== undefined && request.client === client);
      if (repeatable(request) && !blamed) this.#waiting.set(id, request);
      else this.#finish(request, error);
    }
    this.#suspect = undefined;
    this.#cleared(0);
  }
}

/** @param {Request} request  that its worker did not finish */
const repeatable = ({ method, tries, settled }) => REPEATED.has(method) && !settled && tries < TRIES;
