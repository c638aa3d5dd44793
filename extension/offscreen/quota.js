// Fair use: what one origin may have running and waiting at a time, over all its tabs.

import { Refusal } from "../shared/errors.js";

/** @typedef {{start: () => void, started: boolean}} Ticket */

export class Quota {
  /** @type {Map<string, Ticket[]>}  tickets by origin, oldest first; the first `running` of them are started */
  #tickets = new Map();

  /** @param {{running: number, queued: number}} limits  per origin */
  constructor(limits) {
    this.limits = limits;
  }

  /**
   * Calls `start` now, or when earlier requests of the origin have left.
   * @param {string} origin
   * @param {() => void} start
   * @returns {() => void}  leaves: to be called once when the request ended or is not wanted any more
   */
  enter(origin, start) {
    const { running, queued } = this.limits;
    const tickets = this.#tickets.get(origin) ?? [];
    if (tickets.length >= running + queued) {
      throw new Refusal("QuotaExceededError", "too_many_requests",
        `This site has ${running} requests running and ${queued} waiting: wait for one to end.`);
    }
    this.#tickets.set(origin, tickets);
    const ticket = { start, started: false };
    tickets.push(ticket);
    this.#startNext(tickets);
    return () => {
      const place = tickets.indexOf(ticket);
      if (place < 0) return;
      tickets.splice(place, 1);
      if (tickets.length === 0) this.#tickets.delete(origin);
      this.#startNext(tickets);
    };
  }

  /** @param {Ticket[]} tickets */
  #startNext(tickets) {
    for (const ticket of tickets.slice(0, this.limits.running)) {
      if (ticket.started) continue;
      ticket.started = true;
      ticket.start();
    }
  }
}
