// The bridge, in the isolated world of a top-level document: carries frames between the page's shim (a MessagePort) and the
// router in the offscreen document (a runtime.Port). It connects when the page first asks for something; a page that never
// does pays for two small scripts and nothing else.
//
// It is not a guard: the router trusts only what the browser attests about the port. One thing is attested here, because
// only a script in the page's process can read it and page script cannot reach this one: the user's activation.

(() => {
  /** Longest frame the router takes, in characters of its JSON text. */
  const MAX_FRAME = 1 << 20;

  /** @typedef {{id: number, method: string, params?: any}} Frame */

  /** The page's end. @type {MessagePort} */
  let page;
  /** The router's end, while connected or connecting. @type {Promise<chrome.runtime.Port> | undefined} */
  let engine;
  /** Requests that have not ended. @type {Map<number, Frame>} */
  const running = new Map();

  // The shim hands over its port in an event that is dispatched and received before any script of the page runs. Whichever
  // of the two scripts comes second starts the exchange.
  addEventListener("doppler:connect", function connect(event) {
    const [port] = /** @type {MessageEvent} */ (event).ports;
    if (!port) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    removeEventListener("doppler:connect", connect, true);
    page = port;
    page.onmessage = ({ data }) => receive(data);
  }, true);
  dispatchEvent(new Event("doppler:bridge"));

  /** @param {any} frame  from the page; the router checks the rest */
  function receive(frame) {
    const { id, method, params } = frame ?? {};
    if (!Number.isSafeInteger(id) || typeof method !== "string") return;
    if (method === "cancel") {
      if (!running.delete(id)) return;
      return void engine?.then((port) => port.postMessage({ id, method }), () => {});
    }
    /** @type {Frame} */
    const request = { id, method, params: { ...params } };
    if (method === "permissions.request") request.params = { activated: navigator.userActivation.isActive };
    running.set(id, request);
    if (origin === "null") {
      return fail(id, "NotAllowedError", "opaque_origin", "A sandboxed document has no origin to grant anything to.");
    }
    const length = lengthOf(request);
    if (length === undefined) return fail(id, "DataError", "invalid_request", "The request cannot be written as JSON: send less of it.");
    if (length > MAX_FRAME) {
      return fail(id, "QuotaExceededError", "message_too_long", "The request is longer than 1 MiB of JSON: send less text.");
    }
    void send(request);
  }

  /**
   * @param {Frame} request
   * @returns {number | undefined}  characters of its JSON text; undefined: it has none
   */
  function lengthOf(request) {
    try {
      return JSON.stringify(request).length;
    } catch {
      return undefined;
    }
  }

  /** @param {Frame} request */
  async function send(request) {
    try {
      const port = await (engine ??= connect());
      if (running.has(request.id)) port.postMessage(request);
    } catch (thrown) {
      // After an update of the extension this script outlives it, cut off.
      if (chrome.runtime?.id) fail(request.id, "OperationError", "engine_unreachable", `The engine could not be reached (${thrown}): try again.`);
      else fail(request.id, "InvalidStateError", "extension_reloaded", "DOPPLER was updated, restarted or removed: reload this page.");
    }
  }

  /**
   * @param {boolean} [again]  if the connection ends before the router said a word, nothing was begun: connect once more
   * @returns {Promise<chrome.runtime.Port>}
   */
  async function connect(again = true) {
    try {
      // A prerendered page is not shown to anybody yet: nothing of it is heard.
      const { prerendering } = /** @type {Document & {prerendering?: boolean}} */ (document);
      if (prerendering) await new Promise((shown) => document.addEventListener("prerenderingchange", shown, { once: true }));
      const answer = await chrome.runtime.sendMessage({ to: "background", method: "engine.ensure" });
      if (answer?.error) throw new Error(answer.error.message);
      const port = chrome.runtime.connect({ name: "doppler" });
      let heard = false;
      port.onMessage.addListener((frame) => {
        heard = true;
        forward(frame);
      });
      port.onDisconnect.addListener(() => {
        if (heard || !again) return lost("The connection to the engine was closed: try again.");
        engine = connect(false);
        for (const request of running.values()) void send(request);
      });
      return port;
    } catch (thrown) {
      engine = undefined;
      throw thrown;
    }
  }

  /** @param {any} frame  from the router */
  function forward(frame) {
    // An answer to something cancelled here: the page has its AbortError already.
    if ("id" in frame && !running.has(frame.id)) return;
    if (!("chunk" in frame)) running.delete(frame.id);
    page.postMessage(frame);
  }

  /**
   * The connection is gone: what was running ends, the next request connects again.
   * @param {string} message
   */
  function lost(message) {
    engine = undefined;
    for (const id of running.keys()) fail(id, "OperationError", "disconnected", message);
    page.postMessage({ event: "disconnect", detail: {} });
  }

  /**
   * @param {number} id
   * @param {string} name
   * @param {string} code
   * @param {string} message
   */
  function fail(id, name, code, message) {
    if (running.delete(id)) page.postMessage({ id, error: { name, message, code } });
  }

  // Chrome closes the ports of a page that goes into the back/forward cache; it does so here first, in order.
  addEventListener("pagehide", (event) => {
    if (!event.persisted || !engine) return;
    engine.then((port) => port.disconnect(), () => {});
    lost("The page was left while the engine was working: ask again.");
  });
})();
