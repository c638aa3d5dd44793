// What waits says after half a minute for what, and never waits for ever.

/** After so long it is said what is waited for; in ms. */
export const PATIENCE = 30_000;

/** What a call of the browser that has no limit of its own may take where a software GPU has to compile and to compute; in ms. */
const CALL_LIMIT = 120_000;

/**
 * @template T
 * @param {Promise<T>} work
 * @param {string} what  it waits for
 * @param {number} [limit]  ms, after which it fails
 * @returns {Promise<T>}
 */
export async function within(work, what, limit = PATIENCE) {
  /** @type {NodeJS.Timeout[]} */
  const timers = [];
  const late = new Promise((_, reject) => {
    if (limit > PATIENCE) timers.push(setTimeout(() => console.error(`still waiting for ${what}`), PATIENCE));
    if (limit < Infinity) timers.push(setTimeout(() => reject(new Error(`Waited ${limit / 1000} s in vain for ${what}.`)), limit));
  });
  try {
    return /** @type {T} */ (await Promise.race([work, late]));
  } finally {
    timers.forEach(clearTimeout);
  }
}

/**
 * @param {() => unknown | Promise<unknown>} condition
 * @param {string} what  it waits for
 * @param {number} [limit]  ms, after which it fails
 */
export async function until(condition, what, limit = PATIENCE) {
  let wanted = true;
  const poll = async () => {
    while (wanted && !await condition()) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  try {
    await within(poll(), what, limit);
  } finally {
    wanted = false;
  }
}

/** @param {unknown} value @returns {string}  a short line */
function brief(value) {
  const text = typeof value === "function" ? String(value) : JSON.stringify(value) ?? "";
  const line = text.replace(/\s+/g, " ");
  return line.length > 160 ? `${line.slice(0, 160)} …` : line;
}

/**
 * Makes calls of this kind of object say what they wait for.
 * @param {any} prototype  of a class of Playwright's
 * @param {string[]} methods
 * @param {number} limit  ms; `Infinity` where Playwright has one
 * @param {(object: any) => string} name  of such an object
 */
export function watch(prototype, methods, limit, name) {
  for (const method of methods) {
    const call = prototype[method];
    prototype[method] = /** @param {unknown[]} parameters */ function (...parameters) {
      return within(call.apply(this, parameters), `${name(this)}: ${method}(${parameters.map(brief).join(", ")})`, limit);
    };
  }
}

let watched = false;

/**
 * Makes every call of Playwright's that waits say after half a minute for what.
 * @param {import("playwright-core").Page} page  any
 * @param {import("playwright-core").CDPSession} cdp  any
 */
export function watchCalls(page, cdp) {
  if (watched) return;
  watched = true;
  const prototype = (/** @type {object} */ object) => Object.getPrototypeOf(object);
  const url = (/** @type {import("playwright-core").Page} */ page) => page.url();
  watch(prototype(page), ["evaluate", "close"], CALL_LIMIT, url);
  watch(prototype(page), ["goto", "reload", "click", "fill", "selectOption", "waitForFunction"], Infinity, url);
  watch(prototype(page.locator("html")), ["waitFor", "click", "press", "fill", "textContent", "innerText"], Infinity, String);
  watch(prototype(cdp), ["send"], CALL_LIMIT, () => "the browser's protocol");
}
