// The extension's own pages' way to the engine: requests over a runtime.Port to the offscreen document.

import { background } from "./background.js";
import { engineStopped, Refusal } from "./errors.js";

/**
 * @typedef {{
 *   request: (method: string, params?: object, options?: {onChunk?: (chunk: any) => void, signal?: AbortSignal}) => Promise<any>,
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
  /** @type {Map<number, {resolve: (done: any) => void, reject: (error: Error) => void, onChunk?: (chunk: any) => void}>} */
  const running = new Map();
  let next = 1;

  port.onMessage.addListener((frame) => {
    if (frame.event) return onEvent?.(frame.event, frame.detail);
    const request = running.get(frame.id);
    if (!request) return;
    if ("chunk" in frame) return request.onChunk?.(frame.chunk);
    running.delete(frame.id);
    if (frame.error) {
      const { name, code, message, data } = frame.error;
      request.reject(new Refusal(name, code, message, data));
    } else {
      request.resolve(frame.done);
    }
  });
  port.onDisconnect.addListener(() => {
    for (const { reject } of running.values()) reject(engineStopped("its document was closed"));
    running.clear();
    onClose?.();
  });

  return {
    request: (method, params = {}, { onChunk, signal } = {}) => new Promise((resolve, reject) => {
      const id = next++;
      running.set(id, { resolve, reject, onChunk });
      port.postMessage({ id, method, params });
      signal?.addEventListener("abort", () => {
        if (running.has(id)) port.postMessage({ id, method: "cancel" });
      }, { once: true });
    }),
    close: () => port.disconnect(),
  };
}
