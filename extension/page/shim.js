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
   * @typedef {{role: string, content: string}} Message   as the engine takes it
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

  const { stringify, parse } = JSON;
  const { apply } = Reflect;
  const { freeze, defineProperty, keys } = Object;
  const { isArray } = Array;
  const { addEventListener: listen, removeEventListener: unlisten, dispatchEvent: dispatch } = EventTarget.prototype;
  const { AbortController, AbortSignal, CustomEvent, DOMException, Event, MessageEvent, ProgressEvent, Promise, ReadableStream, TypeError } = window;
  const { any: anySignal } = AbortSignal;

  // ---- requests ----------------------------------------------------------------------------------------------------

  const { port1: port, port2 } = new MessageChannel();
  const post = port.postMessage.bind(port);
  /** Requests that have not ended, by id. @type {Record<number, Request>} */
  const running = Object.create(null);
  let next = 1;

  // The bridge receives the port in an event, now if it is there already and else when it says that it has come.
  const connect = () => dispatchEvent(new MessageEvent("doppler:connect", { ports: [port2] }));
  addEventListener("doppler:bridge", connect, { once: true });
  connect();

  port.onmessage = ({ data: frame }) => {
    if (frame.event) {
      const detail = freeze(frame.detail);
      return void apply(dispatch, doppler, [new CustomEvent(frame.event, { detail })]);
    }
    const request = running[frame.id];
    if (!request) return;
    if ("chunk" in frame) return request.chunk?.(frame.chunk);
    delete running[frame.id];
    request.unfollow();
    if (frame.error) request.reject(exception(frame.error));
    else request.resolve(frame.done);
  };

  /**
   * @param {string} method
   * @param {object} params
   * @param {AbortSignal | undefined} [signal]
   * @param {(chunk: any) => void} [chunk]
   * @returns {Promise<any>}
   */
  function request(method, params, signal, chunk) {
    return new Promise((resolve, reject) => {
      if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError("signal must be an AbortSignal.");
      if (signal?.aborted) throw signal.reason;
      // What JSON cannot say does not reach the engine; a request that cannot be JSON at all fails here.
      const frame = { id: next++, method, params: parse(stringify(params)) };
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

  /**
   * @param {{name: string, message: string, code: string, data?: any}} error  from the wire
   * @returns {Error}
   */
  function exception({ name, message, code, data }) {
    const error = name === "TypeError" ? new TypeError(message) : new DOMException(message, name);
    defineProperty(error, "code", { value: code, enumerable: true });
    if (data !== undefined) {
      defineProperty(error, "data", { value: data, enumerable: true });
      // What the Prompt API's QuotaExceededError carries.
      if (name === "QuotaExceededError") {
        defineProperty(error, "requested", { value: data.requested ?? null });
        defineProperty(error, "quota", { value: data.quota ?? null });
      }
    }
    return error;
  }

  /**
   * @param {string} param
   * @param {string} [what]
   */
  const unsupported = (param, what = `"${param}" is not supported.`) =>
    exception({ name: "NotSupportedError", code: "unsupported_field", message: what, data: { param } });

  /**
   * Rejects what would otherwise be ignored.
   * @param {Record<string, any>} options
   * @param {string[]} known
   */
  function onlyKnown(options, known) {
    for (const key of keys(options)) {
      const value = options[key];
      if (value !== undefined && !(isArray(value) && value.length === 0) && !known.includes(key)) throw unsupported(key);
    }
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
   * @param {AbortSignal | undefined} signal
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
      // Who aborts through the stream's own controller wants its end, not an exception.
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
        if (end && "error" in end) throw end.error;
        return undefined;
      } finally {
        // The loop was left: nobody wants the rest. After the end this does nothing.
        controller.abort();
      }
    }

    if (!received && !end) await news();
    if (!received && end && "error" in end) throw end.error;
    return new ChatCompletionStream(controller, read());
  }

  // ---- Prompt API ----------------------------------------------------------------------------------------------------

  /** Without a word from the page the most likely token, which is what small models answer best with. */
  const PARAMS = freeze({ defaultTopK: 40, maxTopK: 128, defaultTemperature: 0, maxTemperature: 2 });
  const MODEL_OPTIONS = ["temperature", "topK", "expectedInputs", "expectedOutputs"];

  /**
   * @param {any} input
   * @param {boolean} [first]  at the start of a session, where a system message may stand
   * @returns {Message[]}
   */
  function toMessages(input, first = false) {
    if (!isArray(input)) input = [{ role: "user", content: `${input}` }];
    return input.map((/** @type {any} */ message, /** @type {number} */ index) => {
      const { role, content, ...rest } = message ?? {};
      onlyKnown(rest, []);
      if (role !== "user" && role !== "assistant" && role !== "system") throw new TypeError(`"${role}" is not a role.`);
      if (role === "system" && !(first && index === 0)) throw new TypeError("A system message may only come first in initialPrompts.");
      if (typeof content === "string") return { role, content };
      if (!isArray(content)) throw new TypeError("content must be a string or an array of parts.");
      return {
        role,
        content: content.map(({ type, value, ...rest }) => {
          onlyKnown(rest, []);
          if (type !== "text") throw unsupported("content", `Content of type "${type}" is not supported: only text is.`);
          if (typeof value !== "string") throw new TypeError("The value of a text part must be a string.");
          return value;
        }).join(""),
      };
    });
  }

  /** @param {Record<string, any>} options */
  function checkModelOptions({ temperature, topK, expectedInputs = [], expectedOutputs = [] }) {
    if (temperature !== undefined && !(temperature >= 0)) throw new RangeError("temperature must be 0 or more.");
    if (topK !== undefined && !(topK >= 1)) throw new RangeError("topK must be 1 or more.");
    for (const { type } of [...expectedInputs, ...expectedOutputs]) {
      if (type !== "text") throw unsupported("expectedInputs", `Type "${type}" is not supported: only text is.`);
    }
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

    static async availability(options = {}) {
      // Asked first: without a grant there is no other answer than a refusal.
      const { data } = await request("models.list", {});
      try {
        onlyKnown(options, MODEL_OPTIONS);
        checkModelOptions(options);
      } catch (error) {
        if (error instanceof DOMException) return "unavailable";
        throw error;
      }
      return data.length > 0 ? "available" : "unavailable";
    }

    static async params() {
      await request("models.list", {});
      return { ...PARAMS };
    }

    /** @param {CreateOptions} [options] */
    static async create(options = {}) {
      onlyKnown(options, [...MODEL_OPTIONS, "initialPrompts", "signal", "monitor"]);
      checkModelOptions(options);
      const { initialPrompts = [], temperature = PARAMS.defaultTemperature, topK = PARAMS.defaultTopK, signal, monitor } = options;
      const initial = toMessages(initialPrompts, true);
      const { tokens, context } = await count(initial, signal);
      if (tokens > context) throw tooLong(tokens, context);
      if (monitor) {
        // The model is here already; the Prompt API promises the first and the last event.
        const target = new EventTarget();
        monitor(target);
        for (const loaded of [0, 1]) {
          apply(dispatch, target, [new ProgressEvent("downloadprogress", { lengthComputable: true, loaded, total: 1 })]);
        }
      }
      const session = {
        initial, exchanges: [], usage: tokens, window: context,
        temperature: Math.min(temperature, PARAMS.maxTemperature), topK: Math.min(topK, PARAMS.maxTopK),
      };
      return new LanguageModel({ key, session, signal });
    }

    get contextUsage() { return this.#session.usage; }
    get contextWindow() { return this.#session.window; }
    get temperature() { return this.#session.temperature; }
    get topK() { return this.#session.topK; }

    /**
     * @param {Prompt} input
     * @param {{signal?: AbortSignal}} [options]
     */
    async prompt(input, options = {}) {
      let text = "";
      await this.#ask(input, options, (delta) => { text += delta; });
      return text;
    }

    /**
     * @param {Prompt} input
     * @param {{signal?: AbortSignal}} [options]
     * @returns {ReadableStream<string>}
     */
    promptStreaming(input, options = {}) {
      const left = new AbortController();
      return new ReadableStream({
        start: (controller) => {
          const signal = options.signal ? apply(anySignal, AbortSignal, [[options.signal, left.signal]]) : left.signal;
          this.#ask(input, { ...options, signal }, (delta) => controller.enqueue(delta)).then(
            () => controller.close(),
            (error) => { if (!left.signal.aborted) controller.error(error); },
          );
        },
        cancel: (reason) => left.abort(reason),
      });
    }

    /**
     * @param {Prompt} input
     * @param {{signal?: AbortSignal}} [options]
     */
    async append(input, options = {}) {
      const messages = this.#messages(input, options);
      await this.#inTurn(options.signal, async (signal) => {
        const { initial, exchanges, window } = this.#session;
        for (let kept = [...exchanges, messages]; ; kept = kept.slice(1)) {
          const { tokens } = await count([...initial, ...kept.flat()], signal);
          if (tokens <= window) return this.#keep(kept, tokens, exchanges.length + 1);
          if (kept.length === 1) throw tooLong(tokens, window);
        }
      });
      return undefined;
    }

    /**
     * @param {Prompt} input
     * @param {{signal?: AbortSignal}} [options]
     */
    async measureContextUsage(input, options = {}) {
      const messages = this.#messages(input, options);
      return this.#inTurn(options.signal, async (signal) => {
        const history = this.#history();
        const [before, after] = await Promise.all([count(history, signal), count([...history, ...messages], signal)]);
        return after.tokens - before.tokens;
      });
    }

    /** @param {{signal?: AbortSignal}} [options] */
    async clone(options = {}) {
      onlyKnown(options, ["signal"]);
      return this.#inTurn(options.signal, async () => {
        const session = { ...this.#session, exchanges: [...this.#session.exchanges] };
        return new LanguageModel({ key, session, signal: options.signal });
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
     * @param {Prompt} input
     * @param {object} options
     */
    #messages(input, options) {
      onlyKnown(options, ["signal"]);
      return toMessages(input);
    }

    /**
     * Runs `work` after what was asked of this session before, unless it is aborted first.
     * @template T
     * @param {AbortSignal | undefined} signal
     * @param {(signal: AbortSignal) => Promise<T>} work
     * @returns {Promise<T>}
     */
    async #inTurn(signal, work) {
      const life = this.#life.signal;
      if (life.aborted) throw exception({ name: "InvalidStateError", code: "destroyed", message: "The session was destroyed: create another." });
      const either = signal ? apply(anySignal, AbortSignal, [[signal, life]]) : life;
      const mine = this.#last.then(() => {
        if (either.aborted) throw either.reason;
        return work(either);
      });
      this.#last = mine.catch(() => {});
      return mine;
    }

    /**
     * @param {Prompt} input
     * @param {{signal?: AbortSignal}} options
     * @param {(delta: string) => void} onText
     */
    async #ask(input, options, onText) {
      const messages = this.#messages(input, options);
      await this.#inTurn(options.signal, async (signal) => {
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
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<{tokens: number, context: number}>}
   */
  async function count(messages, signal) {
    if (messages.length > 0) return request("tokens.count", { messages }, signal);
    const { context } = await request("tokens.count", { messages: [{ role: "user", content: "" }] }, signal);
    return { tokens: 0, context };
  }

  /**
   * @param {number} requested
   * @param {number} quota
   */
  const tooLong = (requested, quota) => exception({
    name: "QuotaExceededError", code: "context_length_exceeded", data: { requested, quota },
    message: `The prompt has ${requested} tokens and the model's context holds ${quota}: send less text.`,
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
     * @param {{signal?: AbortSignal}} [options]
     */
    create: async (body, { signal } = {}) =>
      body?.stream ? openStream(body, signal) : request("chat.completions", body ?? {}, signal),
  });
  const chat = freeze({ completions });
  const models = freeze({
    /** @param {{signal?: AbortSignal}} [options] */
    list: ({ signal } = {}) => request("models.list", {}, signal),
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
