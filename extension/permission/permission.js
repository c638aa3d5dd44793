// The permission window: shows who asks and takes the user's answer to the service worker. Closing it is "not now".

import { background } from "../shared/background.js";
import { connectEngine } from "../shared/engine-port.js";
import { showOrigin } from "../shared/origin.js";

/** Answers count this long (ms) after the window was shown or came back to the front: a click meant for a page under it does not. */
const SETTLE = 500;

const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const answers = [...document.querySelectorAll("button")];

let settled = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Starts the wait again, or only stops listening while the window is not in front. */
function settle() {
  settled = false;
  clearTimeout(timer);
  for (const answer of answers) answer.setAttribute("aria-disabled", "true");
  if (document.visibilityState !== "visible" || !document.hasFocus()) return;
  timer = setTimeout(() => {
    settled = true;
    for (const answer of answers) answer.setAttribute("aria-disabled", "false");
  }, SETTLE);
}

/** @param {string} text  shown in place of the question */
function say(text) {
  find("question").hidden = true;
  find("message").hidden = false;
  find("message").textContent = text;
}

/** @param {string} scope */
async function decide(scope) {
  settled = false;
  try {
    await background("prompt.decide", { scope });
  } catch {
    // The service worker may have ended under the question; answering twice does no harm.
    await background("prompt.decide", { scope });
  }
  window.close();
}

for (const answer of answers) {
  answer.addEventListener("click", (event) => {
    if (event.isTrusted && settled) decide(answer.id).catch((thrown) => say(`The answer could not be kept: ${thrown.message}`));
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape") window.close();
});
addEventListener("focus", settle);
addEventListener("blur", settle);
document.addEventListener("visibilitychange", settle);

/** Fills in the model's name; it is not worth waiting for. */
async function showModel() {
  const engine = await connectEngine();
  find("model").textContent = (await engine.request("models.chosen")).name;
  engine.close();
}

try {
  const { origin } = await background("prompt.describe");
  showOrigin(find("origin"), origin);
  find("question").focus();
  settle();
  await showModel().catch(() => {});
} catch (thrown) {
  say(/** @type {Error} */ (thrown).message);
}
