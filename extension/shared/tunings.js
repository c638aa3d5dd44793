// The results of tuning for the GPUs of this computer: a text each, in localStorage, where the choice of the model is too. The engine's
// worker, which has no localStorage, makes the texts and checks them whenever it reads one (extension/worker/src/tuning.rs).

import { unknownMethod } from "./errors.js";

/** The beginning of the items' names; the device follows. */
const PREFIX = "tuning ";

const names = () => Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));

/** @type {import("./rpc.js").Handlers<Pick<import("./protocol.js").WorkerMethods, "tuning.read" | "tuning.write" | "tuning.clear">>} */
const answers = {
  "tuning.read": ({ device }) => localStorage.getItem(PREFIX + device),
  "tuning.write": ({ device, text }) => text === null ? localStorage.removeItem(PREFIX + device) : localStorage.setItem(PREFIX + device, text),
  "tuning.clear": () => names().forEach((name) => localStorage.removeItem(name)),
};

/**
 * Answers the engine's worker, in the offscreen document.
 * @param {string} method
 * @param {any} params
 * @returns {Promise<unknown>}
 */
export async function answer(method, params) {
  if (Object.hasOwn(answers, method)) return answers[/** @type {keyof typeof answers} */ (method)](params);
  throw unknownMethod(method);
}

const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** The results, for people. */
export function tuningText() {
  const found = names().flatMap((name) => {
    const tuned = parse(localStorage.getItem(name));
    if (typeof tuned?.since !== "number" || typeof tuned.gain !== "number") return [];
    return `Tuned for ${name.slice(PREFIX.length)} on ${date.format(tuned.since)}: ${(100 * tuned.gain).toFixed(0)} % less time (${tuned.model}).`;
  });
  return found.join(" ") || "The engine runs with its default settings.";
}

/** @param {string | null} text  as it was kept: anything may have come into it */
function parse(text) {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}
