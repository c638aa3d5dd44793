// Questions to the service worker, which may end at any moment.

import assert from "node:assert/strict";
import { test } from "node:test";
import { background } from "../../extension/shared/background.js";

test("the service worker ends under a question: it is asked again, but not for ever, and not after a refusal", async () => {
  /** @type {(() => Promise<any>)[]} */
  let answers = [];
  let asked = 0;
  const runtime = { id: "x", sendMessage: () => /** @type {() => Promise<any>} */ (answers[asked++])() };
  Object.assign(globalThis, { chrome: { runtime } });
  const died = async () => { throw new Error("The message channel closed before a response was received."); };
  answers = [died, died, async () => ({ done: 1 })];
  assert.equal(await background("x"), 1);
  [answers, asked] = [[died, died, died, async () => ({ done: 1 })], 0];
  await assert.rejects(background("x"), /channel closed/);
  assert.equal(asked, 3);
  [answers, asked] = [[async () => ({ error: { name: "NotAllowedError", code: "forbidden", message: "No." } })], 0];
  await assert.rejects(background("x"), { code: "forbidden" });
  // The extension is gone.
  [answers, asked] = [[died, died], 0];
  delete (/** @type {any} */ (runtime)).id;
  await assert.rejects(background("x"));
  assert.equal(asked, 1);
});
