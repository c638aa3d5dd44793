// Memory of a browser with the extension, while no page is open and the model is loaded.

import { residentBytes } from "../e2e/harness.mjs";

/** @typedef {import("../e2e/harness.mjs").Browser} Browser */
/**
 * @typedef {object} Memory   in MB
 * @property {number} offscreen        JavaScript of the offscreen document
 * @property {number} worker           JavaScript of the engine's worker
 * @property {number} wasm             the worker's module, when it had loaded the model
 * @property {Record<string, number>} processes   resident memory by the kind of process, the worker in a renderer; empty where the system
 *   does not tell it
 */

const MB = 1 << 20;
/** Processes that work for the extension; the browser's others come and go. */
const OURS = new Set(["browser", "renderer", "GPU"]);
/** Growth that is no leak: the part of what was there, and MB more. */
const SLACK = { part: 0.25, mb: 48 };

/** @param {number} bytes */
const inMb = (bytes) => Math.round(bytes / MB * 10) / 10;

/** @param {Browser} browser @returns {Promise<Memory>} */
export async function measure(browser) {
  const own = await browser.openOwn("options/options.html");
  const status = await own.evaluate(async () => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const engine = await connectEngine();
    return engine.request("engine.status").finally(engine.close);
  });
  await own.close();
  /** @type {Record<string, number>} */
  const processes = {};
  const { processInfo } = await browser.cdp.send("SystemInfo.getProcessInfo");
  for (const { type, id } of processInfo.filter(({ type }) => OURS.has(type))) {
    const bytes = await residentBytes(id);
    if (bytes > 0) processes[type] = inMb(bytes + (processes[type] ?? 0) * MB);
  }
  /** @type {{breakdown: {bytes: number, attribution: {scope: string}[]}[]}} */
  const { breakdown } = await browser.inOffscreen("performance.measureUserAgentSpecificMemory()");
  const used = (/** @type {string} */ scope) =>
    inMb(breakdown.filter(({ attribution }) => attribution[0]?.scope === scope).reduce((sum, { bytes }) => sum + bytes, 0));
  return { offscreen: used("Window"), worker: used("DedicatedWorkerGlobalScope"), wasm: inMb(status.load?.wasm_bytes ?? 0), processes };
}

/**
 * @param {Memory} warm
 * @param {Memory} end
 * @returns {string[]}  a sentence for each part that grew
 */
export function problemsOfMemory(warm, end) {
  const parts = (/** @type {Memory} */ { processes, ...rest }) => new Map([...Object.entries(rest), ...Object.entries(processes)]);
  const before = parts(warm);
  return [...parts(end)].filter(([part, mb]) => mb > (before.get(part) ?? 0) * (1 + SLACK.part) + SLACK.mb)
    .map(([part, mb]) => `The memory of ${part} grew from ${before.get(part) ?? 0} to ${mb} MB.`);
}
