// Tuning, on the bench page: the engine tries its settings, the page shows how far it is and what it brought.

import { connectEngine } from "../shared/engine-port.js";
import { tuningText } from "../shared/tunings.js";
import { changesText, tunedText } from "./report.js";

/** @typedef {import("../shared/engine-port.js").Methods} Methods */
/** @typedef {import("../shared/protocol.js").Settings} Settings */

const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (find("tune"));
const start = /** @type {HTMLButtonElement} */ (form.querySelector("button.main"));
const stop = /** @type {HTMLButtonElement} */ (find("stop"));
const reset = /** @type {HTMLButtonElement} */ (find("reset"));
const progress = /** @type {HTMLProgressElement} */ (find("tune-progress"));

const say = (/** @type {string} */ text) => { find("tune-status").textContent = text; };
const showKept = () => { find("tuning").textContent = tuningText(); };

/**
 * Asks the engine for something that may change what is kept.
 * @template {"engine.tune" | "engine.untune"} K
 * @param {K} method
 * @param {Methods[K]["params"]} params
 * @param {(done: Methods[K]["done"]) => string} result  what to say then
 * @param {{onChunk?: (chunk: Methods[K]["chunk"]) => void, signal?: AbortSignal}} [options]
 */
async function ask(method, params, result, options = {}) {
  start.disabled = reset.disabled = true;
  try {
    const engine = await connectEngine();
    try {
      options.signal?.throwIfAborted();
      say(result(await engine.request(method, params, options)));
    } finally {
      engine.close();
    }
  } catch (error) {
    say(options.signal?.aborted ? "Stopped: nothing has changed." : error instanceof Error ? error.message : String(error));
  } finally {
    const focused = document.activeElement === stop;
    start.disabled = reset.disabled = false;
    stop.hidden = progress.hidden = true;
    // The pressed button is gone: keyboard and screen reader go on beside it.
    if (focused) start.focus();
    showKept();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const number = (/** @type {string} */ name) => Number(fields.get(name));
  const params = { prompts: [number("prompt")], tokens: number("tokens"), runs: number("runs") };
  const abort = new AbortController();
  stop.onclick = () => abort.abort();
  stop.hidden = false;
  say("Loading. What is asked meanwhile disturbs it.");
  /** The settings that are measured first. @type {Settings | undefined} */
  let defaults;
  void ask("engine.tune", params, tunedText, {
    onChunk({ model, trial, trials, tuning }) {
      defaults ??= tuning;
      progress.hidden = false;
      [progress.max, progress.value] = [trials, trial - 1];
      say(`${model}, setting ${trial} of ${trials}: ${changesText(defaults, tuning)}.`);
    },
    signal: abort.signal,
  });
});

reset.addEventListener("click", () => void ask("engine.untune", {}, () => "The engine runs with its default settings."));

addEventListener("storage", showKept);
showKept();
