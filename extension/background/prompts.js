// The permission windows. Everything about an open prompt is in storage.session, nothing in memory: the service worker
// may die while the user thinks, and whichever instance is alive when the answer comes can act on it.
//
//   prompt:<id>          {origin, documents, tab, windowId, opened}     id: random, names the prompt in its window's URL
//   dismissed:<origin>   {count, until}                            closed without an answer, in a row

import * as grants from "./grants.js";
import { places } from "./placement.js";
import { Refusal } from "../shared/errors.js";

/**
 * @typedef {{origin: string, documents: string[], tab: number, windowId: number, opened: number}} Prompt
 * @typedef {{tab: number, activated: boolean, pointer?: import("./placement.js").Point}} Press
 *   `tab` attested by the browser, the others by the page's process: whether the user has just pressed something there, for
 *   which no prompt was opened yet, and where
 * @typedef {(change: {origin: string, asked?: boolean}) => Promise<void>} Announce
 *   tells the router that an origin's grants may have changed; `asked`: a prompt of this origin is over
 */

const PAGE = "extension/permission/permission.html";
const SIZE = { width: 480, height: 640 };
/** After this many dismissals in a row ... */
const DISMISSALS = 2;
/** ... requests are denied unasked for this long (ms). */
const QUIET = 10 * 60_000;
/** Prompts of different origins open at the same time. */
const OPEN_AT_ONCE = 3;

const { session } = chrome.storage;

/** Changes of the prompt table happen one after the other. @type {Promise<unknown>} */
let last = Promise.resolve();

/**
 * @template T
 * @param {() => Promise<T>} change
 * @returns {Promise<T>}
 */
function serially(change) {
  const result = last.then(change);
  last = result.catch(() => {});
  return result;
}

/** @returns {Promise<[string, Prompt][]>}  open prompts by id */
const open = async () => Object.entries(await session.get(null))
  .flatMap(([key, value]) => key.startsWith("prompt:") ? [[key.slice("prompt:".length), /** @type {Prompt} */ (value)]] : []);

/**
 * Asks the user about an origin, or joins the prompt that is already open for it.
 * @param {grants.Requester} requester
 * @param {Press} press
 * @returns {Promise<grants.Grant | "asking">}  "asking": the router will be told when the prompt is over
 */
export const request = (requester, { tab, activated, pointer }) => serially(async () => {
  const { origin, documentId } = requester;
  const grant = await grants.query(requester);
  if (grant.state !== "prompt") return grant;
  if (await isQuiet(origin)) return /** @type {const} */ ({ state: "denied" });
  const prompts = await open();
  const [id, prompt] = prompts.find(([, other]) => other.origin === origin) ?? [];
  const shown = prompt && await isShown(prompt) ? prompt : undefined;
  // Asked again without another press: what is open answers that too, and is not pushed to the front. What was just closed is over.
  if (!activated && !shown?.documents.includes(documentId)) {
    throw new Refusal("NotAllowedError", "user_activation_required",
      "Call doppler.permissions.request() from a click or a key press, once for each.");
  }
  if (id && shown) {
    const documents = [...new Set([...shown.documents, documentId])];
    await session.set({ [`prompt:${id}`]: { ...shown, documents } });
    if (activated) await chrome.windows.update(shown.windowId, { focused: true });
    return "asking";
  }
  if (id) await session.remove(`prompt:${id}`);
  const others = prompts.filter(([other]) => other !== id);
  if (others.length >= OPEN_AT_ONCE || others.some(([, other]) => other.tab === tab)) {
    throw new Refusal("NotAllowedError", "too_many_prompts",
      "Other pages are waiting for the user's permission: answer or close their windows first.");
  }
  await show({ origin, documents: [documentId], tab, windowId: chrome.windows.WINDOW_ID_NONE, opened: Date.now() }, pointer);
  return "asking";
});

/**
 * @param {Prompt} prompt
 * @param {import("./placement.js").Point} [pointer]
 */
