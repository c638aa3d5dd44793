/**
 * The page API of DOPPLER: one local language model for every tab.
 *
 * `window.doppler` exists in top-level documents of secure origins when the extension is installed. It is the same object
 * in every such page, so its presence tells a page that the extension is there (as `version` does) and nothing else: until
 * the user grants the page's origin access, only `version` and `permissions` answer; everything else rejects with a
 * `NotAllowedError` without reaching the engine.
 *
 * Failures are `DOMException`s (see {@link DopplerError}); wrong types of arguments are `TypeError`s. A field that has a
 * meaning and is not supported is rejected with `NotSupportedError`, never ignored.
 */

/** A `DOMException` (or `TypeError`) with a stable reason. */
export interface DopplerError extends Error {
  /**
   * `NotAllowedError` no grant · `NotSupportedError` field not supported, or no GPU · `QuotaExceededError` prompt longer than the
   * context, or too many requests · `NotFoundError` no such model · `DataError` the model does not take these messages ·
   * `NetworkError` another model was chosen meanwhile: ask again · `OperationError` the engine stopped: ask again; or, with the
   * reason `model_unavailable`, the chosen model cannot answer: the user finds the reason in the extension's popup, pages learn
   * nothing of the user's files · `InvalidStateError` · `AbortError` · `TypeError` · `UnknownError`
   */
  readonly name: string;
  /**
   * `lower_snake_case`, for programs: what went wrong, more exactly than `name` says. `code` is what the platform makes it, the
   * legacy number of a `DOMException`.
   */
  readonly reason: string;
  /** Depends on the reason: `{requested, quota}` in tokens, `{param}` the refused field. */
  readonly data?: any;
}

export type PermissionState = "granted" | "denied" | "prompt";

export interface Permissions {
  /** What the page may do now; the user is not asked. */
  query(): Promise<{ state: PermissionState }>;
  /**
   * Asks the user, in a window of the extension; needs user activation (a click, a key press). Resolves with `"prompt"` when the
   * user closes the window without an answer. Resolves at once where the user has decided before.
   */
  request(): Promise<{ state: PermissionState }>;
  /** Gives the grant up, for every tab of this origin; running requests end with `NotAllowedError`. */
  revoke(): Promise<{ state: PermissionState }>;
}

export interface TextPart { type: "text"; text: string }

export interface ChatMessage {
  role: "system" | "user" | "assistant" | "tool";
  content: string | TextPart[];
  [field: string]: unknown;
}

/**
 * OpenAI's chat completion request, as far as it is supported. Numbers that JSON cannot carry (NaN, Infinity), functions and the
 * like are refused by the field's path, as is what is nested more than 64 arrays and objects deep.
 */
export interface ChatCompletionRequest {
  messages: ChatMessage[];
  /** The id in `models.list()`: no other model answers than the one that the user chose. */
  model?: string;
  stream?: boolean;
  stream_options?: { include_usage?: boolean; include_obfuscation?: false };
  /** -1: as many as the context holds, as without the field. */
  max_tokens?: number;
  /** The same; where both are given the smaller counts. */
  max_completion_tokens?: number;
  temperature?: number;
  top_p?: number;
  /** 0 or -1: all tokens. */
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  /** A whole number that JavaScript holds exactly. */
  seed?: number;
  stop?: string | string[];
  /** Given to the model's chat template. */
  tools?: object[];
  /** `"none"`: the model does not see the tools. */
  tool_choice?: "none" | "auto";
  /** `false` only where no tools are shown. */
  parallel_tool_calls?: boolean;
  // These ask for what is done anyway, and other values are refused.
  n?: 1;
  logprobs?: false;
  top_logprobs?: 0;
  logit_bias?: Record<string, 0>;
  modalities?: ["text"];
  response_format?: { type: "text" };
  service_tier?: "auto" | "default";
  verbosity?: "medium";
  // Bookkeeping of a service, and a hint: they change nothing.
  store?: boolean;
  metadata?: object;
  user?: string;
  safety_identifier?: string;
  prompt_cache_key?: string;
  prompt_cache_retention?: string;
  prediction?: object;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Tokens of the prompt that were still in the cache from earlier requests of this origin, and so needed no time. */
  prompt_tokens_details: { cached_tokens: number };
}

/** Where the time went, measured in the engine. */
export interface Timings {
  queue_ms: number;
  prefill_ms: number;
  first_token_ms: number;
  decode_tokens_per_second: number;
  prompt_tokens: number;
  completion_tokens: number;
}

export type FinishReason = "stop" | "length";

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: { index: number; message: { role: "assistant"; content: string | null }; finish_reason: FinishReason }[];
  usage: Usage;
  timings?: Timings;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: { index: number; delta: { role?: "assistant"; content?: string }; finish_reason: FinishReason | null }[];
  usage?: Usage | null;
  timings?: Timings;
}

/** A streamed answer: read it once, with `for await`; leaving the loop, or `controller.abort()`, ends the request. */
export interface ChatCompletionStream extends AsyncIterable<ChatCompletionChunk> {
  readonly controller: AbortController;
  [Symbol.asyncIterator](): AsyncIterator<ChatCompletionChunk, undefined>;
}

