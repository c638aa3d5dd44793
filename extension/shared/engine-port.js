// The extension's own pages' way to the engine: requests over a runtime.Port to the offscreen document.

import { background } from "./background.js";
import { engineStopped } from "./errors.js";
import { Calls } from "./rpc.js";

/**
 * @typedef {import("../offscreen/ui-connection.js").Methods} Methods
 * @typedef {{
 *   request: <K extends keyof Methods>(method: K, params?: Methods[K]["params"],
 *     options?: {onChunk?: (chunk: Methods[K]["chunk"]) => void, signal?: AbortSignal}) => Promise<Methods[K]["done"]>,
 *   close: () => void,
 * }} EnginePort
 */

/**
 * Connects, creating the offscreen document if it is not there.
 * @param {{onEvent?: (event: string, detail: any) => void, onClose?: () => void}} [options]
 *   `onClose`: the offscreen document went away; running requests have been rejected, connect again to go on
 * @returns {Promise<EnginePort>}
 */
export async function connectEngine({ onEvent, onClose } = {}) {
  await background("engine.ensure");
  const port = chrome.runtime.connect({ name: "doppler-ui" });
  /** @type {Calls<Methods>} */
  const calls = new Calls((frame) => port.postMessage(frame));
  port.onMessage.addListener((frame) => {
    if (frame.event) onEvent?.(frame.event, frame.detail);
    else calls.receive(frame);
  });
  port.onDisconnect.addListener(() => {
    calls.end(engineStopped("its document was closed"));
    onClose?.();
  });

  return {
    request: (method, params = /** @type {any} */ ({}), options = {}) => calls.call(method, params, options),
    close: () => port.disconnect(),
  };
}
