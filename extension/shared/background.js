// How the extension's own pages ask the service worker.

import { fromWire } from "./errors.js";

/** Times that the service worker is asked before its death is an error: it may end at any moment, and every question twice does no harm. */
const ATTEMPTS = 3;

/**
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<any>}
 */
export async function background(method, params = {}) {
  const answer = await ask({ to: "background", method, params });
  if (answer?.error) throw fromWire(answer.error);
  return answer?.done;
}

/** @param {object} message */
async function ask(message) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await chrome.runtime.sendMessage(message);
    } catch (thrown) {
      // Without an id the extension itself is gone.
      if (attempt === ATTEMPTS || !chrome.runtime?.id) throw thrown;
    }
  }
}
