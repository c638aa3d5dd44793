/**
 * The popup's conversations. They live in the offscreen document, so an answer goes on while the popup is closed, and in a
 * {@link ConversationStore}, so they outlive the browser.
 *
 * Methods (params → result):
 *
 * | method                     | params                 | result                                                       |
 * | -------------------------- | ---------------------- | ------------------------------------------------------------ |
 * | `conversations.list`       | `{}`                   | `{current: string \| null, data: Summary[], problem}`, newest first |
 * | `conversations.get`        | `{id?: string}`        | `{conversation: Snapshot \| null}`; without `id` the current one, if any |
 * | `conversations.new`        | `{}`                   | `{}`: from now on no conversation is the current one          |
 * | `conversations.send`       | `{id?: string, text}`  | `{id, seq}`; without `id` a new conversation begins           |
 * | `conversations.stop`       | `{id: string}`         | `{}`; the answer so far is kept                               |
 * | `conversations.regenerate` | `{id: string}`         | `{id, seq}`: the last answer is replaced by another           |
 * | `conversations.delete`     | `{id: string}`         | `{}`                                                         |
 *
 * `send` and `regenerate` return at once; the answer arrives as `conversation` events ({@link ConversationEvent}). Every event of
 * a conversation carries `seq`, one more than the event before it, and a snapshot carries the `seq` of the last event it
 * includes: a client drops events up to its snapshot's, applies the next one, and asks for a snapshot when one is missing.
 * Nothing is lost or doubled whenever a popup opens. `problem` is a sentence where conversations cannot be stored now, else `null`;
 * `storage` events say when that changes. What is not stored is kept in memory and tried again. Sequence numbers start at zero with each offscreen document.
 *
 * @typedef {import("./conversations-store.js").ConversationStore} ConversationStore
 *
 * @typedef {object} Stats
 * @property {number} [first_token_ms]             milliseconds from the request to the first token
 * @property {number} [decode_tokens_per_second]
 * @property {number} [prompt_tokens]
 * @property {number} [completion_tokens]
 *
 * @typedef {object} Failure
 * @property {string} name       a DOMException name
 * @property {string} message    what happened, and what to do about it
 * @property {string} [code]     a word for programs
 * @property {unknown} [data]
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {string} [thinking]             what the model thought before it answered
 * @property {number} [thinking_ms]          for how long, once it has ended
 * @property {"done" | "streaming" | "stopped" | "interrupted" | "failed"} state
 *   `stopped` by the user, `interrupted` by the end of the offscreen document or the browser
 * @property {"stop" | "length"} [finish]    why a `done` answer ended
 * @property {string} [model]                the id of the model that answered
 * @property {Stats} [stats]
 * @property {Failure} [error]               of a `failed` answer
 * @property {boolean} [again]               asked a second time, after the document ended before its first word
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title     the beginning of its first question
 * @property {number} created   milliseconds since 1970
 * @property {number} updated
 * @property {Message[]} messages
 *
 * @typedef {{id: string, title: string, updated: number, busy: boolean}} Summary
 * @typedef {Summary & {seq: number, messages: Message[]}} Snapshot
 *
 * @typedef {{id: string, seq: number, type: "message", index: number, message: Message, summary: Summary}} MessageChanged
 *   message number `index` is now `message`, and no message follows it
 * @typedef {{id: string, seq: number, type: "delta", message: string, text: string, thinking: string}} TextAdded
 *   `text` is appended to the content of the last message, whose id is `message`, and `thinking` to its thought
 * @typedef {{id: string, seq: number, type: "deleted"}} Deleted
 * @typedef {MessageChanged | TextAdded | Deleted} ConversationEvent
 *
 * @typedef {object} Dependencies
 * @property {(method: string, params: object, onChunk: (chunk: any) => void, signal: AbortSignal) => Promise<any>} request
 *   asks the engine; rejects with an object that has `name`, `message` and perhaps `data`
 * @property {(event: "conversation" | "storage", detail: ConversationEvent | {problem: string | null}) => void} broadcast
 *   tells every open popup
 * @property {ConversationStore} [store]
 * @property {() => number} [now]
 */

import { indexedDbStore } from "./conversations-store.js";
import { separate, Thought } from "./thinking.js";

