// The models that the user can choose from, the choice, and what the engine's worker needs to open one.
//
// What a page sees of it: the chosen model, under a name that says nothing about the user's files.

import { background } from "../shared/background.js";
import { Refusal, toWire } from "../shared/errors.js";
import * as picked from "../shared/picked.js";

/** The id of the model that ships with the extension (extension/host/src/models.rs). */
const EMBEDDED = "spark-28m";
/** What pages call any other: an id of its own would tell sites which file a user has, and that it is the same user. */
const LOCAL = "local";
const LOCAL_MODEL = { id: LOCAL, object: "model", created: 0, owned_by: "user", name: "A model of the user's choice" };

/** Where the choice is kept. */
const CHOICE = "model";
/** Times that the service worker is asked before its death is an error. */
const ATTEMPTS = 3;

/**
 * @typedef {{id: string, name: string, source: "embedded" | "host" | "picked", bytes?: number, format?: string}} Listed
 */

/** Whether a method needs a model, the chosen one where the request does not say. */
const takesModel = (/** @type {string} */ method) => method === "chat.completions" || method === "tokens.count";

export class Models {
  /** @type {Map<string, Promise<any>>}  by id and what could change the answer */
  #descriptions = new Map();
  /** What was chosen before the loads that are under way. @type {{before: string | undefined, loads: number} | undefined} */
  #choosing;
  #engine;

  /** @param {import("./engine.js").Engine} engine */
  constructor(engine) {
    this.#engine = engine;
  }

  /** The id of the chosen model; undefined: the embedded one. @returns {string | undefined} */
  get chosen() {
    return localStorage.getItem(CHOICE) ?? undefined;
  }

  set chosen(id) {
    if (id === undefined || id === EMBEDDED) localStorage.removeItem(CHOICE);
    else localStorage.setItem(CHOICE, id);
  }

  /**
   * A request of the extension's own, with the chosen model where it names none.
   * @param {string} method
   * @param {Record<string, any>} params
   */
  complete(method, params) {
    return takesModel(method) && this.chosen ? { ...params, model: params.model ?? this.chosen } : params;
  }

  /**
   * A page's request: it may name the chosen model only, and gets the one that is chosen when its turn comes.
   * @param {string} method
   * @param {Record<string, unknown>} params
   */
  checkForPage(method, params) {
    if (!takesModel(method)) return params;
    const { model, ...rest } = params;
    // Anything but text is refused by the engine.
    if (typeof model !== "string") return params;
    if (model === this.pageId(this.chosen)) return rest;
    throw new Refusal("NotFoundError", "model_not_found", `There is no model "${model.slice(0, 64)}": models.list() names the one that answers.`);
  }

  /**
   * What pages call a model.
   * @param {string | undefined} id
   */
  pageId(id) {
    return id === undefined || id === EMBEDDED ? EMBEDDED : LOCAL;
  }

  /**
   * An answer or a part of one, as a page may see it.
   * @param {any} answer
   */
  forPage(answer) {
    return typeof answer?.model === "string" && this.chosen ? { ...answer, model: this.pageId(answer.model) } : answer;
  }

  /** What pages are told of models, where that is not the engine's own answer. */
  listForPage() {
    return this.chosen && { object: "list", data: [LOCAL_MODEL] };
  }

  /**
   * Everything that can be chosen, for the extension's own pages.
   * @returns {Promise<{data: Listed[], chosen: string, problems: string[], host: {error?: import("../shared/errors.js").WireError}}>}
   */
  async list() {
    const [embedded, files, host] = await Promise.all([
      this.#engine.request("models.list", {}),
      picked.all(),
      this.#background("host.models", {}).then((list) => ({ list, error: undefined }), (error) => ({ list: undefined, error: toWire(error) })),
    ]);
    /** @type {Listed[]} */
    const data = [
      ...embedded.data.map((/** @type {any} */ { id, name }) => ({ id, name, source: "embedded" })),
      ...files.map(({ id, name, bytes, format }) => ({ id, name, bytes, format, source: "picked" })),
      ...(host.list?.models ?? []).map((/** @type {any} */ { id, name, bytes, format }) => ({ id, name, bytes, format, source: "host" })),
    ];
    return {
      data, chosen: this.chosen ?? embedded.data[0]?.id ?? EMBEDDED, problems: host.list?.problems ?? [],
      host: host.error ? { error: host.error } : {},
    };
  }

  /**
   * Makes a model the one that answers, once it is loaded; if that fails, the one before stays.
   * @param {{id: string}} params
   */
  async choose({ id }) {
    // A choice that is given up for another before it is loaded is none to come back to.
    this.#choosing ??= { before: this.chosen, loads: 0 };
    const choosing = this.#choosing;
    choosing.loads++;
    this.chosen = id;
    try {
      return await this.#engine.request("models.load", { model: id });
    } catch (error) {
      if (this.chosen === id) this.chosen = choosing.before;
      throw error;
    } finally {
      if (--choosing.loads === 0) this.#choosing = undefined;
    }
  }

  /**
   * What a model is and needs.
   * @param {{id: string, bytes?: number}} params
   */
  describe({ id, bytes }) {
    const key = `${id} ${bytes}`;
    const known = this.#descriptions.get(key);
    if (known) return known;
    const description = this.#engine.request("models.describe", { model: id });
    this.#descriptions.set(key, description);
    description.catch(() => this.#descriptions.delete(key));
    return description;
  }

  /**
   * Takes a picked model off the list.
   * @param {{id: string}} params
   */
  async forget({ id }) {
    if (this.chosen === id) this.chosen = undefined;
    await picked.forget(id);
  }

  /**
   * Answers the engine's worker.
   * @param {string} method
   * @param {any} params
   * @returns {Promise<unknown>}
   */
  async answer(method, params) {
    const { id } = params;
    switch (method) {
      case "models.open": return id.startsWith(picked.PREFIX) ? picked.open(id) : this.#background("host.open", { id });
      case "models.close": return id.startsWith(picked.PREFIX) ? {} : this.#background("host.close", { id });
      case "models.read": return this.#background("host.read", params);
    }
    throw new Refusal("NotSupportedError", "unknown_method", `There is no method "${method}".`);
  }

  /**
   * Asks the service worker, again if it dies before it answers.
   * @param {string} method
   * @param {object} params
   */
  async #background(method, params) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await background(method, params);
      } catch (error) {
        if (error instanceof Refusal || attempt === ATTEMPTS) throw error;
      }
    }
  }
}