export interface RequestOptions { signal?: AbortSignal | null }

export interface ChatCompletions {
  /** Resolves with the first chunk: a refused request rejects here, not in the loop. */
  create(request: ChatCompletionRequest & { stream: true }, options?: RequestOptions): Promise<ChatCompletionStream>;
  create(request: ChatCompletionRequest & { stream?: false }, options?: RequestOptions): Promise<ChatCompletion>;
  create(request: ChatCompletionRequest, options?: RequestOptions): Promise<ChatCompletion | ChatCompletionStream>;
}

export interface Model { id: string; object: "model"; created: number; owned_by: string; [field: string]: unknown }

export interface Models {
  /** The one model that answers: `spark-28m`, which ships with the extension, or `local`, any model of the user's own. */
  list(options?: RequestOptions): Promise<{ object: "list"; data: Model[] }>;
}

/** A message of the Prompt API; content is text only. */
export interface LanguageModelMessage {
  role: "system" | "user" | "assistant";
  content: string | { type: "text"; value: string }[];
}

export type LanguageModelPrompt = string | LanguageModelMessage[];

export interface LanguageModelExpected { type: "text"; languages?: string[] }

export interface LanguageModelOptions {
  /** 0 (the default): the most likely token always. */
  temperature?: number;
  /** At least 1; rounded down. */
  topK?: number;
  /** Text only; languages are taken as a hint. */
  expectedInputs?: LanguageModelExpected[];
  expectedOutputs?: LanguageModelExpected[];
}

export interface LanguageModelCreateOptions extends LanguageModelOptions {
  /** A `system` message may only come first. */
  initialPrompts?: LanguageModelMessage[];
  /** Ends the creation, and afterwards the session. */
  signal?: AbortSignal;
  /**
   * Called with a target of `downloadprogress` events: `loaded` from 0 to 1 while the model is loaded, 0 and 1 at once where it is
   * loaded already.
   */
  monitor?(target: EventTarget): void;
}

/**
 * A session in the shape of the Prompt API. Prompts of one session run one after the other; an aborted or failed prompt leaves
 * the session as it was. When the context overflows, the oldest exchanges (never the initial prompts) are forgotten, and a
 * `contextoverflow` event says so.
 */
export interface LanguageModel extends EventTarget {
  readonly contextUsage: number;
  /** Tokens of prompt and answer together; the `quota` of a `QuotaExceededError` is the same number. */
  readonly contextWindow: number;
  readonly temperature: number;
  readonly topK: number;
  prompt(input: LanguageModelPrompt, options?: RequestOptions): Promise<string>;
  /** A stream of text deltas. Throws at once for an aborted signal, a destroyed session or what is not supported. */
  promptStreaming(input: LanguageModelPrompt, options?: RequestOptions): ReadableStream<string>;
  /** Adds messages without asking for an answer. */
  append(input: LanguageModelPrompt, options?: RequestOptions): Promise<undefined>;
  /** Tokens that `input` would add. */
  measureContextUsage(input: LanguageModelPrompt, options?: RequestOptions): Promise<number>;
  clone(options?: RequestOptions): Promise<LanguageModel>;
  destroy(): void;
}

/** Not the browser's own `LanguageModel`, which DOPPLER leaves alone. */
export interface LanguageModelConstructor {
  readonly prototype: LanguageModel;
  /** `"unavailable"` where an option asks for something that is not supported. */
  availability(options?: LanguageModelOptions): Promise<"available" | "unavailable">;
  create(options?: LanguageModelCreateOptions): Promise<LanguageModel>;
  params(): Promise<{ defaultTopK: number; maxTopK: number; defaultTemperature: number; maxTemperature: number }>;
}

/** A page that has not called anything yet is not connected and hears nothing. */
export interface DopplerEventMap {
  /** `detail.state`: the user changed this origin's grant. */
  permissionchange: CustomEvent<{ state: PermissionState }>;
  /** `detail.model`: the id of the model that answers from now on; `local` again where one of the user's own follows another. */
  modelchange: CustomEvent<{ model: string }>;
  /**
   * The engine went away. Requests that had begun to be answered have been rejected, others are sent again by themselves, and the
   * next one connects again. With a `detail.message` it is for good: the extension was updated, reloaded or removed, and the page
   * has to be reloaded.
   */
  disconnect: CustomEvent<{ message?: string }>;
}

export interface Doppler extends EventTarget {
  readonly version: string;
  readonly permissions: Permissions;
  readonly chat: { readonly completions: ChatCompletions };
  readonly models: Models;
  readonly LanguageModel: LanguageModelConstructor;
  addEventListener<K extends keyof DopplerEventMap>(
    type: K, listener: (event: DopplerEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
}

/** `detail` of the `doppler:announce` events on `window`, sent at start and in answer to a `doppler:request` event. */
export interface DopplerAnnouncement {
  readonly info: { readonly name: "DOPPLER"; readonly version: string };
  readonly doppler: Doppler;
}

declare global {
  interface Window {
    readonly doppler: Doppler;
  }
  var doppler: Doppler;
  interface WindowEventMap {
    "doppler:announce": CustomEvent<DopplerAnnouncement>;
    "doppler:request": Event;
  }
}
