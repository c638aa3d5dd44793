// Whether a worker's event loop still runs.

export class Heartbeat {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Questions without an answer. */
  #missed = 0;
  #ask;
  #onSilence;
  #limits;

  /**
   * @param {() => void} ask  the answer is told by `heard`
   * @param {() => void} onSilence
   * @param {{every: number, missed: number}} limits
   */
  constructor(ask, onSilence, limits) {
    this.#ask = ask;
    this.#onSilence = onSilence;
    this.#limits = limits;
  }

  /** Begins to ask, if it does not yet. */
  start() {
    this.#timer ??= setTimeout(() => this.#beat(), this.#limits.every);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#missed = 0;
  }

  /** The worker said something. */
  heard() {
    this.#missed = 0;
  }

  // Counted, not timed: a computer that slept, or a document that did not get its turn, is no silence of the worker.
  #beat() {
    this.#timer = undefined;
    if (this.#missed === this.#limits.missed) return this.#onSilence();
    this.#missed++;
    this.#ask();
    this.start();
  }
}
