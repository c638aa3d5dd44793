// The models that the user can choose from, the choice, and what the engine's worker needs to open one.
//
// Pages see the chosen model only, under a name that says nothing about the user's files.

import { background } from "../shared/background.js";
import { engineStopped, modelUnavailable, Refusal, toWire, unknownMethod } from "../shared/errors.js";
import * as picked from "../shared/picked.js";
import { FORWARDED } from "../shared/protocol.js";

/** The model that ships with the extension (extension/worker/src/models.rs). */
const EMBEDDED = "spark-28m";
const EMBEDDED_NAME = "Spark 28M";
/** The name of any other model for pages: an id of its own would tell sites which file a user has, and that it is the same user. */
const LOCAL = "local";
const LOCAL_MODEL = { id: LOCAL, object: "model", created: 0, owned_by: "user", name: "A model of the user's choice" };

/** Where the choice is kept. */
const CHOICE = "model";
/** Where the tokens of its context are kept, if they were chosen too. */
const CONTEXT = "model context";

/**
 * @typedef {import("../shared/protocol.js").Listed} Listed
 * @typedef {import("../shared/protocol.js").HostModels} HostModels
 * @typedef {import("../shared/protocol.js").UiMethods} UiMethods
 * @typedef {import("../shared/protocol.js").WorkerMethods} WorkerMethods
 * @typedef {"models.open" | "models.context" | "models.close"} Answered   what is answered here, not by the native host
 */

/** Whether a method needs a model, the chosen one where the request does not say. */
const takesModel = (/** @type {string} */ method) => method === "chat.completions" || method === "tokens.count";

/**
 * Keeps a choice beyond the end of this document.
 * @param {{id: string, context?: number}} choice
 */
function keep({ id, context }) {
  localStorage.setItem(CHOICE, id);
  if (context === undefined) localStorage.removeItem(CONTEXT);
  else localStorage.setItem(CONTEXT, `${context}`);
}