async function show(prompt, pointer) {
  const id = crypto.randomUUID();
  // Stored first: the window asks for its prompt as soon as it loads.
  await session.set({ [`prompt:${id}`]: prompt });
  try {
    const window = await openWindow(`${PAGE}?${id}`, pointer);
    await session.set({ [`prompt:${id}`]: { ...prompt, windowId: window?.id ?? chrome.windows.WINDOW_ID_NONE } });
  } catch (thrown) {
    await session.remove(`prompt:${id}`);
    throw new Refusal("OperationError", "no_prompt", `The permission window could not be opened (${thrown}): try again.`);
  }
}

/**
 * Opens a window at the best place that the screen has.
 * @param {string} url
 * @param {import("./placement.js").Point} [pointer]
 */
async function openWindow(url, pointer) {
  const { left, top, width, height } = await chrome.windows.getLastFocused().catch(() => /** @type {Partial<chrome.windows.Window>} */ ({}));
  const around = width && height ? { left: left ?? 0, top: top ?? 0, width, height } : undefined;
  for (const place of around ? places(SIZE, around, pointer) : []) {
    // The browser refuses places that are not on the screen.
    const window = await chrome.windows.create({ type: "popup", focused: true, url, ...SIZE, ...place }).catch(() => undefined);
    if (window) return window;
  }
  return chrome.windows.create({ type: "popup", focused: true, url, ...SIZE });
}

/** @param {Prompt} prompt  is its window still there? */
const isShown = (prompt) => chrome.windows.get(prompt.windowId).then(() => true, () => false);

/**
 * The content of a prompt window.
 * @param {string} id
 * @returns {Promise<{origin: string}>}
 */
export async function describe(id) {
  const prompt = (await open()).find(([other]) => other === id)?.[1];
  if (!prompt) throw new Refusal("NotFoundError", "no_such_prompt", "This question is no longer open: close the window.");
  return { origin: prompt.origin };
}

/**
 * The user's answer. Asking twice about the same prompt is harmless: the second answer finds it closed.
 * @param {string} id
 * @param {grants.Scope} scope
 * @param {Announce} announce
 */
export const decide = (id, scope, announce) => serially(async () => {
  const { [`prompt:${id}`]: value } = await session.get(`prompt:${id}`);
  const prompt = /** @type {Prompt | undefined} */ (value);
  if (!prompt) return;
  await grants.remember(prompt.origin, scope, prompt.documents);
  await session.remove([`prompt:${id}`, `dismissed:${prompt.origin}`]);
  await announce({ origin: prompt.origin, asked: true });
});

/**
 * A window was closed: if it showed a prompt, that is "not now", for this once.
 * @param {number} windowId
 * @param {Announce} announce
 */
export const windowClosed = (windowId, announce) => serially(async () => {
  for (const [id, prompt] of await open()) {
    if (prompt.windowId !== windowId) continue;
    await session.remove(`prompt:${id}`);
    await countDismissal(prompt.origin);
    await announce({ origin: prompt.origin, asked: true });
  }
});

/**
 * A document that may be waiting went away. A prompt that no document waits for is closed.
 * @param {string} documentId
 */
export const documentGone = (documentId) => serially(async () => {
  for (const [id, prompt] of await open()) {
    if (!prompt.documents.includes(documentId)) continue;
    const documents = prompt.documents.filter((other) => other !== documentId);
    if (documents.length > 0) {
      await session.set({ [`prompt:${id}`]: { ...prompt, documents } });
    } else {
      await session.remove(`prompt:${id}`);
      await chrome.windows.remove(prompt.windowId).catch(() => {});
    }
  }
});

/** @param {string} origin */
async function isQuiet(origin) {
  const { [`dismissed:${origin}`]: value } = await session.get(`dismissed:${origin}`);
  const { count = 0, until = 0 } = /** @type {{count?: number, until?: number}} */ (value ?? {});
  return count >= DISMISSALS && Date.now() < until;
}

/** @param {string} origin */
async function countDismissal(origin) {
  const key = `dismissed:${origin}`;
  const { [key]: value } = await session.get(key);
  const { count = 0, until = 0 } = /** @type {{count?: number, until?: number}} */ (value ?? {});
  const earlier = count >= DISMISSALS && Date.now() >= until ? 0 : count;
  await session.set({ [key]: { count: earlier + 1, until: Date.now() + QUIET } });
}

/**
 * Requests of an origin are asked about again: the user has looked at its grants.
 * @param {string} origin
 */
export const forgetDismissals = (origin) => session.remove(`dismissed:${origin}`);
