// The dedicated worker that runs the engine: started on the first request, and again after it died or stopped responding. What it had
// is asked again then; a streamed answer goes on behind what was delivered of it.

import { Heartbeat } from "./heartbeat.js";
import { HEARTBEAT } from "./limits.js";
import { extended } from "./resume.js";
import { engineStopped, Refusal, toWire } from "../shared/errors.js";
import { Calls } from "../shared/rpc.js";

/**
 * @typedef {import("../shared/protocol.js").EngineMethods} Methods
 * @typedef {import("../shared/protocol.js").Failure} Failure
 * @typedef {import("../shared/protocol.js").Priority} Priority
 * @typedef {import("../shared/protocol.js").Resume} Resume
 * @typedef {import("../shared/rpc.js").Receiver & {maxUnread?: number}} Receiver
 *   `maxUnread`: parts of its answer that may be unread; it says with `read` how many it has read
 * @typedef {Receiver & {
 *   method: keyof Methods, params: any, origin: string | undefined, priority: Priority | undefined, receiver: Receiver, id: number,
 *   tries: number, settled: boolean, resume: Resume | undefined, suspected: boolean,
 * }} Request
 *   `receiver`: of the one who asks; `id`: at the worker that had it last; `tries`: how often it was handed to a worker; `settled`: a
 *   part of its answer was delivered behind which it cannot go on, or it was cancelled; `resume`: what was delivered; `suspected`: a worker
 *   that had it ended, and it is not known for whom it worked
 *
 * @typedef {import("../shared/protocol.js").Answer<any>} Answer
 * @typedef {import("../shared/protocol.js").Ask<any>} Ask
 * @typedef {import("../shared/protocol.js").EngineEvents} Events
 * @typedef {{[E in keyof Events]: {event: E, detail: Events[E]}}[keyof Events]} Event
 * @typedef {Answer | Ask | Event | {pong: true} | {working: Int32Array}} WorkerFrame   the last two are worker.js's own
 *
 * @typedef {object} Listeners
 * @property {(status: import("../shared/protocol.js").EngineStatus) => void} status
 * @property {(origins: string[]) => void} activity  others ask for answers than before
 * @property {(method: string, params: any) => Promise<unknown>} answer  what the worker asks: where a model's bytes are, what is kept
 * @property {(origin?: string) => void} death  the worker ended, with all that it had; `origin`: that of the request that ended it, where
 *   it is known
 */

/** Methods that may be repeated: a first attempt has no effect on the answer. @type {Set<keyof Methods>} */
const REPEATED = new Set(["chat.completions", "tokens.count", "models.list", "engine.status", "engine.chats"]);
/** Times that a request is handed to a worker: one that takes the worker down must come to an end. */
const TRIES = 3;

export class Engine {
  /** @type {Worker | undefined} */
  #worker;
  #heart;
  /** In memory shared with the worker, once its program runs: the id of the request that it works for, or 0. @type {Int32Array | undefined} */
  #working;
  /** Whether the worker loads a model. */
  #loading = false;
  /** Requests that the worker has. @type {Calls<Methods, Request>} */
  #calls = new Calls(() => {});
  /** Suspected requests, to repeat one after the other: any of them may have ended the worker. @type {Set<Request>} */
  #waiting = new Set();
  /** Of those who said how much they have read, what they asked. @type {WeakMap<Receiver, Request>} */
  #requests = new WeakMap();
  /** The last of those that was handed over, until it ends: the next may end the worker, and its answer with it. @type {Request | undefined} */
  #suspect;
  #on;

  /**
   * @param {Listeners} on
   * @param {{every: number, missed: number}} [heartbeat]
   */
  constructor(on, heartbeat = HEARTBEAT) {
    this.#on = on;
    const silence = `it did not answer for ${Math.round(heartbeat.every * heartbeat.missed / 1000)} s`;
    this.#heart = new Heartbeat(() => this.#worker?.postMessage({ ping: true }), () => this.#died(this.#worker, silence), heartbeat);
  }

