// The permission window: shows who asks and takes the user's answer to the service worker. Closing it is "not now".

import { background } from "../shared/background.js";
import { connectEngine } from "../shared/engine-port.js";
import { showOrigin } from "../shared/origin.js";
import { Quiet } from "./quiet.js";

const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const buttons = [...document.querySelectorAll("button")];

const quiet = new Quiet();
/** Nothing counts before the question is shown. */
let asked = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Shows whether answers count, now and when that changes. */
function showState() {
  const left = quiet.left(performance.now());
  for (const button of buttons) button.setAttribute("aria-disabled", String(left > 0));
  clearTimeout(timer);
  if (left > 0 && left < Infinity) timer = setTimeout(showState, left);
}

/** Starts the wait, or ends it while the window is not in front. */
function settle() {
  if (asked && document.visibilityState === "visible" && document.hasFocus()) quiet.begin(performance.now());
  else quiet.end();
  showState();
}

/** @param {string} text  shown in place of the question */
function say(text) {
  find("question").hidden = true;
  find("message").hidden = false;
  find("message").textContent = text;
}

/** @param {string} scope */
async function decide(scope) {
  quiet.end();
  showState();
  await background("prompt.decide", { scope });
  window.close();
}

/**
 * Shows the answers, or the question whether the one for ever is meant; each waits as the window does.
 * @param {boolean} confirming
 */
function step(confirming) {
  find("answers").hidden = confirming;
  find("confirmation").hidden = !confirming;
  find("question").focus();
  settle();
}

/** Actions of the buttons. @type {Record<string, () => void | Promise<void>>} */
const actions = {
  once: () => decide("once"),
  session: () => decide("session"),
  always: () => step(true),
  back: () => step(false),
  confirm: () => decide("always"),
  block: () => decide("block"),
};

for (const button of buttons) {
  button.addEventListener("click", async (event) => {
    if (!event.isTrusted || !quiet.accepts(event.timeStamp)) return;
    try {
      await actions[button.id]?.();
    } catch (thrown) {
      say(`The answer could not be kept: ${/** @type {Error} */ (thrown).message}`);
    }
  });
}
for (const type of ["pointerdown", "keydown"]) addEventListener(type, ({ timeStamp }) => (quiet.press(timeStamp), showState()), true);
for (const type of ["pointerup", "pointercancel", "keyup"]) addEventListener(type, ({ timeStamp }) => (quiet.release(timeStamp), showState()), true);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") window.close();
});
addEventListener("focus", settle);
addEventListener("blur", settle);
document.addEventListener("visibilitychange", settle);

/** Says under which name the page sees the model; it is not worth waiting for. */
async function showModel() {
  const engine = await connectEngine();
  const { name, page, local } = await engine.request("models.chosen");
  find("model").textContent = local ? `“${page}”, whichever of yours it is` : `“${page}” (${name})`;
  engine.close();
}

try {
  const { origin } = await background("prompt.describe");
  showOrigin(find("origin"), origin);
  find("question").focus();
  // Drawn first: an answer counts only once the question is visible.
  requestAnimationFrame(() => {
    asked = true;
    settle();
  });
  await showModel().catch(() => {});
} catch (thrown) {
  say(/** @type {Error} */ (thrown).message);
}
