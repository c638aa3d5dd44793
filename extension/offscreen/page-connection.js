// One page: a port whose other end is the bridge in a web page's process. Everything it says is doubted; who it is, the
// browser attests.

import { background } from "../shared/background.js";
import { notAllowed, Refusal, toWire } from "../shared/errors.js";
import { isFrame, isPriorityChange, isRead, MAX_OPEN } from "./frames.js";
import { MAX_UNREAD } from "./limits.js";

/**
 * @typedef {import("../background/grants.js").Grant} Grant
 * @typedef {import("../shared/protocol.js").PageMethods} PageMethods
 * @typedef {import("../shared/protocol.js").PageEvents} PageEvents
 * @typedef {import("../shared/protocol.js").Answer<any> | import("../shared/protocol.js").Told<PageEvents[keyof PageEvents]>} OutFrame
 * @typedef {typeof ENGINE_METHODS[number]} EngineMethod
 * @typedef {import("./frames.js").Frame} Frame
 * @typedef {{origin: string, documentId: string, tab: number}} Requester
 * @typedef {import("../shared/protocol.js").Priority} Priority
 * @typedef {{engine?: string, withdraw: () => void, read?: (parts: number) => void, place?: import("./quota.js").Place}} Open
 *   `engine`: the method, if it was handed to the engine or queued for it; `withdraw`: its result is not wanted any more; `read`: the page
 *   has read so many more parts of its answer
 */

/** Names of this computer, with and without the dot of a complete name: secure without TLS. */
const LOCAL_NAMES = new Set(["localhost", "localhost.", "127.0.0.1"]);

/** The engine's methods for pages with a grant. */
const ENGINE_METHODS = /** @type {const} */ (["models.list", "chat.completions", "tokens.count"]);

/**
 * The page that the browser says is at the other end, if its requests are accepted: the top frame of an
 * active document with a secure, non-opaque origin, through this extension's own content script.
 * @param {chrome.runtime.MessageSender | undefined} sender
 * @returns {Requester | undefined}
 */
export function requesterOf(sender) {
  if (!sender || sender.id !== chrome.runtime.id || sender.tab?.id === undefined || sender.frameId !== 0) return undefined;
  if (sender.documentLifecycle !== "active" || !sender.documentId || !sender.origin || !sender.url) return undefined;
  // An opaque origin ("null": sandboxed documents) is no origin that a user could have allowed.
  if (!URL.canParse(sender.origin) || new URL(sender.origin).origin !== sender.origin) return undefined;
  const { protocol, hostname } = new URL(sender.origin);
  const secure = protocol === "https:" || (protocol === "http:" && LOCAL_NAMES.has(hostname));
  return secure ? { origin: sender.origin, documentId: sender.documentId, tab: sender.tab.id } : undefined;
}

export class PageConnection {
  /** @type {Map<number, Open>} */
  #open = new Map();
  /** Requests waiting for the user's answer. @type {Set<number>} */
  #asking = new Set();
  #lastId = -1;
  /** As its bridge said last. @type {Priority} */
  #priority = "foreground";
  #port;
  #requester;
  #engine;
  #models;
  #quota;
  #onGone;
  /** Asked once, and again after every announced change. @type {Promise<Grant> | undefined} */
  #grant;
  /** The state the page was last told. @type {Grant["state"] | undefined} */
  #known;

