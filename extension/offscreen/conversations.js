/**
 * The popup's conversations. They live in the offscreen document, so an answer goes on while the popup is closed, and in a
 * {@link ConversationStore}, so they outlive the browser.
 *
 * protocol.d.ts has the methods and the events, and extension/protocol/src/conversations.rs says how an answer arrives. What cannot be
 * stored is kept in memory and tried again.
 *
 * @typedef {import("./conversations-store.js").ConversationStore} ConversationStore
 * @typedef {import("../shared/protocol.js").Failure} Failure
 * @typedef {import("../shared/protocol.js").Summary} Summary
 * @typedef {import("../shared/protocol.js").Resume} Resume
 * @typedef {import("../shared/protocol.js").Part} Part
 * @typedef {import("../shared/protocol.js").ConversationEvent} ConversationEvent
 * @typedef {import("../shared/protocol.js").EngineMethods["chat.completions"]} Chat
 *
 * @typedef {import("../shared/protocol.js").Message & {model?: string}} Message   `model`: the id of the model that answered
 *
 * @typedef {object} Asked   an answer under way
 * @property {object} sampling
 * @property {number} tries     how often it was asked for: again after the document ended
 * @property {number} time      when it was asked for, or the last of it came, in milliseconds since 1970
 * @property {Resume} [resume]  what has come of it
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title     the beginning of its first question
 * @property {number} created   milliseconds since 1970
 * @property {number} updated
 * @property {Message[]} messages
 * @property {Asked} [asked]    the last message, while it streams
 *
 * @typedef {object} Dependencies
 * @property {(method: "chat.completions", params: Chat["params"], onChunk: (chunk: Chat["chunk"], part?: Part) => void, signal: AbortSignal, resume?: Resume) => Promise<unknown>} request
 *   asks the engine; rejects with a `Failure`
 * @property {<E extends "conversation" | "storage">(event: E, detail: import("../shared/protocol.js").UiEvents[E]) => void} broadcast
 *   tells every open popup
 * @property {ConversationStore} [store]
 * @property {() => number} [now]
 */

import { indexedDbStore } from "./conversations-store.js";
import { extended } from "./resume.js";
import { separate, Thought } from "./thinking.js";

/** While an answer streams it is stored this often, in milliseconds: a crash loses no more. */
const SAVE_INTERVAL = 800;
/** Popups are told of new text this often, in milliseconds: once a frame. */
const FRAME = 16;
const TITLE_LENGTH = 60;
/** Failed writes are repeated this often, in milliseconds. */
const RETRY_INTERVAL = 20_000;
/** An answer goes on after the end of the document if its last word is younger than this, in milliseconds. */
const FRESH = 5 * 60_000;
/** Times that an answer is asked for: one that ends the document must come to an end. */
const TRIES = 3;

/**
 * @param {string} text
 * @returns {string} the first words of it on one line, at most `TITLE_LENGTH` code points
 */
function titleOf(text) {
  const points = Array.from(text.trim().replace(/\s+/g, " "));
  return points.length <= TITLE_LENGTH ? points.join("") : `${points.slice(0, TITLE_LENGTH - 1).join("").trimEnd()}…`;
}