/** While an answer streams it is stored this often, in milliseconds: a crash loses no more. */
const SAVE_INTERVAL = 800;
/** Popups are told of new text this often, in milliseconds: once a frame. */
const FRAME = 16;
const TITLE_LENGTH = 60;
/** What could not be stored is tried again this often, in milliseconds. */
const RETRY_INTERVAL = 20_000;
/** A question that lost its answer before the first word is asked again if it is younger than this, in milliseconds. */
const FRESH = 5 * 60_000;

/**
 * @param {string} text
 * @returns {string} the first words of it on one line, at most `TITLE_LENGTH` code points
 */
function titleOf(text) {
  const points = Array.from(text.trim().replace(/\s+/g, " "));
  return points.length <= TITLE_LENGTH ? points.join("") : `${points.slice(0, TITLE_LENGTH - 1).join("").trimEnd()}…`;
}

/**
 * What the engine is asked. A question that got no word of an answer is left out, so that question and answer alternate, as
 * chat templates expect. What the model thought is left out as well.
 *
 * @param {Message[]} messages
 */
function turns(messages) {
  return messages
    .filter((message, index) => {
      const answer = message.role === "user" ? messages[index + 1] : message;
      return answer === undefined || answer.content !== "";
    })
    .map(({ role, content }) => ({ role, content }));
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
function failureOf(error) {
  const { name = "UnknownError", message = String(error), code, data } = /** @type {Partial<Failure>} */ (error ?? {});
  // A DOMException's code is a number.
  return { name, message, ...(typeof code === "string" && { code }), ...(data !== undefined && { data }) };
}

/**
 * What to tell the user when conversations cannot be stored.
 *
 * @param {unknown} error
 */
function storageProblem(error) {
  const { name, message } = failureOf(error);
  const why = name === "QuotaExceededError" ? "there is no room left on the disk" : message;
  return `New messages are lost when the browser is closed, because they cannot be stored (${why}). Free some disk space, or delete conversations.`;
}

/**
 * @param {Dependencies} dependencies
 * @returns {{handle: (method: string, params: any) => Promise<any>}}
 *   `handle` rejects with a DOMException: NotFoundError, InvalidStateError, TypeError (as an error of that name)
 */
export function createConversations({ request, broadcast, store = indexedDbStore(), now = Date.now }) {
  /** @type {Map<string, Conversation>} */
  const conversations = new Map();
  /** Answers under way, by conversation. @type {Map<string, AbortController>} */
  const running = new Map();
  /** Number of the last event, by conversation. @type {Map<string, number>} */
  const sequence = new Map();
  /** Conversations that changed since they were stored, with the timer that will store them. @type {Map<string, ReturnType<typeof setTimeout>>} */
  const dirty = new Map();
  /** Conversations that could not be stored. @type {Set<Conversation>} */
  const unsaved = new Set();
  /** Why, for the user. @type {string | null} */
  let problem = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let retry;
  /** Text that popups were not told of yet, by conversation. @type {Map<string, {message: string, text: string, thinking: string}>} */
  const untold = new Map();
  /** Conversations whose popups were told of text within this frame. @type {Set<string>} */
  const told = new Set();
  /** What the popup shows when it opens. @type {string | null} */
  let current = null;

  const loaded = restore();

  /** Reads the store. Answers that were under way when the document ended are asked for again or, if they had begun, marked. */
  async function restore() {
    /** @type {Conversation[]} */
    let stored = [];
    try {
      stored = await store.load();
    } catch (error) {
      console.warn("DOPPLER cannot read the stored conversations:", error);
      tellProblem(`The stored conversations cannot be read (${failureOf(error).message}): restart the browser.`);
    }
    for (const conversation of stored.sort((a, b) => a.updated - b.updated)) {
      conversations.set(conversation.id, conversation);
      current = conversation.id;
      for (const message of conversation.messages) separate(message);
      const last = conversation.messages.at(-1);
      if (last?.state === "streaming") resume(conversation, last);
    }
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} last  its answer, which was under way
   */
  function resume(conversation, last) {
    if (last.content === "" && !last.thinking && !last.again && now() - conversation.updated < FRESH) {
      conversation.messages.pop();
      void answer(conversation, {}, { again: true });
    } else {
      last.state = "interrupted";
      void save(conversation);
    }
  }

  /** @param {Conversation} conversation */
  async function save(conversation) {
    clearTimeout(dirty.get(conversation.id));
    dirty.delete(conversation.id);
    try {
      await store.put(conversation);
      unsaved.delete(conversation);
      if (unsaved.size === 0) tellProblem(null);
    } catch (error) {
      console.warn("DOPPLER cannot store a conversation:", error);
      if (conversations.get(conversation.id) !== conversation) return;
      unsaved.add(conversation);
      tellProblem(storageProblem(error));
      retry ??= setTimeout(saveAgain, RETRY_INTERVAL);
    }
  }

  /** Tries to store what could not be stored. */
  function saveAgain() {
    clearTimeout(retry);
    retry = undefined;
    for (const conversation of unsaved) void save(conversation);
  }

  /** @param {string | null} sentence */
  function tellProblem(sentence) {
    if (sentence === problem) return;
    problem = sentence;
    broadcast("storage", { problem });
  }

  /** @param {Conversation} conversation */
  function saveSoon(conversation) {
    if (!dirty.has(conversation.id)) {
      dirty.set(conversation.id, setTimeout(() => void save(conversation), SAVE_INTERVAL));
    }
  }

  /** @param {Conversation} conversation @returns {Summary} */
  function summary({ id, title, updated }) {
    return { id, title, updated, busy: running.has(id) };
  }

  /** @param {string} id */
  function nextSequence(id) {
    const seq = (sequence.get(id) ?? 0) + 1;
    sequence.set(id, seq);
    return seq;
  }

  /**
   * Announces the last message of a conversation.
   *
   * @param {Conversation} conversation
   */
  function announce(conversation) {
    const { id, messages } = conversation;
    untold.delete(id);
    const index = messages.length - 1;
    const message = structuredClone(messages[index]);
    broadcast("conversation", { id, seq: nextSequence(id), type: "message", index, message, summary: summary(conversation) });
  }

  /** @param {string} id */
  function flush(id) {
    const added = untold.get(id);
    if (untold.delete(id)) broadcast("conversation", { id, seq: nextSequence(id), type: "delta", .../** @type {NonNullable<typeof added>} */ (added) });
  }

  /**
   * Tells popups of new text: at once, or with the frame's other text when the frame ends.
   *
   * @param {string} id
   */
  function tell(id) {
    if (told.has(id) || !untold.has(id)) return;
    flush(id);
    told.add(id);
    setTimeout(() => {
      told.delete(id);
      tell(id);
    }, FRAME);
  }

  /**
   * @param {unknown} id
   * @returns {Conversation}
   */
  function find(id) {
    const conversation = typeof id === "string" ? conversations.get(id) : undefined;
    if (!conversation) throw new DOMException("This conversation no longer exists; start a new one.", "NotFoundError");
    return conversation;
  }

  /** @param {Conversation} conversation */
  function refuseBusy({ id }) {
    if (running.has(id)) throw new DOMException("An answer is still being written; stop it first.", "InvalidStateError");
  }

  /**
   * Appends an empty answer and fills it from the engine. Never rejects: the outcome is in the message.
   *
   * @param {Conversation} conversation
   * @param {object} sampling
   * @param {{again?: boolean}} [fields]  of the answer
   */
  async function answer(conversation, sampling, fields = {}) {
    const controller = new AbortController();
    running.set(conversation.id, controller);
    const messages = turns(conversation.messages);
    /** @type {Message} */
    const message = { id: crypto.randomUUID(), role: "assistant", content: "", state: "streaming", ...fields };
    conversation.messages.push(message);
    conversation.updated = now();
    announce(conversation);
    void save(conversation);

    const parameters = { messages, stream: true, stream_options: { include_usage: true }, ...sampling };
    const thought = new Thought();
    try {
      await request("chat.completions", parameters, (chunk) => receive(conversation, message, thought, chunk), controller.signal);
      message.state = "done";
    } catch (error) {
      if (controller.signal.aborted) {
        message.state = "stopped";
      } else {
        message.state = "failed";
        message.error = failureOf(error);
      }
    }
    thought.end(message);
    running.delete(conversation.id);
    if (conversations.get(conversation.id) !== conversation) return;
    conversation.updated = now();
    announce(conversation);
    await save(conversation);
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {Thought} thought
   * @param {any} chunk a `chat.completion.chunk`
   */
  function receive(conversation, message, thought, chunk) {
    if (running.get(conversation.id)?.signal.aborted !== false) return;
    if (chunk.model) message.model = chunk.model;
    if (chunk.timings) message.stats = chunk.timings;
    const choice = chunk.choices?.[0];
    if (choice?.finish_reason) message.finish = choice.finish_reason;
    const text = choice?.delta?.content;
    if (!text) return;
    const added = thought.add(message, text);
    saveSoon(conversation);
    // A thought that has ended is more than text.
    if (added === undefined) return announce(conversation);
    if (!added.content && !added.thinking) return;
    const { id } = conversation;
    const waiting = untold.get(id) ?? { message: message.id, text: "", thinking: "" };
    untold.set(id, { ...waiting, text: waiting.text + added.content, thinking: waiting.thinking + added.thinking });
    tell(id);
  }

  /** @param {Conversation} conversation @returns {{id: string, seq: number}} */
  function accepted({ id }) {
    current = id;
    return { id, seq: sequence.get(id) ?? 0 };
  }

  /** @type {Record<string, (params: any) => any>} */
  const methods = {
    "conversations.list": () => ({
      current,
      problem,
      data: [...conversations.values()].sort((a, b) => b.updated - a.updated).map(summary),
    }),

    "conversations.get": ({ id = current }) => {
      if (id === null) return { conversation: null };
      const conversation = find(id);
      current = conversation.id;
      // The snapshot has it already.
      flush(conversation.id);
      const { messages } = structuredClone(conversation);
      return { conversation: { ...summary(conversation), seq: sequence.get(conversation.id) ?? 0, messages } };
    },

    "conversations.new": () => {
      current = null;
      return {};
    },

    "conversations.send": ({ id, text }) => {
      if (typeof text !== "string" || text.trim() === "") throw new TypeError("A message needs a text.");
      const time = now();
      /** @type {Conversation} */
      const conversation =
        id === undefined
          ? { id: crypto.randomUUID(), title: titleOf(text), created: time, updated: time, messages: [] }
          : find(id);
      refuseBusy(conversation);
      conversations.set(conversation.id, conversation);
      conversation.messages.push({ id: crypto.randomUUID(), role: "user", content: text, state: "done" });
      announce(conversation);
      void answer(conversation, {});
      return accepted(conversation);
    },

    "conversations.stop": ({ id }) => {
      running.get(find(id).id)?.abort();
      return {};
    },

    "conversations.regenerate": ({ id }) => {
      const conversation = find(id);
      refuseBusy(conversation);
      const last = conversation.messages.at(-1);
      if (last?.role === "assistant") conversation.messages.pop();
      // A model that by default gives the likeliest answer would give it again, word for word. After an answer that did not
      // come to its end the same one is wanted.
      void answer(conversation, last?.state === "done" ? { temperature: 0.8 } : {});
      return accepted(conversation);
    },

    "conversations.delete": async ({ id }) => {
      const conversation = find(id);
      conversations.delete(conversation.id);
      running.get(conversation.id)?.abort();
      if (current === conversation.id) current = null;
      clearTimeout(dirty.get(conversation.id));
      dirty.delete(conversation.id);
      untold.delete(conversation.id);
      broadcast("conversation", { id: conversation.id, seq: nextSequence(conversation.id), type: "deleted" });
      sequence.delete(conversation.id);
      // First: what is stored again meanwhile would come back.
      unsaved.delete(conversation);
      await store.delete(conversation.id);
      if (unsaved.size === 0) tellProblem(null);
      // There may be room now.
      saveAgain();
      return {};
    },
  };

  return {
    async handle(method, params) {
      const run = Object.hasOwn(methods, method) ? methods[method] : undefined;
      if (!run) throw new TypeError(`There is no method ${method}.`);
      await loaded;
      return run(params ?? {});
    },
  };
}
