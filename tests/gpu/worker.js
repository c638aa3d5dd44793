// The engine's worker outside of the extension, on whatever GPU the browser has: what the pages of this folder share.

const worker = new Worker("/extension/offscreen/worker.js", { type: "module" });
/** @type {Map<number, {resolve: (answer: {done: any, chunks: any[]}) => void, reject: (error: Error) => void, chunks: any[]}>} */
const waiting = new Map();
let next = 1;

worker.onmessage = ({ data }) => {
  if (data.event === "fatal") throw new Error(data.detail.message);
  // Nothing is kept here: neither models nor tunings.
  if (data.ask !== undefined) return worker.postMessage({ answer: data.ask, done: null });
  const request = waiting.get(data.id);
  if (!request) return;
  if (data.chunk) request.chunks.push(data.chunk);
  else if (data.error) request.reject(new Error(data.error.message));
  else request.resolve({ done: data.done, chunks: request.chunks });
};

/**
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<{done: any, chunks: any[]}>}
 */
export const ask = (method, params = {}) => new Promise((resolve, reject) => {
  const id = next++;
  waiting.set(id, { resolve, reject, chunks: [] });
  worker.postMessage({ id, method, params });
});
