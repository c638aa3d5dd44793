// The engine's worker: starts the wasm module and passes frames between it and the offscreen document.

import init, { EngineWorker } from "../pkg/worker/doppler_worker.js";

// The id of the request that the module works for at this moment, 0 for none, or -1 for none at its end. In shared memory, which the
// manifest's policies allow: a worker that hangs can post nothing, and a message before each step of each request would cost more than a
// store.
const working = new Int32Array(new SharedArrayBuffer(4));

/** @param {unknown} reason */
function fatal(reason) {
  // After a trap outside of all requests the module's other tasks still run: none of them is to blame.
  Atomics.compareExchange(working, 0, 0, -1);
  const message = reason instanceof Error ? reason.message : String(reason);
  postMessage({ event: "fatal", detail: { message } });
}

// A panic in the module traps: it cannot go on, and the offscreen document starts another worker.
addEventListener("unhandledrejection", (event) => fatal(event.reason));
// The module's tasks run in microtasks: what they throw is no rejection.
addEventListener("error", (event) => {
  event.preventDefault();
  fatal(event.error ?? event.message);
});

const [models, reader] = [new URL("../models", import.meta.url), new URL("reader.js", import.meta.url)];
const engine = init().then(() => {
  postMessage({ working });
  return new EngineWorker(postMessage.bind(globalThis), models.href, reader.href, working);
});
engine.catch(fatal);

addEventListener("message", async ({ data }) => {
  // The router wants to know whether this event loop runs, whatever the module is waiting for.
  if (data.ping) return postMessage({ pong: true });
  (await engine).handle(data);
});
