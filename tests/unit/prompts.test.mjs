// The service worker's permission prompts, without a browser: who may open one, and where.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

/** @returns {any}  as much of a storage area as is used */
function storageArea() {
  /** @type {Map<string, any>} */
  const values = new Map();
  return {
    values,
    get: async (/** @type {string | string[] | null} */ keys) =>
      Object.fromEntries([...values].filter(([key]) => keys === null || [keys].flat().includes(key))),
    set: async (/** @type {object} */ more) => { for (const [key, value] of Object.entries(more)) values.set(key, structuredClone(value)); },
    remove: async (/** @type {string | string[]} */ keys) => { for (const key of [keys].flat()) values.delete(key); },
  };
}

/** Windows that are open, by id. @type {Map<number, any>} */
const windows = new Map();
/** Windows that were brought to the front. @type {number[]} */
const focused = [];
/** Which places the screen has. */
let onScreen = (/** @type {any} */ _) => true;
const storage = { local: storageArea(), session: storageArea() };
Object.assign(globalThis, { chrome: {
  storage,
  windows: {
    WINDOW_ID_NONE: -1,
    getLastFocused: async () => ({ left: 0, top: 0, width: 1600, height: 1000 }),
    get: async (/** @type {number} */ id) => windows.get(id) ?? Promise.reject(new Error("no window")),
    update: async (/** @type {number} */ id) => focused.push(id),
    async create(/** @type {any} */ window) {
      if (!onScreen(window)) throw new Error("Invalid value for bounds.");
      const id = windows.size + 1;
      windows.set(id, window);
      return { id };
    },
  },
} });
const prompts = await import("../../extension/background/prompts.js");

beforeEach(() => {
  windows.clear();
  focused.length = 0;
  onScreen = () => true;
  storage.local.values.clear();
  storage.session.values.clear();
});

const page = { origin: "https://a.test", documentId: "a" };
const press = { tab: 1, activated: true };

test("a prompt needs a press; asked again without one, the open one answers and stays where it is", async () => {
  await assert.rejects(prompts.request(page, { tab: 1, activated: false }), { code: "user_activation_required" });
  assert.equal(await prompts.request(page, press), "asking");
  assert.equal(await prompts.request(page, { tab: 1, activated: false }), "asking");
  assert.deepEqual([windows.size, focused], [1, []]);
  await assert.rejects(prompts.request({ ...page, documentId: "b" }, { tab: 2, activated: false }), { code: "user_activation_required" });
  assert.equal(await prompts.request({ ...page, documentId: "b" }, { tab: 2, activated: true }), "asking");
  assert.deepEqual([windows.size, focused], [1, [1]]);
});

test("a prompt just closed opens again only with a press, and the dismissal counts", async () => {
  await prompts.request(page, press);
  // The page is quicker than the browser's word that the window is gone.
  windows.clear();
  await assert.rejects(prompts.request(page, { tab: 1, activated: false }), { code: "user_activation_required" });
  assert.equal(windows.size, 0);
  await prompts.windowClosed(1, async () => {});
  await prompts.request(page, press);
  const [id] = windows.keys();
  windows.clear();
  await prompts.windowClosed(Number(id), async () => {});
  assert.deepEqual(await prompts.request(page, press), { state: "denied" }, "the second in a row");
});

test("a tab has one prompt at a time, all tabs have three", async () => {
  await prompts.request(page, press);
  const other = (/** @type {number} */ n) => ({ origin: `https://${n}.test`, documentId: `${n}` });
  await assert.rejects(prompts.request(other(1), press), { code: "too_many_prompts" });
  for (const tab of [2, 3]) assert.equal(await prompts.request(other(tab), { tab, activated: true }), "asking");
  await assert.rejects(prompts.request(other(4), { tab: 4, activated: true }), { code: "too_many_prompts" });
  assert.equal(windows.size, 3);
});

test("the window opens away from the press, where the screen has a place", async () => {
  const pointer = { x: 800, y: 400 };
  const [width, height] = [480, 640];
  const clear = (/** @type {any} */ { left, top }) => left > pointer.x || left + width < pointer.x || top > pointer.y || top + height < pointer.y;
  await prompts.request(page, { ...press, pointer });
  assert.ok(clear(windows.get(1)));
  onScreen = ({ left }) => left === undefined || left > pointer.x;
  await prompts.request({ origin: "https://b.test", documentId: "b" }, { tab: 2, activated: true, pointer });
  assert.ok(windows.get(2).left > pointer.x);
  // A screen with no place for it still shows it.
  onScreen = ({ left }) => left === undefined;
  assert.equal(await prompts.request({ origin: "https://c.test", documentId: "c" }, { tab: 3, activated: true, pointer }), "asking");
});
