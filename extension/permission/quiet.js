// When an answer counts: clicks and keys that were meant for what is under the window must not.

/** An answer counts once the window was in front for this long without a press or a key, in ms. */
export const QUIET = 800;

/** All times in ms since the document began, as events have them. */
export class Quiet {
  /** When the wait began; Infinity: the window is not in front. */
  #since = Infinity;
  /** Whether the last press began when answers counted. */
  #counts = false;

  /**
   * The window came to the front, or asks something else.
   * @param {number} time
   */
  begin(time) {
    this.#since = time;
    this.#counts = false;
  }

  /** The window is not in front. */
  end() {
    this.begin(Infinity);
  }

  /**
   * A pointer or a key went down.
   * @param {number} time
   */
  press(time) {
    this.#counts = this.left(time) <= 0;
    this.#again(time);
  }

  /**
   * A pointer or a key went up.
   * @param {number} time
   */
  release(time) {
    this.#again(time);
  }

  /**
   * How long until answers count, in ms.
   * @param {number} time
   */
  left(time) {
    return this.#since + QUIET - time;
  }

  /**
   * Whether a click is an answer: it and the press that it belongs to came after the wait.
   * @param {number} time
   */
  accepts(time) {
    return this.#counts && this.left(time) <= 0;
  }

  /** A press that comes too early starts the wait again. @param {number} time */
  #again(time) {
    if (!this.#counts && this.#since !== Infinity) this.#since = time;
  }
}
