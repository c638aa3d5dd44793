// The native host: a program on this machine that serves the user's model files. Only the service worker may start it.
// It starts with the first request, and its port is closed when no model is open and no request came for a while; the port tells when it
// dies. Address and token of its HTTP server are in the answer to `models.open`, and nowhere else.

import { Refusal } from "../shared/errors.js";
import { HOST_NAME, PROTOCOL } from "../shared/protocol.js";
import { Calls } from "../shared/rpc.js";

/** A start takes no longer, in ms. */
const START_LIMIT = 15_000;
/** With nothing open, the host is stopped after this many ms without a request. */
const IDLE = 20_000;

/**
 * @typedef {import("../shared/protocol.js").NativeMethods} Methods
 * @typedef {import("../shared/protocol.js").HostCode} HostCode
 * @typedef {typeof import("../shared/protocol.js").FORWARDED[number]} Forwarded
 * @typedef {Methods["hello"]["done"]} Greeting
 * @typedef {{port: chrome.runtime.Port, calls: Calls<Methods>, hello: Promise<Greeting>, open: Set<string>, idle?: any}} Connection
 *   `open`: ids of models
 */

/** DOMException names of what the host refuses, by its codes. @type {Partial<Record<HostCode, string>>} */
const NAMES = {
  not_found: "NotFoundError", changed: "InvalidStateError", not_a_model: "DataError", unreadable: "NotReadableError",
};

/** @param {import("../shared/protocol.js").HostFailure} failure */
const refused = ({ code, message, data }) =>
  new Refusal(NAMES[code] ?? "OperationError", code === "protocol" ? "host_version" : code, message, data);

/**
 * An error for the reason that Chrome states for a closed port.
 * @param {string | undefined} message  of `runtime.lastError`
 */
function closed(message = "") {
  if (/not found/i.test(message)) {
    return new Refusal("NotFoundError", "host_missing",
      "The models of your folders need the native host: run native-host/install.sh (Windows: install.ps1) of DOPPLER's source, then try again.");
  }
  if (/forbidden/i.test(message)) {
    return new Refusal("NotAllowedError", "host_forbidden",
      "The native host does not know this extension: run `doppler-host install` again, then try again.");
  }
  if (/failed to start/i.test(message)) {
    return new Refusal("OperationError", "host_broken", "The native host could not be started: `doppler-host doctor` tells why.");
  }
  return new Refusal("OperationError", "host_exited", "The native host stopped: try again, and it starts again.");
}

export class NativeHost {
  /** @type {Connection | undefined} */
  #connection;
  #connect;
  #lastError;

  /**
   * @param {() => chrome.runtime.Port} [connect]
   * @param {() => string | undefined} [lastError]  why a port closed
   */
  constructor(connect = () => chrome.runtime.connectNative(HOST_NAME), lastError = () => chrome.runtime.lastError?.message) {
    this.#connect = connect;
    this.#lastError = lastError;
  }

  /**
   * Forwards a message. For the router only: the answer to `models.open` has also the address and the token of the model's bytes.
   * @param {Forwarded} method
   * @param {any} params
   * @returns {Promise<unknown>}
   */
  async forward(method, params) {
    switch (method) {
      case "models.open": return this.#open(params.id);
      case "models.close": return this.#close(params.id);
    }
    return this.#call(method, params);
  }

  /** @param {string} id */
  async #open(id) {
    const connection = this.#connected();
    const { base, token } = await connection.hello;
    // Before it is open: a close that comes meanwhile must count.
    connection.open.add(id);
    return { ...await this.#ask(connection, "models.open", { id }), base, token };
  }

  /** Closes a model, if there is a host that could have it open. @param {string} id */
  async #close(id) {
    if (!this.#connection?.open.delete(id)) return;
    await this.#call("models.close", { id });
  }

  /** Closes every model: the document that had them open is gone. */
  closeAll() {
    for (const id of this.#connection?.open ?? []) this.#close(id).catch(() => {});
  }

  /**
   * @template {keyof Methods} M
   * @param {M} method
   * @param {Methods[M]["params"]} params
   */
  async #call(method, params) {
    const connection = this.#connected();
    await connection.hello;
    return this.#ask(connection, method, params);
  }

  /** @returns {Connection} */
  #connected() {
    return this.#connection ??= this.#start();
  }

  /** @returns {Connection} */
  #start() {
    const port = this.#connect();
    /** @type {Connection} */
    const connection = { port, calls: new Calls((frame) => port.postMessage(frame), refused), open: new Set(), hello: Promise.reject() };
    connection.hello.catch(() => {});
    port.onMessage.addListener((frame) => this.#receive(connection, frame));
    port.onDisconnect.addListener(() => this.#end(connection, closed(this.#lastError())));
    const limit = setTimeout(() => {
      this.#end(connection, closed());
      port.disconnect();
    }, START_LIMIT);
    const hello = this.#ask(connection, "hello", { protocol: PROTOCOL, extension: chrome.runtime.getManifest().version });
    connection.hello = hello.finally(() => clearTimeout(limit)).catch((error) => {
      // Nothing else can be said to a host that does not greet.
      this.#end(connection, error);
      port.disconnect();
      throw error;
    });
    connection.hello.catch(() => {});
    return connection;
  }

  /**
   * @template {keyof Methods} M
   * @param {Connection} connection
   * @param {M} method
   * @param {Methods[M]["params"]} params
   * @returns {Promise<Methods[M]["done"]>}
   */
  async #ask(connection, method, params) {
    if (method !== "hello" && connection !== this.#connection) throw closed();
    clearTimeout(connection.idle);
    return connection.calls.call(method, params);
  }

  /**
   * @param {Connection} connection
   * @param {any} frame
   */
  #receive(connection, frame) {
    if (!connection.calls.receive(frame)) return;
    clearTimeout(connection.idle);
    if (connection.calls.size > 0) return;
    connection.idle = setTimeout(() => {
      if (connection.open.size > 0 || connection.calls.size > 0) return;
      this.#end(connection, closed());
      connection.port.disconnect();
    }, IDLE);
  }

  /**
   * @param {Connection} connection
   * @param {Refusal} error
   */
  #end(connection, error) {
    if (this.#connection === connection) this.#connection = undefined;
    clearTimeout(connection.idle);
    connection.calls.end(error);
  }
}
