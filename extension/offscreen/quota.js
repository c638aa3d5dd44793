// Fair use: what one origin may have running and waiting at a time, over all its tabs, and for how long it is not heard after a
// request of it stopped the engine. What waits starts in the order of its priority.

import { Refusal } from "../shared/errors.js";

/**
 * @typedef {import("../shared/protocol.js").Priority} Priority
 * @typedef {{origin: string, priority: Priority, start: () => void, fail: (thrown: unknown) => void, started: boolean}} Ticket
 * @typedef {object} Place
 * @property {() => void} leave  to be called once when the request ended or is not wanted any more
 * @property {(priority: Priority) => void} setPriority
 */

/** The first pause of an origin, and the longest, in ms: each is twice the one before. */
const PAUSE = 10_000;
const LONGEST_PAUSE = 10 * 60_000;
/** After this time without another pause (ms) the next is the first again. */
const FORGIVEN = 60 * 60_000;

export class Quota {
  /** In the order of arrival. @type {Set<Ticket>} */
  #tickets = new Set();
  /** Origins that stopped the engine, `until` in ms since 1970. @type {Map<string, {times: number, until: number}>} */
  #pauses = new Map();

  /** @param {{running: number, queued: number, background: number}} limits  per origin; `background`: running, over all origins */
  constructor(limits) {
    this.limits = limits;
  }

  /**
   * Calls `start` now, or when it is the request's turn.
   * @param {string} origin
   * @param {Priority} priority
   * @param {() => void} start
   * @param {(thrown: unknown) => void} fail  it could not be started and has left
   * @returns {Place}
   */
  enter(origin, priority, start, fail) {
    const pause = (this.#pauses.get(origin)?.until ?? 0) - Date.now();
    if (pause > 0) throw paused(pause);
    const open = this.#of(origin).length;
    if (open >= this.limits.running + this.limits.queued) {
      throw new Refusal("QuotaExceededError", "too_many_requests", `This site has ${open} requests open: wait for one to end.`);
    }
    /** @type {Ticket} */
    const ticket = { origin, priority, start, fail, started: false };
    this.#tickets.add(ticket);
    this.#startNext();
    return {
      leave: () => this.#leave(ticket),
      setPriority: (priority) => {
        ticket.priority = priority;
        this.#startNext();
      },
    };
  }

  /**
   * A request of this origin stopped the engine: its others that wait are refused, and so is what it asks for a while.
   * @param {string} origin
   */
  pause(origin) {
    const now = Date.now();
    const before = this.#pauses.get(origin);
    const times = before && now < before.until + FORGIVEN ? before.times + 1 : 1;
    const length = Math.min(PAUSE * 2 ** (times - 1), LONGEST_PAUSE);
    this.#pauses.set(origin, { times, until: now + length });
    for (const ticket of this.#of(origin).filter(({ started }) => !started)) {
      this.#leave(ticket);
      ticket.fail(paused(length));
    }
  }

  /** @param {string} origin */
  #of(origin) {
    return [...this.#tickets].filter((ticket) => ticket.origin === origin);
  }

  /** @param {Ticket} ticket */
  #leave(ticket) {
    if (this.#tickets.delete(ticket)) this.#startNext();
  }

  #startNext() {
    for (let ticket = this.#next(); ticket; ticket = this.#next()) {
      ticket.started = true;
      try {
        ticket.start();
      } catch (thrown) {
        this.#leave(ticket);
        ticket.fail(thrown);
      }
    }
  }

  /**
   * The request that starts now: of visible tabs first, then of the origin with the fewest, then the oldest.
   * @returns {Ticket | undefined}
   */
  #next() {
    /** @type {Map<string, number>} */
    const running = new Map();
    let hidden = 0;
    for (const { origin, priority, started } of this.#tickets) {
      if (!started) continue;
      running.set(origin, (running.get(origin) ?? 0) + 1);
      if (priority === "background") hidden++;
    }
    const runningOf = (/** @type {Ticket} */ { origin }) => running.get(origin) ?? 0;
    const places = { foreground: Infinity, background: this.limits.background - hidden };
    const startable = [...this.#tickets].filter((ticket) =>
      !ticket.started && places[ticket.priority] > 0 && runningOf(ticket) < this.limits.running);
    const rank = (/** @type {Ticket} */ ticket) => (ticket.priority === "background" ? this.limits.running : 0) + runningOf(ticket);
    return startable.reduce((/** @type {Ticket | undefined} */ best, ticket) => best && rank(best) <= rank(ticket) ? best : ticket, undefined);
  }
}

/** @param {number} length  in ms */
const paused = (length) => new Refusal("OperationError", "site_paused",
  `A request of this site stopped the engine: the site is heard again in ${Math.ceil(length / 1000)} s.`);
