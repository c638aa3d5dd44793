// The bridge, in the isolated world of a top-level document: carries frames between the page's shim (a MessagePort) and the
// router in the offscreen document (a runtime.Port). It connects when the page first asks for something; a page that never
// does pays for two small scripts and nothing else.
//
// A content script has no modules: it matches requests and answers itself, without shared/rpc.js.
//
// It is not a guard: the router trusts only what the browser attests about the port. Two things are attested here, because
// only a script in the page's process can read them and page script cannot reach this one: the user's activation, which is good
// for one question of permission, and where it was; and whether the page is visible.

(() => {
  /** Longest frame the router takes, in characters of its JSON text. */
  const MAX_FRAME = 1 << 20;

  /** Times that a request is sent before it is given up. */
  const TRIES = 3;
  /** Times that a connection is tried. */
  const ATTEMPTS = 5;
  /** Parts of an answer after which the router is told that the page reads. */
  const READ_EVERY = 32;
  /** Between one connection that failed and the next, in ms, and as much more each time. */
  const PAUSE = 100;

  /**
   * @typedef {import("../shared/protocol.js").Request<any>} Frame
   * @typedef {import("../shared/protocol.js").Answer<any> | import("../shared/protocol.js").Told<any>} OutFrame
   * @typedef {{frame: Frame, tries: number, begun: boolean, read: number}} Request
   *   `begun`: a part of the answer has come behind which it cannot go on; `read`: parts of which the router was not told
   */

  /** The page's end. @type {MessagePort} */
  let page;
  /** The router's end, while connected or connecting. @type {Promise<chrome.runtime.Port> | undefined} */
  let engine;
  /** Connections that ended since a word was heard. */
  let failures = 0;
  /** Whether the page knows that the extension is gone. */
  let toldGone = false;
  /** Requests that have not ended, by id, oldest first. @type {Map<number, Request>} */
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

  /** The user's last press: when, and where on the screen. @type {{time: number, pointer?: {x: number, y: number}}} */
  let press = { time: 0 };
  /** When the press was that asked for permission last. */
  let used = 0;
  /** The priority that the router was told last. @type {Frame["priority"]} */
  let told;

  /** @param {Event} event */
  function pressed(event) {
    // Events that the browser derives from a tap, or repeats for a key that stays down, are no further press.
    const { isTrusted, timeStamp: time, repeat, sourceCapabilities } = /** @type {any} */ (event);
    if (!isTrusted || repeat || (event.type === "mousedown" && sourceCapabilities?.firesTouchEvents)) return;
    press = event instanceof MouseEvent ? { time, pointer: { x: event.screenX, y: event.screenY } } : { ...press, time };
  }

  /** With every request: `document.open()` takes listeners away, and one that is there is not added twice. */
  function watch() {
    for (const type of ["pointerdown", "mousedown", "keydown"]) addEventListener(type, pressed, { capture: true, passive: true });
    addEventListener("visibilitychange", visibilityChanged, { capture: true });
  }
  watch();

  /** @returns {Frame["priority"]} */
  function priority() {
    return document.visibilityState === "visible" ? "foreground" : "background";
  }

  /** While requests run, the router is told of changes. */
  function visibilityChanged() {
    if (running.size === 0 || priority() === told) return;
    told = priority();
    engine?.then((port) => port.postMessage({ priority: told })).catch(() => {});
  }

  // The user's press that a request for permission uses up.
  /** @returns {import("../shared/protocol.js").PageMethods["permissions.request"]["params"]} */
  function takePress() {
    const activated = navigator.userActivation.isActive && press.time !== used;
    if (activated) used = press.time;
    return { activated, pointer: press.pointer };
  }

  /** @param {any} frame  from the page; the router checks the rest */
  function receive(frame) {
    const { id, method, params } = frame ?? {};
    if (!Number.isSafeInteger(id) || typeof method !== "string") return;
    watch();
    if (method === "cancel") {
      if (!running.delete(id)) return;
      return void engine?.then((port) => port.postMessage({ id, method }), () => {});
    }
    /** @type {Frame} */
    const checked = { id, method, params: { ...params }, priority: priority() };
    if (method === "permissions.request") checked.params = takePress();
    const request = { frame: checked, tries: 0, begun: false, read: 0 };
    running.set(id, request);
    if (origin === "null") {
      return fail(id, "NotAllowedError", "opaque_origin", "A sandboxed document has no origin to grant anything to.");
    }
    const length = lengthOf(checked);
    if (length === undefined) return fail(id, "DataError", "invalid_request", "The request cannot be written as JSON: send less of it.");
    if (length > MAX_FRAME) {
      return fail(id, "QuotaExceededError", "message_too_long", "The request is longer than 1 MiB of JSON: send less text.");
    }
    void send(request);
  }

  /**
   * @param {Frame} frame
   * @returns {number | undefined}  characters of its JSON text; undefined: it has none
   */
  function lengthOf(frame) {
    try {
      return JSON.stringify(frame).length;
    } catch {
      return undefined;
    }
  }

  /** @param {Request} request */
  async function send(request) {
    try {
      const port = await (engine ??= connect());
      if (running.get(request.frame.id) !== request) return;
      request.tries++;
      request.read = 0;
      request.frame.priority = told = priority();
      port.postMessage(request.frame);
    } catch (thrown) {
      if (chrome.runtime?.id) fail(request.frame.id, "OperationError", "engine_unreachable", `The engine could not be reached (${thrown}): try again.`);
      else gone();
    }
  }

  /** @returns {Promise<chrome.runtime.Port>} */
  async function connect() {
    // A prerendered page is not shown to anybody yet: nothing of it is heard.
    const { prerendering } = /** @type {Document & {prerendering?: boolean}} */ (document);
    if (prerendering) await new Promise((shown) => document.addEventListener("prerenderingchange", shown, { once: true }));
    if (failures > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE * failures));
    try {
      const answer = await chrome.runtime.sendMessage({ to: "background", method: "engine.ensure" });
      if (answer?.error) throw new Error(answer.error.message);
      const port = chrome.runtime.connect({ name: "doppler" });
      let heard = false;
      port.onMessage.addListener((frame) => {
        heard = true;
        failures = 0;
        forward(frame);
      });
      port.onDisconnect.addListener(() => disconnected(heard));
      return port;
    } catch (thrown) {
      failures++;
      if (failures < ATTEMPTS && chrome.runtime?.id) return connect();
      engine = undefined;
      failures = 0;
      throw thrown;
    }
  }

  /** @param {OutFrame} frame  from the router */
  function forward(frame) {
    if ("id" in frame) {
      const request = running.get(frame.id);
      // An answer to something cancelled here: the page has its AbortError already.
      if (!request) return;
      if (!("chunk" in frame)) running.delete(frame.id);
      else if (frame.part) return forwardPart(request, frame.chunk, frame.part);
      // The chunks of a count say how far the model is loaded.
      request.begun ||= request.frame.method !== "tokens.count";
    }
    page.postMessage(frame);
  }

  /**
   * A part of an answer: its text is the page's, its tokens are for the request, if it is sent again.
   * @param {Request} request
   * @param {any} chunk
   * @param {import("../shared/protocol.js").Part} part
   */
  function forwardPart(request, chunk, { model, tokens }) {
    const { frame } = request;
    frame.resume ??= { id: chunk.id, created: chunk.created, model, tokens: [], retell: false };
    for (const token of tokens) frame.resume.tokens.push(token);
    page.postMessage({ id: frame.id, chunk });
    request.read++;
    if (request.read < READ_EVERY) return;
    // It is said in the page's own process: a page that is busy or frozen says nothing.
    const params = { parts: request.read };
    request.read = 0;
    engine?.then((port) => port.postMessage({ id: frame.id, method: "read", params })).catch(() => {});
  }

  /**
   * The connection is gone. What ran is sent again, in its order and before what comes next: answers go on behind what has come of them.
   * @param {boolean} heard  whether it ever said a word
   */
  function disconnected(heard) {
    engine = undefined;
    failures++;
    if (!chrome.runtime?.id) return gone();
    const again = [...running.values()].filter(({ begun, tries }) => !begun && tries < TRIES);
    lost("The connection to the engine was closed: try again.", new Set(again), heard);
    for (const request of again) void send(request);
  }

  /**
   * What was running ends, the next request connects again.
   * @param {string} message
   * @param {Set<Request>} [spared]
   * @param {boolean} [tell]  whether the page hears of it
   */
  function lost(message, spared, tell = true) {
    engine = undefined;
    for (const [id, request] of running) {
      if (!spared?.has(request)) fail(id, "OperationError", "disconnected", message);
    }
    if (tell) page.postMessage({ event: "disconnect", detail: {} });
  }

  /** The extension was updated, reloaded or removed: this script outlives it, cut off for good. The page hears of it once. */
  function gone() {
    const message = "DOPPLER was updated, restarted or removed: reload this page.";
    for (const id of running.keys()) fail(id, "InvalidStateError", "extension_reloaded", message);
    if (!toldGone) page.postMessage({ event: "disconnect", detail: { message } });
    toldGone = true;
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
