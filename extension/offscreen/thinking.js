/**
 * Tells what a model thinks from what it answers, while both arrive in pieces.
 *
 * A thought is at the beginning of an answer, between the marks of the model's family. Some templates write the opening mark
 * themselves: then all before a closing mark on a line of its own is a thought.
 *
 * @typedef {import("./conversations.js").Message} Message
 * @typedef {{thinking: string, content: string}} Added  what a piece adds to the thought and to the answer
 */

/** Marks of the beginnings and ends of thoughts. @type {[open: string, close: string][]} */
const MARKS = [
  ["<think>", "</think>"],
  ["<thinking>", "</thinking>"],
  ["<seed:think>", "</seed:think>"],
  ["[THINK]", "[/THINK]"],
  ["◁think▷", "◁/think▷"],
  ["<|START_THINKING|>", "<|END_THINKING|>"],
];

/** The mark of an end that may come without one of the beginning. */
const LONE_MARK = "</think>";
const LONE = /^\s*<\/think>[^\S\n]*(?:\n|$)/m;

/** How much of the end of `text` may be the beginning of `mark`. @param {string} text @param {string} mark */
function begun(text, mark) {
  for (let length = Math.min(text.length, mark.length - 1); length > 0; length -= 1) {
    if (mark.startsWith(text.slice(-length))) return length;
  }
  return 0;
}

/** One text. */
class Thinking {
  /** Text of which it is not known whether it is a thought. */
  #pending = "";
  /** The closing mark that is waited for; null: the answer has begun; undefined: neither is known. @type {string | null | undefined} */
  #close;

  /** Whether a thought is being thought. */
  get open() {
    return typeof this.#close === "string";
  }

  /**
   * @param {string} text
   * @returns {Added}
   */
  push(text) {
    this.#pending += text;
    /** @type {Added} */
    const added = { thinking: "", content: "" };
    if (this.#close === undefined) this.#begin();
    if (typeof this.#close === "string") this.#think(added, this.#close);
    if (this.#close === null) {
      added.content = this.#pending;
      this.#pending = "";
    }
    return added;
  }

  /** The rest, when no more comes. @returns {Added} */
  end() {
    const pending = this.#pending;
    this.#pending = "";
    return this.open ? { thinking: pending, content: "" } : { thinking: "", content: pending };
  }

  #begin() {
    const start = this.#pending.trimStart();
    const [open, close] = MARKS.find(([open]) => start.startsWith(open)) ?? [];
    if (open !== undefined && close !== undefined) {
      this.#pending = start.slice(open.length);
      this.#close = close;
    } else if (!MARKS.some(([open]) => open.startsWith(start))) {
      this.#close = null;
    }
  }

  /** @param {Added} added @param {string} close */
  #think(added, close) {
    const end = this.#pending.indexOf(close);
    // White space before the closing mark belongs to neither.
    const known = end < 0 ? this.#pending.slice(0, this.#pending.length - begun(this.#pending, close)).trimEnd() : this.#pending.slice(0, end).trimEnd();
    added.thinking += known;
    if (end < 0) {
      this.#pending = this.#pending.slice(known.length);
    } else {
      this.#pending = this.#pending.slice(end + close.length);
      this.#close = null;
    }
  }
}

/**
 * The thought and the answer in a whole text.
 * @param {string} text
 * @returns {Added}
 */
function split(text) {
  const lone = LONE.exec(text);
  // After the mark of a beginning it is the end of that: such a text thinks from its start, or is about marks.
  if (lone && !MARKS.some(([open]) => text.slice(0, lone.index).includes(open))) {
    return { thinking: text.slice(0, lone.index).trim(), content: text.slice(lone.index + lone[0].length).trimStart() };
  }
  const thinking = new Thinking();
  const pushed = thinking.push(text);
  const ended = thinking.end();
  const thought = (pushed.thinking + ended.thinking).trim();
  const content = pushed.content + ended.content;
  return { thinking: thought, content: thought ? content.trimStart() : content };
}

/**
 * Takes the thought out of an answer that has it in its content.
 * @param {Message} message
 */
export function separate(message) {
  if (message.role !== "assistant" || message.thinking) return;
  const { thinking, content } = split(message.content);
  if (thinking) Object.assign(message, { thinking, content });
}

/** The model's thought before its answer, and how long it took. */
export class Thought {
  #thinking = new Thinking();
  /** @type {number | undefined} */
  #begun;

  /**
   * Adds text to a message.
   * @param {Message} message
   * @param {string} text
   * @returns {{thinking: string, content: string} | undefined}  what was added to which part; undefined: the thought has ended
   */
  add(message, text) {
    this.#begun ??= performance.now();
    const was = this.#thinking.open;
    const added = this.#thinking.push(text);
    // White space around a thought belongs to neither.
    if (!message.thinking) added.thinking = added.thinking.trimStart();
    if (added.thinking) message.thinking = (message.thinking ?? "") + added.thinking;
    if (message.thinking && message.content === "") added.content = added.content.trimStart();
    message.content += added.content;
    // The mark of a thought's end that none began.
    if (!message.thinking && message.content.slice(-text.length - LONE_MARK.length).includes(LONE_MARK)) separate(message);
    const ended = message.thinking !== undefined && message.thinking_ms === undefined && !this.#thinking.open;
    if (ended) message.thinking_ms = Math.round(performance.now() - this.#begun);
    return ended || (was && !this.#thinking.open) ? undefined : added;
  }

  /**
   * No more text comes.
   * @param {Message} message
   */
  end(message) {
    const { thinking, content } = this.#thinking.end();
    if (thinking) message.thinking = (message.thinking ?? "") + thinking;
    message.content += content;
    if (message.thinking !== undefined) message.thinking_ms ??= Math.round(performance.now() - (this.#begun ?? performance.now()));
  }
}
