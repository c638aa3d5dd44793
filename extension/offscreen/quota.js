// Fair use: what one origin may have running and waiting at a time, over all its tabs, and for how long it is not heard after a
// request of it stopped the engine.

import { Refusal } from "../shared/errors.js";

/** @typedef {{start: () => void, fail: (thrown: unknown) => void, leave: () => void, started: boolean}} Ticket */

/** The first pause of an origin, and the longest, in ms: each is twice the one before. */
const PAUSE = 10_000;
const LONGEST_PAUSE = 10 * 60_000;
/** After this time without another pause (ms) the next is the first again. */
const FORGIVEN = 60 * 60_000;

export class Quota {
  /** @type {Map<string, Ticket[]>}  tickets by origin, oldest first; the first `running` of them are started */
  #tickets = new Map();
  /** Origins that stopped the engine, `until` in ms since 1970. @type {Map<string, {times: number, until: number}>} */
  #pauses = new Map();

  /** @param {{running: number, queued: number}} limits  per origin */
  constructor(limits) {
    this.limits = limits;
  }

  /**
   * Calls `start` now, or when earlier requests of the origin have left.
   * @param {string} origin
   * @param {() => void} start
   * @param {(thrown: unknown) => void} fail  it could not be started and has left
   * @returns {() => void}  leaves: to be called once when the request ended or is not wanted any more
   */
  enter(origin, start, fail) {
    const pause = (this.#pauses.get(origin)?.until ?? 0) - Date.now();
    if (pause > 0) throw paused(pause);
    const { running, queued } = this.limits;
    const tickets = this.#tickets.get(origin) ?? [];
    if (tickets.length >= running + queued) {
      throw new Refusal("QuotaExceededError", "too_many_requests",
        `This site has ${running} requests running and ${queued} waiting: wait for one to end.`);
    }
    this.#tickets.set(origin, tickets);
    const leave = () => {
      const place = tickets.indexOf(ticket);
      if (place < 0) return;
      tickets.splice(place, 1);
      if (tickets.length === 0) this.#tickets.delete(origin);
      this.#startNext(tickets);
    };
    const ticket = { start, fail, leave, started: false };
    tickets.push(ticket);
    this.#startNext(tickets);
    return leave;
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
    for (const ticket of (this.#tickets.get(origin) ?? []).filter(({ started }) => !started)) {
      ticket.leave();
      ticket.fail(paused(length));
    }
  }

  /** @param {Ticket[]} tickets */
  #startNext(tickets) {
    for (const ticket of tickets.slice(0, this.limits.running)) {
      if (ticket.started) continue;
      ticket.started = true;
      try {
        ticket.start();
      } catch (thrown) {
        ticket.leave();
        ticket.fail(thrown);
      }
    }
  }
}

/** @param {number} length  in ms */
const paused = (length) => new Refusal("OperationError", "site_paused",
  `A request of this site stopped the engine: the site is heard again in ${Math.ceil(length / 1000)} s.`);