  /**
   * @param {chrome.runtime.Port} port
   * @param {Requester} requester
   * @param {import("./engine.js").Engine} engine
   * @param {import("./models.js").Models} models
   * @param {import("./quota.js").Quota} quota
   * @param {() => void} onGone  the connection has ended, at whichever end
   */
  constructor(port, requester, engine, models, quota, onGone) {
    this.#port = port;
    this.#requester = requester;
    this.#engine = engine;
    this.#models = models;
    this.#quota = quota;
    this.#onGone = onGone;
    port.onMessage.addListener((frame) => this.#receive(frame));
    port.onDisconnect.addListener(() => this.#gone());
  }

  get origin() {
    return this.#requester.origin;
  }

  /** Conversations that are answered, or wait for that. */
  get chats() {
    return [...this.#open.values()].filter(({ engine }) => engine === "chat.completions").length;
  }

  /**
   * What the page may do now; a failure to find out is not kept.
   * @returns {Promise<Grant>}
   */
  #granted() {
    return this.#grant ??= background("permissions.query", this.#requester).then(
      (grant) => {
        this.#known ??= grant.state;
        return grant;
      },
      (thrown) => {
        this.#grant = undefined;
        throw thrown;
      },
    );
  }

  /** @param {any} frame */
  #receive(frame) {
    if (isPriorityChange(frame)) return this.#setPriority(frame.priority);
    if (isRead(frame)) return this.#open.get(frame.id)?.read?.(frame.params.parts);
    if (!isFrame(frame, this.#lastId)) return this.#drop();
    if (frame.method === "cancel") {
      return this.#fail(frame.id, new Refusal("AbortError", "aborted", "The request was aborted."));
    }
    this.#lastId = frame.id;
    if (frame.priority) this.#setPriority(frame.priority);
    if (this.#open.size === MAX_OPEN) {
      const error = new Refusal("QuotaExceededError", "too_many_requests", `This page has ${MAX_OPEN} requests open: wait for one to end.`);
      return this.#post({ id: frame.id, error: toWire(error) });
    }
    this.#open.set(frame.id, { withdraw() {} });
    this.#answer(frame).catch((thrown) => this.#fail(frame.id, thrown));
  }

  /** @param {Priority} priority */
  #setPriority(priority) {
    if (priority === this.#priority) return;
    this.#priority = priority;
    for (const { place } of this.#open.values()) place?.setPriority(priority);
  }

  /** @param {Frame} frame */
  async #answer({ id, method, params, resume }) {
    switch (method) {
      case "permissions.query": {
        const { state } = await this.#granted();
        return this.#done(id, { state });
      }
      case "permissions.request": {
        this.#asking.add(id);
        const answer = await background("permissions.request", { ...this.#requester, activated: params.activated, pointer: params.pointer });
        if (answer !== "asking") return this.#done(id, { state: answer.state });
        // `regrant` ends it when the prompt is over.
        this.#known ??= "prompt";
        return;
      }
      case "permissions.revoke": {
        await background("permissions.revoke", this.#requester);
        return this.#done(id, { state: await this.regrant(false) });
      }
    }
    if ((await this.#granted()).state !== "granted") throw notAllowed();
    const engineMethod = ENGINE_METHODS.find((known) => known === method);
    if (!engineMethod) {
      throw new Refusal("NotSupportedError", "unknown_method", `There is no method "${method.slice(0, 64)}" in this version.`);
    }
    const models = method === "models.list" && this.#models.listForPage();
    if (models) return this.#done(id, models);
    if (this.#open.has(id)) this.#run(id, engineMethod, this.#models.checkForPage(method, params), resume);
  }

  /**
   * Hands a request to the engine when its origin's turn comes. Once there it keeps its place in the quota until the
   * engine is done with it, wanted or not.
   * @param {number} id
   * @param {EngineMethod} method
   * @param {any} params
   * @param {import("../shared/protocol.js").Resume} [resume]
   */
  #run(id, method, params, resume) {
    /** @type {(() => void) | undefined} */
    let cancel;
    const leave = () => open.place?.leave();
    /** @type {Open} */
    const open = { engine: method, withdraw: () => cancel ? cancel() : leave(), read: (parts) => this.#engine.read(receiver, parts) };
    /** @type {import("./engine.js").Receiver} */
    const receiver = {
      chunk: (chunk, part) => { if (this.#open.has(id)) this.#post({ id, chunk: this.#models.forPage(chunk), part }); },
      done: (done) => { leave(); this.#done(id, this.#models.forPage(done)); },
      error: (error) => { leave(); this.#fail(id, this.#models.errorForPage(error)); },
      maxUnread: MAX_UNREAD,
    };
    this.#open.set(id, open);
    open.place = this.#quota.enter(this.origin, this.#priority, () => {
      cancel = this.#engine.send(method, this.#models.complete(method, params), receiver, this.origin, this.#priority, resume);
    }, (thrown) => this.#fail(id, thrown));
  }

  /**
   * The model is being loaded: who waits for a count, as every new session does, learns how far it is.
   * @param {number} loaded  from 0 to 1
   */
  loading(loaded) {
    for (const [id, { engine }] of this.#open) if (engine === "tokens.count") this.#post({ id, chunk: { loaded } });
  }

  /**
   * This origin's grants may have changed.
   * @param {boolean} asked  a prompt is over: requests that wait for it are told the state
   * @returns {Promise<Grant["state"]>}
   */
  async regrant(asked) {
    this.#grant = undefined;
    // A grant that cannot be read counts as none; the next request reads it again.
    const { state } = await this.#granted().catch(() => /** @type {Grant} */ ({ state: "prompt" }));
    for (const id of asked ? [...this.#asking] : []) this.#done(id, { state });
    if (state !== "granted") this.#endAnswers(notAllowed());
    if (state !== this.#known) this.#post({ event: "permissionchange", detail: { state } });
    this.#known = state;
    return state;
  }

  /** The user wants no more of this page's answers. */
  stop() {
    this.#endAnswers(new Refusal("AbortError", "stopped_by_user", "The user stopped the answer in DOPPLER."));
  }

  /** @param {Refusal} why */
  #endAnswers(why) {
    for (const [id, { engine }] of [...this.#open]) if (engine) this.#fail(id, why);
  }

  /**
   * Tells the page something, if it may know it.
   * @template {keyof PageEvents} E
   * @param {E} event
   * @param {PageEvents[E]} detail
   */
  async tell(event, detail) {
    if ((await this.#granted()).state === "granted") this.#post({ event, detail });
  }

  /** The page went away: nothing is computed for it any more. */
  async #gone() {
    this.#onGone();
    const asking = this.#asking.size > 0;
    for (const id of [...this.#open.keys()]) this.#end(id)?.withdraw();
    const grant = await this.#grant?.catch(() => undefined);
    if (asking || grant?.scope === "once") await background("document.gone", { documentId: this.#requester.documentId });
  }

  /** Ends the connection with a page that breaks the protocol. */
  #drop() {
    this.#port.disconnect();
    // Disconnecting is heard at the other end only.
    void this.#gone();
  }

  /**
   * @param {number} id
   * @param {PageMethods[keyof PageMethods]["done"]} done
   */
  #done(id, done) {
    if (this.#end(id)) this.#post({ id, done });
  }

  /**
   * @param {number} id
   * @param {unknown} thrown
   */
  #fail(id, thrown) {
    const request = this.#end(id);
    if (!request) return;
    request.withdraw();
    this.#post({ id, error: toWire(thrown) });
  }

  /**
   * @param {number} id
   * @returns {Open | undefined}  the request, unless it has ended before
   */
  #end(id) {
    const request = this.#open.get(id);
    this.#open.delete(id);
    this.#asking.delete(id);
    return request;
  }

  /** @param {OutFrame} frame */
  #post(frame) {
    try {
      this.#port.postMessage(frame);
    } catch {
      // The other end has just gone: other pages must not notice.
      this.#drop();
    }
  }
}