export class Models {
  /** @type {Map<string, Promise<UiMethods["models.describe"]["done"]>>}  by id and what could change the answer */
  #descriptions = new Map();
  /**
   * Choices that are being loaded, the last one last. One is kept beyond this document's end once it is loaded: a model that
   * takes the document down must not be what the next one begins with.
   * @type {Set<{id: string, context?: number}>}
   */
  #choosing = new Set();
  /** How often the engine's worker has each of the host's models open. @type {Map<string, number>} */
  #opens = new Map();
  #engine;
  /** @type {import("../shared/rpc.js").Handlers<Pick<WorkerMethods, Answered>>} */
  #answers = {
    "models.open": ({ id, again }) => {
      if (id.startsWith(picked.PREFIX)) return picked.open(id);
      // The worker has it open: it is closed once for both.
      return again ? background("models.open", { id }) : this.#open(id);
    },
    "models.context": ({ id }) => this.#context(id),
    "models.close": ({ id }) => this.#close(id),
  };

  /** @param {import("./engine.js").Engine} engine */
  constructor(engine) {
    this.#engine = engine;
  }

  /** The id of the chosen model; undefined: the embedded one. @returns {string | undefined} */
  get chosen() {
    const id = [...this.#choosing].at(-1)?.id ?? localStorage.getItem(CHOICE);
    return id === null || id === EMBEDDED ? undefined : id;
  }

  /** @returns {string} */
  get chosenId() {
    return this.chosen ?? EMBEDDED;
  }

  /**
   * Whether this model answers pages.
   * @param {string | undefined} id
   */
  answers(id) {
    return id === this.chosenId;
  }

  /** The chosen model's name for the user. @returns {Promise<string>} */
  async chosenName() {
    if (this.chosen === undefined) return EMBEDDED_NAME;
    return this.chosen.startsWith(picked.PREFIX) && (await picked.find(this.chosen))?.name || "your own model";
  }

  /**
   * A request of the extension's own, with the chosen model where it names none.
   * @param {string} method
   * @param {any} params
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
   * The name of a model for pages.
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
    return typeof answer?.model === "string" ? { ...answer, model: this.pageId(answer.model) } : answer;
  }

  /**
   * An error of the engine, as a page may see it: the words of those that are not public may name the user's files.
   * @param {import("../shared/protocol.js").Failure} error
   * @returns {import("../shared/protocol.js").Failure}
   */
  errorForPage({ public: isPublic = false, ...error }) {
    if (isPublic) return error;
    return toWire(error.code === "engine_stopped" ? engineStopped() : modelUnavailable());
  }

  /** The list of models for pages, where it is not the engine's own. */
  listForPage() {
    return this.chosen && { object: "list", data: [LOCAL_MODEL] };
  }

  /**
   * The models that can be chosen, for the extension's own pages.
   * @param {UiMethods["models.list"]["params"]} params
   * @returns {Promise<UiMethods["models.list"]["done"]>}
   */
  async list({ host: wanted = true }) {
    const [embedded, files, host] = await Promise.all([
      this.#engine.request("models.list", {}),
      picked.all(),
      wanted
        ? background("models.list", {}).then((/** @type {HostModels} */ list) => ({ list, error: undefined }), (error) => ({ list: undefined, error: toWire(error) }))
        : { list: undefined, error: undefined },
    ]);
    /** @type {Listed[]} */
    const data = [
      ...embedded.data.map(({ id, name }) => ({ id, name, source: /** @type {const} */ ("embedded") })),
      ...files.map(({ id, name, bytes, format }) => ({ id, name, bytes, format, source: /** @type {const} */ ("picked") })),
      ...(host.list?.models ?? []).map(({ id, name, bytes, format }) => ({ id, name, bytes, format, source: /** @type {const} */ ("host") })),
    ];
    return {
      data, chosen: this.chosen ?? embedded.data[0]?.id ?? EMBEDDED, problems: host.list?.problems ?? [],
      host: host.error ? { error: host.error } : {},
    };
  }

  /**
   * Makes a model the one that answers, once it is loaded; if that fails, the one before stays.
   * @param {UiMethods["models.choose"]["params"]} params  the context is kept with the choice
   */
  async choose({ id, context }) {
    if (context !== undefined && !(Number.isInteger(context) && context > 0 && context < 2 ** 32)) {
      throw new Refusal("TypeError", "invalid_request", "context must be a whole number of tokens above 0.");
    }
    const choice = { id, context };
    this.#choosing.add(choice);
    // At once: when the engine comes to it the tab may be closed, and with it goes the permission. What is wrong the engine tells.
    if (id.startsWith(picked.PREFIX)) picked.open(id).catch(() => {});
    try {
      const loaded = await this.#engine.request("models.load", { model: id, context });
      // Not one that was forgotten meanwhile.
      if (this.#choosing.has(choice)) keep(choice);
      return loaded;
    } finally {
      this.#choosing.delete(choice);
    }
  }

  /**
   * The properties of a model, and the memory that it needs.
   * @param {UiMethods["models.describe"]["params"]} params
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
   * @param {UiMethods["models.forget"]["params"]} params
   */
  async forget({ id }) {
    for (const choice of this.#choosing) if (choice.id === id) this.#choosing.delete(choice);
    if (localStorage.getItem(CHOICE) === id) [CHOICE, CONTEXT].forEach((item) => localStorage.removeItem(item));
    await picked.forget(id);
  }

  /**
   * Answers the engine's worker. What is not about models that are open goes to the native host as it is.
   * @param {string} method
   * @param {any} params
   * @returns {Promise<unknown>}
   */
  async answer(method, params) {
    if (Object.hasOwn(this.#answers, method)) return this.#answers[/** @type {Answered} */ (method)](params);
    if (FORWARDED.some((forwarded) => forwarded === method)) return background(method, params);
    throw unknownMethod(method);
  }

  /** The engine's worker is gone: what it had open is closed for it. */
  closeAll() {
    for (const id of this.#opens.keys()) background("models.close", { id }).catch(() => {});
    this.#opens = new Map();
  }

  /**
   * Tokens of the context that a model is to be loaded with; null: as many as usual.
   * @param {string} id
   */
  #context(id) {
    const choice = [...this.#choosing].findLast((choice) => choice.id === id);
    if (choice) return choice.context ?? null;
    return localStorage.getItem(CHOICE) === id ? Number(localStorage.getItem(CONTEXT)) || null : null;
  }

  /** @param {string} id */
  async #open(id) {
    // Before it is open: another's end must not close it meanwhile.
    const opens = this.#opens;
    opens.set(id, (opens.get(id) ?? 0) + 1);
    try {
      const opened = await background("models.open", { id });
      // The worker that wanted it ended meanwhile, and no other has it.
      if (opens !== this.#opens && !this.#opens.has(id)) await background("models.close", { id });
      return opened;
    } catch (error) {
      if (opens === this.#opens) await this.#close(id);
      throw error;
    }
  }

  /** @param {string} id */
  async #close(id) {
    const left = (this.#opens.get(id) ?? 0) - 1;
    if (left > 0) this.#opens.set(id, left);
    else if (this.#opens.delete(id)) await background("models.close", { id });
  }
}
