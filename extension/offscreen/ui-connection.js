// One of the extension's own pages: popup, options, permission window.

import { unknownMethod } from "../shared/errors.js";
import { Answers } from "../shared/rpc.js";

/**
 * @typedef {import("../shared/protocol.js").UiMethods} UiMethods
 * @typedef {import("../shared/protocol.js").UiEvents} UiEvents
 * @typedef {import("../shared/protocol.js").ConversationMethods} ConversationMethods
 * @typedef {typeof ENGINE_METHODS[number]} EngineMethod
 * @typedef {UiMethods & ConversationMethods & Pick<import("../shared/protocol.js").EngineMethods, EngineMethod>} Methods
 *   all that one of these pages can ask
 */

/** Methods that go to the engine as they are. */
const ENGINE_METHODS = /** @type {const} */ ([
  "engine.verify", "engine.bench", "engine.tune", "engine.untune", "chat.completions", "tokens.count",
]);

/**
 * @param {string} method
 * @returns {method is EngineMethod}
 */
const isEngineMethod = (method) => ENGINE_METHODS.includes(/** @type {EngineMethod} */ (method));

/**
 * The port's other end is a page of this extension. A content script never is: its origin is its page's.
 * @param {chrome.runtime.MessageSender | undefined} sender
 */
export function isOwnPage(sender) {
  const own = chrome.runtime.getURL("");
  return sender?.id === chrome.runtime.id && sender.origin === new URL(own).origin && sender.url?.startsWith(own) === true;
}

export class UiConnection {
  #answers;
  #closed = false;
  /** Ends the conversations that the page asks itself. */
  #stop = new AbortController();
  #port;
  #engine;
  #models;
  #conversations;
  /** @type {import("../shared/rpc.js").Handlers<UiMethods>} */
  #methods;

  /**
   * @param {chrome.runtime.Port} port
   * @param {import("./engine.js").Engine} engine
   * @param {import("./models.js").Models} models
   * @param {() => Promise<{handle: (method: string, params: any) => Promise<unknown>}>} conversations
   * @param {{readonly sites: string[], list: () => Promise<import("../shared/protocol.js").ActivityList>, stop: (origin: string) => void}} activity
   *   the sites that are being answered
   */
  constructor(port, engine, models, conversations, activity) {
    this.#port = port;
    this.#engine = engine;
    this.#models = models;
    this.#conversations = conversations;
    this.#methods = {
      async "engine.status"(params) {
        const status = await engine.request("engine.status", params);
        const chosen = { id: models.chosenId, name: await models.chosenName() };
        return { ...status, local: models.chosen !== undefined, chosen, sites: activity.sites };
      },
      "models.list": (params) => models.list(params),
      "models.chosen": async () => {
        const { chosen } = models;
        return { name: await models.chosenName(), page: models.pageId(chosen), local: chosen !== undefined };
      },
      "models.choose": (params) => models.choose(params),
      "models.describe": (params) => models.describe(params),
      "models.forget": (params) => models.forget(params),
      "activity.list": () => activity.list(),
      "activity.stop": ({ origin }) => activity.stop(origin),
    };
    this.#answers = new Answers((frame) => this.#post(frame), (method, params, options) => this.#answer(method, params, options));
    port.onMessage.addListener((frame) => this.#answers.receive(frame));
  }

  /**
   * @param {string} method
   * @param {any} params
   * @param {{onChunk: (chunk: any) => void, signal: AbortSignal}} options
   */
  async #answer(method, params, options) {
    if (method.startsWith("conversations.")) return (await this.#conversations()).handle(method, params);
    if (Object.hasOwn(this.#methods, method)) return this.#methods[/** @type {keyof UiMethods} */ (method)](params);
    if (isEngineMethod(method)) {
      const signal = method === "chat.completions" ? AbortSignal.any([options.signal, this.#stop.signal]) : options.signal;
      return this.#engine.request(method, this.#models.complete(method, params), { ...options, signal, origin: location.origin });
    }
    throw unknownMethod(method);
  }

  /**
   * @template {keyof UiEvents} E
   * @param {E} event
   * @param {UiEvents[E]} detail
   */
  tell(event, detail) {
    this.#post({ event, detail });
  }

  /** The user wants no more of its answers. */
  stop() {
    this.#stop.abort();
    this.#stop = new AbortController();
  }

  /** The page was closed. Conversations go on; what it asked itself ends. */
  gone() {
    this.#closed = true;
    this.#answers.end();
  }

  /** @param {import("../shared/protocol.js").Answer<any> | import("../shared/protocol.js").Told<UiEvents[keyof UiEvents]>} frame */
  #post(frame) {
    if (!this.#closed) this.#port.postMessage(frame);
  }
}
