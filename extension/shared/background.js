// How the extension's own pages ask the service worker.

import { Refusal } from "./errors.js";

/**
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<any>}
 */
export async function background(method, params = {}) {
  const answer = await chrome.runtime.sendMessage({ to: "background", method, params });
  if (answer?.error) {
    const { name, code, message, data } = answer.error;
    throw new Refusal(name, code, message, data);
  }
  return answer?.done;
}
