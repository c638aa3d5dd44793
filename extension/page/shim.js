// window.doppler, in the page's own world. Types and behaviour are documented in doppler.d.ts.
//
// This runs before any script of the page and keeps the built-ins it uses, so that a page that changes them gets odd results
// only by odd means. No secret is kept here and no decision made: whatever a page does to it, the router sees the same
// requests from the same attested origin.

(() => {
  /**
   * @typedef {import("./doppler.js").Doppler} DopplerType
   * @typedef {import("./doppler.js").ChatCompletionChunk} Chunk
   * @typedef {import("./doppler.js").LanguageModelCreateOptions} CreateOptions
   * @typedef {import("./doppler.js").LanguageModelPrompt} Prompt
   * @typedef {import("./doppler.js").RequestOptions | null} Options
   * @typedef {{role: string, content: string}} Message   as the engine takes it
   * @typedef {import("../shared/protocol.js").PageMethods} Methods
   * @typedef {{
   *   resolve: (done: any) => void,
   *   reject: (error: unknown) => void,
   *   chunk?: (chunk: any) => void,
   *   unfollow: () => void,
   * }} Request
   */

  if (!isSecureContext || Object.hasOwn(window, "doppler")) return;

  /** The version in manifest.json; a test holds the two together. */
  const VERSION = "0.1.0";

  /** Arrays and objects in each other: tools' schemas need some forty, and the router takes no more. */
  const MAX_DEPTH = 64;

  const { apply } = Reflect;
  const { create, freeze, defineProperty, hasOwn, keys, getPrototypeOf } = Object;
  const { isArray } = Array;
  const { isFinite } = Number;
  const { floor, min } = Math;
  const { slice: cut } = String.prototype;
  const { addEventListener: listen, removeEventListener: unlisten, dispatchEvent: dispatch } = EventTarget.prototype;
  const { AbortController, AbortSignal, CustomEvent, DOMException, Event, MessageEvent, ProgressEvent, Promise, ReadableStream, TypeError } = window;
  /** Its own interface since Chrome 138. */
  const { QuotaExceededError } = /** @type {any} */ (window);
  const { any: anySignal } = AbortSignal;

  // ---- requests ----------------------------------------------------------------------------------------------------

  const { port1: port, port2 } = new MessageChannel();
  const post = port.postMessage.bind(port);
  /** Requests that have not ended, by id. @type {Record<number, Request>} */
  const running = create(null);
  let next = 1;

  // The bridge receives the port in an event, now if it is there already and else when it says that it has come. It takes the
  // event, and the port is not announced again: both happen before any script of the page runs.
  const connect = () => {
    const taken = !dispatchEvent(new MessageEvent("doppler:connect", { cancelable: true, ports: [port2] }));
    if (taken) removeEventListener("doppler:bridge", connect);
  };
  addEventListener("doppler:bridge", connect);
  connect();

  port.onmessage = ({ data: frame }) => {
    if (frame.event) {
      const detail = freeze(frame.detail);
      return void apply(dispatch, doppler, [new CustomEvent(frame.event, { detail })]);
    }
    const request = running[frame.id];
    if (!request) return;
    if (hasOwn(frame, "chunk")) return request.chunk?.(frame.chunk);
    delete running[frame.id];
    request.unfollow();
    if (frame.error) request.reject(exception(frame.error));
    else request.resolve(frame.done);
  };

  /**
   * @template {keyof Methods} K
   * @param {K} method
   * @param {unknown} params
   * @param {AbortSignal | null} [signal]
   * @param {(chunk: Methods[K]["chunk"]) => void} [chunk]
   * @returns {Promise<Methods[K]["done"]>}
   */
  function request(method, params, signal, chunk) {
    return new Promise((resolve, reject) => {
      throwIfAborted(signal);
      // First: it runs code of the page, which may ask something itself, or abort.
      const json = toJson(params, "", "", 0);
      throwIfAborted(signal);
      const frame = { id: next++, method, params: json };
      const abort = () => {
        if (!running[frame.id]) return;
        delete running[frame.id];
        post({ id: frame.id, method: "cancel" });
        reject(signal?.reason);
      };
      if (signal) apply(listen, signal, ["abort", abort, { once: true }]);
      const unfollow = () => { if (signal) apply(unlisten, signal, ["abort", abort]); };
      running[frame.id] = { resolve, reject, chunk, unfollow };
      post(frame);
    });
  }

  /** @param {AbortSignal | null | undefined} signal */
  function throwIfAborted(signal) {
    if (signal !== undefined && signal !== null && !(signal instanceof AbortSignal)) throw new TypeError("signal must be an AbortSignal.");
    if (signal?.aborted) throw signal.reason;
  }

  /**
   * What JSON says of a value. Unlike `JSON.stringify` it refuses what would be left out or become null.
   * @param {any} value
   * @param {string} name  in the object or array that holds it
   * @param {string} path  of the value, for errors
   * @param {number} depth  of the value
   * @returns {any}
   */
  function toJson(value, name, path, depth) {
    if (typeof value?.toJSON === "function") value = value.toJSON(name);
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number") {
      if (isFinite(value)) return value;
      throw invalid(path, `is ${value}, which JSON cannot say: it must be a finite number`);
    }
    if (typeof value !== "object") throw invalid(path, `is of type ${typeof value}, which JSON cannot say: leave it out`);
    if (depth === MAX_DEPTH) throw invalid(path, `lies more than ${MAX_DEPTH} arrays and objects deep, or contains itself`);
    if (isArray(value)) {
      const items = [];
      for (let i = 0; i < value.length; i++) items[i] = toJson(value[i], `${i}`, `${path}[${i}]`, depth + 1);
      return items;
    }
    const copy = create(null);
    const names = keys(value);
    const parent = getPrototypeOf(value);
    if (names.length === 0 && parent !== null && getPrototypeOf(parent) !== null) {
      throw invalid(path, "is an object of which JSON says nothing: it must be a plain object");
    }
    for (let i = 0; i < names.length; i++) {
      const key = /** @type {string} */ (names[i]);
      const member = value[key];
      if (member !== undefined) copy[key] = toJson(member, key, path ? `${path}.${key}` : key, depth + 1);
    }
    return copy;
  }

  /**
   * @param {string} path
   * @param {string} problem
   */
  function invalid(path, problem) {
    const param = path.length > 200 ? `${apply(cut, path, [0, 200])}…` : path || "request";
    return exception({ name: "TypeError", code: "invalid_request", message: `${param} ${problem}.`, data: { param } });
  }

  /**
   * @param {{name: string, message: string, code: string, data?: any}} error  from the wire
   * @returns {Error}
   */
  function exception({ name, message, code, data }) {
    const error = make(name, message, data);
    // Not `code`: that is the platform's number.
    defineProperty(error, "reason", { value: code, enumerable: true });
    if (data !== undefined) defineProperty(error, "data", { value: data, enumerable: true });
    return error;
  }

  /**
   * @param {string} name
   * @param {string} message
   * @param {any} data
   * @returns {Error}
   */
  function make(name, message, data) {
    if (name === "TypeError") return new TypeError(message);
    if (name !== "QuotaExceededError") return new DOMException(message, name);
    // The interface takes no quota that was kept to.
    const { requested = null, quota = null } = data?.requested >= data?.quota ? data : {};
    if (QuotaExceededError) return new QuotaExceededError(message, quota === null ? {} : { requested, quota });
    const error = new DOMException(message, name);
    defineProperty(error, "requested", { value: requested });
    defineProperty(error, "quota", { value: quota });
    return error;
  }

  /**
   * @param {string} param
   * @param {string} [what]
   */
  const unsupported = (param, what = `"${param}" is not supported.`) =>
    exception({ name: "NotSupportedError", code: "unsupported_field", message: what, data: { param } });

  /**
   * A dictionary, without anything that would otherwise be ignored.
   * @param {any} options
   * @param {string[]} known
   * @returns {Record<string, any>}
   */
  function dictionary(options, known) {
    options ??= {};
    if (typeof options !== "object") throw new TypeError(`An object was expected, not a ${typeof options}.`);
    for (const key of keys(options)) {
      const value = options[key];
      // No, nothing and none ask for nothing.
      const asks = value !== undefined && value !== null && value !== false && !(isArray(value) && value.length === 0);
      if (asks && !known.includes(key)) throw unsupported(key);
    }
    return options;
  }

  // ---- chat completions ----------------------------------------------------------------------------------------------

  /** A streamed answer. Chunks are kept until they are read. */
  class ChatCompletionStream {
    #read;
    #taken = false;

    /**
     * @param {AbortController} controller
     * @param {AsyncGenerator<Chunk, undefined>} read
     */
    constructor(controller, read) {
      this.controller = controller;
      this.#read = read;
      freeze(this);
    }

    [Symbol.asyncIterator]() {
      if (this.#taken) throw new DOMException("A stream can be read once.", "InvalidStateError");
      this.#taken = true;
      return this.#read;
    }
  }

  /**
   * @param {object} body
   * @param {AbortSignal | null | undefined} signal
   * @returns {Promise<ChatCompletionStream>}
   */
  async function openStream(body, signal) {
    const controller = new AbortController();
    const signals = signal ? apply(anySignal, AbortSignal, [[signal, controller.signal]]) : controller.signal;
    /** @type {Chunk[]} */
    const chunks = [];
    let received = 0;
    /** @type {{error?: unknown} | undefined} */
    let end;
    let wake = () => {};

    request("chat.completions", body, signals, (chunk) => { chunks[received++] = chunk; wake(); }).then(
      () => { end = {}; wake(); },
      // An abort through the stream's own controller ends it without an exception.
      (error) => { end = controller.signal.aborted ? {} : { error }; wake(); },
    );
    const news = () => new Promise((resolve) => { wake = () => resolve(undefined); });

    /** @returns {AsyncGenerator<Chunk, undefined>} */
    async function* read() {
      try {
        for (let taken = 0; ; taken++) {
          while (taken === received && !end) await news();
          if (controller.signal.aborted || taken === received) break;
          const chunk = /** @type {Chunk} */ (chunks[taken]);
          delete chunks[taken];
          yield chunk;
        }
        if (end && hasOwn(end, "error")) throw end.error;
        return undefined;
      } finally {
        // The loop was left: the rest is not wanted. After the end this does nothing.
        controller.abort();
      }
    }

    if (!received && !end) await news();
    if (!received && end && hasOwn(end, "error")) throw end.error;
    return new ChatCompletionStream(controller, read());
  }

  // ---- Prompt API ----------------------------------------------------------------------------------------------------

  /** Without a word from the page the most likely token, which is what small models answer best with. */
  const PARAMS = freeze({ defaultTopK: 40, maxTopK: 128, defaultTemperature: 0, maxTemperature: 2 });
  const CREATE_OPTIONS = ["temperature", "topK", "expectedInputs", "expectedOutputs", "initialPrompts", "signal", "monitor"];

  /**
   * @param {any} input
   * @returns {Message[]}
   */
  function toMessages(input) {
    if (!isArray(input)) return [{ role: "user", content: `${input}` }];
    // The Prompt API takes an empty list for an empty text.
    return input.length === 0 ? [{ role: "user", content: "" }] : input.map((message) => toMessage(message, false));
  }

  /**
   * @param {any} message
   * @param {boolean} first  at the start of a session, where a system message may stand
   * @returns {Message}
   */
  function toMessage(message, first) {
    const { role, content } = dictionary(message, ["role", "content"]);
    if (role !== "user" && role !== "assistant" && role !== "system") throw new TypeError(`"${role}" is not a role.`);
    if (role === "system" && !first) throw new TypeError("A system message may only come first in initialPrompts.");
    if (typeof content === "string") return { role, content };
    if (!isArray(content)) throw new TypeError("content must be a string or an array of parts.");
    const texts = content.map((part) => {
      const { type, value } = dictionary(part, ["type", "value"]);
      if (type !== "text") throw unsupported("content", `Content of type "${type}" is not supported: only text is.`);
      if (typeof value !== "string") throw new TypeError("The value of a text part must be a string.");
      return value;
    });
    return { role, content: texts.join("") };
  }

  /**
   * A number as WebIDL converts it to a `float`.
   * @param {any} value
   * @param {string} name
   * @returns {number | undefined}
   */
  function toFloat(value, name) {
    if (value === undefined || value === null) return undefined;
    const number = +value;
    if (!isFinite(number)) throw invalid(name, "must be a finite number");
    return number;
  }

  /**
   * Options of a model, as the Prompt API understands them.
   * @param {Record<string, any>} options
   */
  function modelOptions({ temperature: warmth, topK: most, expectedInputs = [], expectedOutputs = [] }) {
    const temperature = toFloat(warmth, "temperature") ?? PARAMS.defaultTemperature;
    const topK = floor(toFloat(most, "topK") ?? PARAMS.defaultTopK);
    if (temperature < 0) throw new RangeError("temperature must be 0 or more.");
    if (topK < 1) throw new RangeError("topK must be 1 or more.");
    for (const { type } of [...expectedInputs, ...expectedOutputs]) {
      if (type !== "text") throw unsupported("expectedInputs", `Type "${type}" is not supported: only text is.`);
    }
    return { temperature: min(temperature, PARAMS.maxTemperature), topK: min(topK, PARAMS.maxTopK) };
  }

  /**
   * What a session is made of.
   * @typedef {{initial: Message[], exchanges: Message[][], usage: number, window: number, temperature: number, topK: number}} Session
   */

  /** Only `create` and `clone` have it. */
  const key = {};

  class LanguageModel extends EventTarget {
    /** @type {Session} */
    #session;
    #life = new AbortController();
    /** Prompts take turns. @type {Promise<unknown>} */
    #last = Promise.resolve();

    /** @param {{key: {}, session: Session, signal?: AbortSignal}} [inner] */
    constructor(inner) {
      if (inner?.key !== key) throw new TypeError("Illegal constructor: use LanguageModel.create().");
      super();
      this.#session = inner.session;
      if (inner.signal) apply(listen, inner.signal, ["abort", () => this.destroy(), { once: true, signal: this.#life.signal }]);
    }

    /** @param {CreateOptions} [options] */
    static async availability(options) {
      // Asked first: without a grant there is no other answer than a refusal.
      const { data } = await request("models.list", {});
      try {
        modelOptions(dictionary(options, CREATE_OPTIONS));
      } catch (error) {
        if (error instanceof DOMException || error instanceof RangeError) return "unavailable";
        throw error;
      }
      return data.length > 0 ? "available" : "unavailable";
    }

    static async params() {
      await request("models.list", {});
      return { ...PARAMS };
    }

    /** @param {CreateOptions} [options] */
    static async create(options) {
      const { initialPrompts, signal, monitor, ...model } = dictionary(options, CREATE_OPTIONS);
      const sampling = modelOptions(model);
      const initial = (initialPrompts ?? []).map((/** @type {any} */ message, /** @type {number} */ index) => toMessage(message, index === 0));
      throwIfAborted(signal);
      const progress = monitor ? watch(monitor, signal) : () => {};
      // A model that is not loaded yet is loaded for the answer, and says how far it is.
      const { tokens, context } = await count(initial, signal, ({ loaded }) => progress(loaded));
      if (tokens >= context) throw tooLong(tokens, context);
      progress(1);
      throwIfAborted(signal);
      return new LanguageModel({ key, session: { initial, exchanges: [], usage: tokens, window: context, ...sampling }, signal });
    }

    get contextUsage() { return this.#session.usage; }
    get contextWindow() { return this.#session.window; }
    get temperature() { return this.#session.temperature; }
    get topK() { return this.#session.topK; }

    /**
     * @param {Prompt} input
     * @param {Options} [options]
     */
    async prompt(input, options) {
      const { messages, signal } = this.#asked(input, options);
      let text = "";
      await this.#ask(messages, signal, (delta) => { text += delta; });
      return text;
    }

    /**
     * @param {Prompt} input
     * @param {Options} [options]
     * @returns {ReadableStream<string>}
     */
    promptStreaming(input, options) {
      const { messages, signal } = this.#asked(input, options);
      const left = new AbortController();
      const either = signal ? apply(anySignal, AbortSignal, [[signal, left.signal]]) : left.signal;
      return new ReadableStream({
        start: (controller) => {
          this.#ask(messages, either, (delta) => controller.enqueue(delta)).then(
            () => controller.close(),
            (error) => { if (!left.signal.aborted) controller.error(error); },
          );
        },
        cancel: (reason) => left.abort(reason),
      });
    }

    /**
     * @param {Prompt} input
     * @param {Options} [options]
     */
    async append(input, options) {
      const { messages, signal: own } = this.#asked(input, options);
      await this.#inTurn(own, async (signal) => {
        const { initial, exchanges, window } = this.#session;
        for (let kept = [...exchanges, messages]; ; kept = kept.slice(1)) {
          const { tokens } = await count([...initial, ...kept.flat()], signal);
          if (tokens < window) return this.#keep(kept, tokens, exchanges.length + 1);
          if (kept.length === 1) throw tooLong(tokens, window);
        }
      });
      return undefined;
    }

    /**
     * @param {Prompt} input
     * @param {Options} [options]
     */
    async measureContextUsage(input, options) {
      const { messages, signal: own } = this.#asked(input, options);
      return this.#inTurn(own, async (signal) => {
        const history = this.#history();
        const [before, after] = await Promise.all([count(history, signal), count([...history, ...messages], signal)]);
        return after.tokens - before.tokens;
      });
    }

    /** @param {Options} [options] */
    async clone(options) {
      const { signal } = dictionary(options, ["signal"]);
      return this.#inTurn(signal, async () => {
        const session = { ...this.#session, exchanges: [...this.#session.exchanges] };
        return new LanguageModel({ key, session, signal });
      });
    }

    destroy() {
      this.#life.abort(new DOMException("The session was destroyed.", "AbortError"));
    }

    #history() {
      const { initial, exchanges } = this.#session;
      return [...initial, ...exchanges.flat()];
    }

    /**
     * What a call asks for, unless it is refused at once.
     * @param {Prompt} input
     * @param {Options} [options]
     * @returns {{messages: Message[], signal: AbortSignal | undefined}}
     */
    #asked(input, options) {
      const { signal } = dictionary(options, ["signal"]);
      const messages = toMessages(input);
      this.#throwIfDestroyed();
      throwIfAborted(signal);
      return { messages, signal: signal ?? undefined };
    }

    #throwIfDestroyed() {
      if (this.#life.signal.aborted) {
        throw exception({ name: "InvalidStateError", code: "destroyed", message: "The session was destroyed: create another." });
      }
    }

    /**
     * Runs `work` after what was asked of this session before, unless it is aborted first.
     * @template T
     * @param {AbortSignal | null | undefined} signal
     * @param {(signal: AbortSignal) => Promise<T>} work
     * @returns {Promise<T>}
     */
    async #inTurn(signal, work) {
      this.#throwIfDestroyed();
      const life = this.#life.signal;
      const either = signal ? apply(anySignal, AbortSignal, [[signal, life]]) : life;
      const mine = this.#last.then(() => {
        if (either.aborted) throw either.reason;
        return work(either);
      });
      this.#last = mine.catch(() => {});
      return mine;
    }

    /**
     * @param {Message[]} messages
     * @param {AbortSignal | undefined} own  the call's signal
     * @param {(delta: string) => void} onText
     */
    async #ask(messages, own, onText) {
      await this.#inTurn(own, async (signal) => {
        const { initial, exchanges, temperature, topK } = this.#session;
        for (let kept = exchanges; ; kept = kept.slice(1)) {
          let content = "";
          let usage = 0;
          try {
            await request("chat.completions", {
              messages: [...initial, ...kept.flat(), ...messages],
              stream: true, stream_options: { include_usage: true }, temperature, top_k: topK,
            }, signal, (/** @type {Chunk} */ chunk) => {
              const delta = chunk.choices[0]?.delta.content ?? "";
              usage = chunk.usage?.total_tokens ?? usage;
              content += delta;
              if (delta) onText(delta);
            });
          } catch (error) {
            // Refused before it began, for its length: forget the oldest exchange and ask again.
            const { name, data } = /** @type {any} */ (error);
            if (name === "QuotaExceededError" && data?.quota && kept.length > 0) continue;
            throw error;
          }
          return this.#keep([...kept, [...messages, { role: "assistant", content }]], usage, exchanges.length + 1);
        }
      });
    }

    /**
     * @param {Message[][]} exchanges
     * @param {number} usage
     * @param {number} complete  how many there would be if none had been forgotten
     */
    #keep(exchanges, usage, complete) {
      this.#session = { ...this.#session, exchanges, usage };
      if (exchanges.length < complete) apply(dispatch, this, [new Event("contextoverflow")]);
    }
  }

  /**
   * Tokens of a conversation. An empty one has none, and is asked about with a blank message since templates may refuse it.
   * @param {Message[]} messages
   * @param {AbortSignal | null | undefined} signal
   * @param {(progress: {loaded: number}) => void} [onProgress]  while the model is loaded for it
   * @returns {Promise<{tokens: number, context: number}>}
   */
  async function count(messages, signal, onProgress) {
    if (messages.length > 0) return request("tokens.count", { messages }, signal, onProgress);
    const { context } = await request("tokens.count", { messages: [{ role: "user", content: "" }] }, signal, onProgress);
    return { tokens: 0, context };
  }

  /**
   * Tells a page's monitor how far the model is: 0 first, then only what is more, and nothing after an abort.
   * @param {(target: EventTarget) => void} monitor
   * @param {AbortSignal | null} [signal]
   * @returns {(loaded: number) => void}
   */
  function watch(monitor, signal) {
    const target = new EventTarget();
    monitor(target);
    let last = -1;
    return function tell(loaded) {
      if (last < 0 && loaded > 0) tell(0);
      if (loaded <= last || signal?.aborted) return;
      last = loaded;
      apply(dispatch, target, [new ProgressEvent("downloadprogress", { lengthComputable: true, loaded, total: 1 })]);
    };
  }

  /**
   * @param {number} requested
   * @param {number} quota
   */
  const tooLong = (requested, quota) => exception({
    name: "QuotaExceededError", code: "context_length_exceeded", data: { requested, quota },
    message: `The prompt has ${requested} tokens and the model's context holds ${quota}, the answer included: send less text.`,
  });

  // ---- window.doppler ------------------------------------------------------------------------------------------------

  const permissions = freeze({
    query: () => request("permissions.query", {}),
    request: () => request("permissions.request", {}),
    revoke: () => request("permissions.revoke", {}),
  });
  const completions = freeze({
    /**
     * @param {any} body
     * @param {Options} [options]
     */
    async create(body, options) {
      if (typeof body !== "object" || body === null || isArray(body)) throw invalid("request", "must be an object");
      return body.stream ? openStream(body, options?.signal) : /** @type {Promise<any>} */ (request("chat.completions", body, options?.signal));
    },
  });
  const chat = freeze({ completions });
  const models = freeze({
    /** @param {Options} [options] */
    list: (options) => request("models.list", {}, options?.signal),
  });

  class Doppler extends EventTarget {
    get version() { return VERSION; }
    get permissions() { return permissions; }
    get chat() { return chat; }
    get models() { return models; }
    get LanguageModel() { return LanguageModel; }
  }
  for (const shape of [Doppler, LanguageModel, ChatCompletionStream]) {
    freeze(shape.prototype);
    freeze(shape);
  }
  /** @type {DopplerType} */
  const doppler = freeze(new Doppler());
  defineProperty(window, "doppler", { value: doppler, enumerable: true });

  const announcement = freeze({ info: freeze({ name: "DOPPLER", version: VERSION }), doppler });
  const announce = () => dispatchEvent(new CustomEvent("doppler:announce", { detail: announcement }));
  addEventListener("doppler:request", announce);
  announce();
})();
