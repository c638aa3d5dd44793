// One of the extension's own pages: popup, options, permission window.

import { Refusal, toWire } from "../shared/errors.js";

/** What goes to the engine as it is. */
const ENGINE_METHODS = new Set(["engine.verify", "engine.bench", "engine.tune", "engine.untune", "chat.completions", "tokens.count"]);

/**
 * The port's other end is a page of this extension. A content script never is: its origin is its page's.
 * @param {chrome.runtime.MessageSender | undefined} sender
 */
export function isOwnPage(sender) {
  const own = chrome.runtime.getURL("");
  return sender?.id === chrome.runtime.id && sender.origin === new URL(own).origin && sender.url?.startsWith(own) === true;
}

export class UiClient {
  /** @type {Map<number, AbortController>} */
  #open = new Map();
  #closed = false;
  #port;
  #engine;
  #models;
  #conversations;
  #activity;

  /**
   * @param {chrome.runtime.Port} port
   * @param {import("./engine.js").Engine} engine
   * @param {import("./models.js").Models} models
   * @param {() => Promise<{handle: (method: string, params: any) => Promise<unknown>}>} conversations
   * @param {{readonly sites: string[], stop: (origin: string) => void}} activity  the sites that are being answered
   */
  constructor(port, engine, models, conversations, activity) {
    this.#port = port;
    this.#engine = engine;
    this.#models = models;
    this.#conversations = conversations;
    this.#activity = activity;
    port.onMessage.addListener((frame) => this.#receive(frame));
  }

  /** @param {any} frame */
  async #receive({ id, method, params = {} }) {
    if (method === "cancel") return this.#open.get(id)?.abort();
    const abort = new AbortController();
    this.#open.set(id, abort);
    try {
      const done = await this.#answer(id, method, params, abort.signal);
      this.#post({ id, done: done ?? {} });
    } catch (thrown) {
      this.#post({ id, error: toWire(thrown) });
    } finally {
      this.#open.delete(id);
    }
  }

  /**
   * @param {number} id
   * @param {string} method
   * @param {any} params
   * @param {AbortSignal} signal
   */
  async #answer(id, method, params, signal) {
    if (method.startsWith("conversations.")) return (await this.#conversations()).handle(method, params);
    switch (method) {
      case "engine.status": {
        const status = await this.#engine.request(method, params);
        const chosen = { id: this.#models.chosenId, name: await this.#models.chosenName() };
        return { ...status, local: this.#models.chosen !== undefined, chosen, sites: this.#activity.sites };
      }
      case "activity.stop": return this.#activity.stop(params.origin);
      case "models.list": return this.#models.list(params);
      case "models.chosen": {
        const { chosen } = this.#models;
        return { name: await this.#models.chosenName(), page: this.#models.pageId(chosen), local: chosen !== undefined };
      }
      case "models.choose": return this.#models.choose(params);
      case "models.describe": return this.#models.describe(params);
      case "models.forget": return this.#models.forget(params);
    }
    if (ENGINE_METHODS.has(method)) {
      const onChunk = (/** @type {any} */ chunk) => this.#post({ id, chunk });
      return this.#engine.request(method, this.#models.complete(method, params), { signal, onChunk, client: location.origin });
    }
    throw new Refusal("NotSupportedError", "unknown_method", `There is no method "${method}".`);
  }

  /**
   * @param {string} event
   * @param {object} detail
   */
  tell(event, detail) {
    this.#post({ event, detail });
  }

  /** The page was closed. Conversations go on; what it asked itself ends. */
  gone() {
    this.#closed = true;
    for (const abort of this.#open.values()) abort.abort();
  }

  /** @param {object} frame */
  #post(frame) {
    if (!this.#closed) this.#port.postMessage(frame);
  }
}