/**
 * The messages for the engine. A question that got no word of an answer is left out, so that question and answer alternate, as
 * chat templates expect. Thoughts of the model are left out as well.
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
  return { name, message, code: typeof code === "string" ? code : "internal", ...(data !== undefined && { data }) };
}

/**
 * The sentence for the user when conversations cannot be stored.
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
 * @returns {{handle: (method: string, params: any) => Promise<any>, stop: () => void}}
 *   `handle` rejects with a DOMException: NotFoundError, InvalidStateError, TypeError (as an error of that name); `stop` stops every answer
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
  /** Text that popups were not told of yet, by conversation. @type {Map<string, {text: string, thinking: string}>} */
  const untold = new Map();
  /** Conversations whose popups were told of text within this frame. @type {Set<string>} */
  const told = new Set();
  /** The conversation that the popup shows when it opens. @type {string | null} */
  let current = null;

  const loaded = restore();

  /** Reads the store. Answers that were under way when the document ended go on or, if that is long ago, are marked. */
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
    const { asked } = conversation;
    if (asked && asked.tries < TRIES && now() - asked.time < FRESH) {
      void answer(conversation, asked, last);
    } else {
      last.state = "interrupted";
      delete conversation.asked;
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
   * Appends an empty answer and fills it from the engine.
   *
   * @param {Conversation} conversation
   * @param {object} sampling
   */
  function ask(conversation, sampling) {
    /** @type {Message} */
    const message = { id: crypto.randomUUID(), role: "assistant", content: "", state: "streaming" };
    conversation.messages.push(message);
    return answer(conversation, { sampling, tries: 0, time: 0 }, message);
  }

  /**
   * Fills the last message from the engine: on from what has come of it, which is told once more, as what was stored may lag behind.
   * Never rejects: the outcome is in the message.
   *
   * @param {Conversation} conversation
   * @param {Asked} asked
   * @param {Message} message
   */
  async function answer(conversation, asked, message) {
    const controller = new AbortController();
    running.set(conversation.id, controller);
    const messages = turns(conversation.messages.slice(0, -1));
    conversation.updated = now();
    conversation.asked = { ...asked, tries: asked.tries + 1, time: conversation.updated };
    announce(conversation);
    void save(conversation);

    const resume = asked.resume && { ...asked.resume, retell: true };
    // The tokens are those of the model that had begun.
    const model = resume && message.model !== undefined ? { model: message.model } : {};
    const parameters = { messages, stream: true, stream_options: { include_usage: true }, ...asked.sampling, ...model };
    const thought = new Thought();
    let retold = !resume;
    /** @type {(chunk: Chat["chunk"], part?: Part) => void} */
    const onChunk = (chunk, part) => {
      // What was on its way when the user stopped the answer; a text that is told again must not erase the one that stays.
      if (controller.signal.aborted) return;
      if (!retold) {
        retold = true;
        message.content = "";
        // How long it took stays.
        delete message.thinking;
        announce(conversation);
      }
      receive(conversation, message, thought, chunk, part);
    };
    try {
      await request("chat.completions", parameters, onChunk, controller.signal, resume);
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
    delete conversation.asked;
    if (conversations.get(conversation.id) !== conversation) return;
    conversation.updated = now();
    announce(conversation);
    await save(conversation);
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {Thought} thought
   * @param {Chat["chunk"]} chunk
   * @param {Part} [part]  that came with it
   */
  function receive(conversation, message, thought, chunk, part) {
    const { asked } = conversation;
    if (asked && part) Object.assign(asked, { resume: extended(asked.resume, chunk, part), time: now() });
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
    const waiting = untold.get(id) ?? { text: "", thinking: "" };
    untold.set(id, { text: waiting.text + added.content, thinking: waiting.thinking + added.thinking });
    tell(id);
  }

  /** @param {Conversation} conversation */
  function accepted({ id }) {
    current = id;
    return { id };
  }

  /** @type {import("../shared/rpc.js").Handlers<import("../shared/protocol.js").ConversationMethods>} */
  const methods = {
    "conversations.list": () => ({
      problem,
      data: [...conversations.values()].sort((a, b) => b.updated - a.updated).map(summary),
    }),

    "conversations.get": ({ id }) => {
      const which = id ?? current;
      if (which === null) return { conversation: null };
      const conversation = find(which);
      current = conversation.id;
      // The snapshot has it already.
      flush(conversation.id);
      const messages = structuredClone(conversation.messages);
      return { conversation: { id: conversation.id, seq: sequence.get(conversation.id) ?? 0, messages } };
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
      void ask(conversation, {});
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
      void ask(conversation, last?.state === "done" ? { temperature: 0.8 } : {});
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
      if (!Object.hasOwn(methods, method)) throw new TypeError(`There is no method ${method}.`);
      await loaded;
      return methods[/** @type {keyof typeof methods} */ (method)](params ?? {});
    },
    stop() {
      for (const controller of running.values()) controller.abort();
    },
  };
}