  /** The origin of each conversation that is not answered yet. @returns {string[]} */
  get chats() {
    const chats = [...this.#calls.receivers, ...this.#waiting].filter(({ method }) => method === "chat.completions");
    return chats.flatMap(({ origin }) => origin ?? []);
  }

  /** Origins that wait for answers now, each once. @returns {string[]} */
  get origins() {
    return [...new Set(this.chats)];
  }

  /**
   * Sends a request; the worker is started if there is none.
   * @template {keyof Methods} K
   * @param {K} method
   * @param {Methods[K]["params"]} params
   * @param {Receiver} receiver
   * @param {string} [origin]  the origin that asks, as the browser attested it: only texts of the same one are continued from the cache
   * @param {Priority} [priority]  foreground, where it is not said
   * @param {Resume} [resume]  what was delivered of the answer before
   * @returns {() => void}  cancels: the receiver still gets its one `done` or `error`
   */
  send(method, params, receiver, origin, priority, resume) {
    /** @type {Request} */
    const request = {
      method, params, origin, priority, receiver, id: 0, tries: 0, settled: false, suspected: false, resume: structuredClone(resume),
      chunk: (chunk, part) => {
        request.resume = extended(request.resume, chunk, part);
        request.settled ||= !request.resume;
        receiver.chunk(chunk, part);
      },
      done: (done) => this.#ended(request, undefined, done),
      error: (error) => this.#ended(request, error),
    };
    this.#requests.set(receiver, request);
    this.#post(request);
    return () => {
      request.settled = true;
      if (this.#waiting.delete(request)) this.#finish(request, toWire(new Refusal("AbortError", "aborted", "The request was aborted.")));
      else if (this.#calls.get(request.id) === request) this.#calls.cancel(request.id);
    };
  }

  /**
   * More of an answer was read.
   * @param {Receiver} receiver  as it was sent with
   * @param {number} parts
   */
  read(receiver, parts) {
    const request = this.#requests.get(receiver);
    if (request && this.#calls.get(request.id) === request) this.#calls.read(request.id, parts);
  }

  /**
   * The same as a promise.
   * @template {keyof Methods} K
   * @param {K} method
   * @param {Methods[K]["params"]} params
   * @param {{onChunk?: (chunk: Methods[K]["chunk"], part?: import("../shared/protocol.js").Part) => void, signal?: AbortSignal, origin?: string, resume?: Resume}} [options]
   * @returns {Promise<Methods[K]["done"]>}  rejects with a `Failure`
   */
  request(method, params, { onChunk, signal, origin, resume } = {}) {
    return new Promise((resolve, reject) => {
      const cancel = this.send(method, params, { chunk: (chunk, part) => onChunk?.(chunk, part), done: resolve, error: reject }, origin, undefined, resume);
      if (signal?.aborted) cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /**
   * Hands a request to the worker.
   * @param {Request} request
   */
  #post(request) {
    this.#worker ??= this.#start();
    const { method, params, origin, priority, resume } = request;
    request.id = this.#calls.send(method, params, request, { origin, priority, resume, max_unread: request.receiver.maxUnread });
    request.tries++;
    this.#heart.start();
    if (request.tries === 1) this.#changed(request);
  }

  /** The origins that wait for answers may have changed. @param {Request} request */
  #changed({ method }) {
    if (method === "chat.completions") this.#on.activity(this.origins);
  }

  #start() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "doppler-engine" });
    worker.onmessage = ({ data }) => this.#receive(worker, data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#died(worker, event.message || "its program could not be started");
    };
    worker.onmessageerror = () => this.#died(worker, "it sent an unreadable message");
    this.#calls = new Calls((frame) => worker.postMessage(frame));
    return worker;
  }

  /**
   * @param {Worker} worker
   * @param {WorkerFrame} frame
   */
  #receive(worker, frame) {
    if (worker !== this.#worker) return;
    this.#heart.heard();
    if ("pong" in frame) return;
    if ("working" in frame) {
      this.#working = frame.working;
    } else if ("event" in frame) {
      this.#event(worker, frame);
    } else if ("ask" in frame) {
      const { ask: answer, method, params } = frame;
      const reply = (/** @type {import("../shared/protocol.js").Reply<unknown>} */ reply) => worker.postMessage(reply);
      this.#on.answer(method, params).then((done) => reply({ answer, done }), (thrown) => reply({ answer, error: toWire(thrown) }));
    } else {
      this.#calls.receive(frame);
    }
  }

  /**
   * @param {Worker} worker
   * @param {Event} event
   */
  #event(worker, { event, detail }) {
    if (event === "fatal") return this.#died(worker, detail.message);
    this.#loading = detail.state === "loading";
    this.#on.status(detail);
  }

  /**
   * A request that the worker had has ended.
   * @param {Request} request
   * @param {Failure | undefined} error
   * @param {any} [done]
   */
  #ended(request, error, done) {
    if (this.#calls.size === 0) this.#heart.stop();
    this.#finish(request, error, done);
    if (this.#suspect === request) this.#suspect = undefined;
    this.#handNext();
  }

  /**
   * @param {Request} request
   * @param {Failure | undefined} error
   * @param {any} [done]
   */
  #finish(request, error, done) {
    if (error) request.receiver.error(error);
    else request.receiver.done(done);
    this.#changed(request);
  }

  /** Hands over the next request that waits, unless there is a suspect: it becomes that. */
  #handNext() {
    const [next] = this.#waiting;
    if (this.#suspect !== undefined || next === undefined) return;
    this.#suspect = next;
    this.#waiting.delete(next);
    this.#post(next);
  }

  /**
   * The request that stopped the worker, where that is known: its program worked for it, or had nothing else and the request is suspected.
   * @returns {Request | undefined}
   */
  #culprit() {
    if (!this.#working) return undefined;
    const [only, ...others] = this.#calls.receivers;
    // A model that stops the worker while it is loaded is the user's, whichever site asks.
    const alone = others.length === 0 && only?.suspected && !this.#loading ? only : undefined;
    return this.#calls.get(Atomics.load(this.#working, 0)) ?? alone;
  }

  /**
   * @param {Worker | undefined} worker
   * @param {string} why
   */
  #died(worker, why) {
    if (!worker || worker !== this.#worker) return;
    worker.terminate();
    const culprit = this.#culprit();
    const origin = culprit?.origin;
    this.#worker = undefined;
    this.#working = undefined;
    this.#loading = false;
    this.#heart.stop();
    this.#on.death(origin);
    const error = toWire(engineStopped(why));
    // Pages are not told why, and the extension's own may all be closed.
    console.error(error.message);
    const requests = this.#calls.receivers;
    this.#calls = new Calls(() => {});
    this.#on.status({ state: "failed", error });
    this.#suspect = undefined;
    for (const request of requests) {
      request.suspected = culprit === undefined;
      const blamed = request === culprit || (origin !== undefined && request.origin === origin);
      if (blamed || !repeatable(request)) this.#finish(request, error);
      else if (request.suspected) this.#waiting.add(request);
      else this.#post(request);
    }
    this.#handNext();
  }
}

/** @param {Request} request  that its worker did not finish */
const repeatable = ({ method, tries, settled }) => REPEATED.has(method) && !settled && tries < TRIES;
