// Errors as they travel on the wire: plain objects whose name is a DOMException name (or TypeError).

/** @typedef {import("./protocol.js").Failure} Failure */

/** An exception that carries a wire error; thrown by handlers, and sent as the answer. */
export class Refusal extends Error {
  /**
   * @param {string} name
   * @param {string} code
   * @param {string} message
   * @param {unknown} [data]
   */
  constructor(name, code, message, data) {
    super(message);
    this.name = name;
    this.code = code;
    this.data = data;
  }
}

/** The page has no grant (or lost it). */
export const notAllowed = () => new Refusal("NotAllowedError", "permission_required",
  "This page may not use DOPPLER: call doppler.permissions.request() from a click and let the user decide.");

/** @param {string} method */
export const unknownMethod = (method) => new Refusal("NotSupportedError", "unknown_method", `There is no method "${method}".`);

/**
 * The engine went away under a running request.
 * @param {string} [why]  for the user, never for pages: a panic's words tell of the engine's insides
 */
export const engineStopped = (why) => new Refusal("OperationError", "engine_stopped",
  `The engine stopped${why === undefined ? "" : ` (${why})`}: ask again, it starts afresh.`);

/** A page's error for a model that does not answer. The reason is for the user only. */
export const modelUnavailable = () => new Refusal("OperationError", "model_unavailable",
  "The model that the user chose cannot answer now: the user finds the reason in DOPPLER's popup.");

/**
 * The wire error of anything thrown.
 * @param {unknown} thrown
 * @returns {Failure}
 */
export function toWire(thrown) {
  if (thrown instanceof Refusal) {
    const { name, message, code, data } = thrown;
    return data === undefined ? { name, message, code } : { name, message, code, data };
  }
  if (isFailure(thrown)) return thrown;
  if (thrown instanceof DOMException) {
    const code = thrown.name.replace(/Error$/, "").replace(/(?!^)(?=[A-Z])/g, "_").toLowerCase();
    return { name: thrown.name, message: thrown.message, code };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { name: "UnknownError", message, code: "internal" };
}

/**
 * The exception of an error from the wire.
 * @param {Failure} error
 */
export const fromWire = ({ name, code, message, data }) => new Refusal(name, code, message, data);

/**
 * @param {unknown} value
 * @returns {value is Failure}
 */
function isFailure(value) {
  const error = /** @type {any} */ (value);
  return typeof error === "object" && error !== null && !(error instanceof Error)
    && typeof error.name === "string" && typeof error.message === "string" && typeof error.code === "string";
}
