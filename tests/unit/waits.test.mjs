// What the browser tests wait with.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { until, watch, within } from "../e2e/waits.mjs";

const never = new Promise(() => {});
/** What was printed. @type {import("node:test").Mock<typeof console.error>} */
let said;
beforeEach(() => {
  mock.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  said = mock.method(console, "error", () => {});
});

test("a wait that takes long says after 30 s for what, and fails at its limit", async () => {
  const waiting = within(never, "Godot", 50_000);
  mock.timers.tick(30_000);
  assert.deepEqual(said.mock.calls.map(({ arguments: [line] }) => line), ["still waiting for Godot"]);
  mock.timers.tick(20_000);
  await assert.rejects(waiting, { message: "Waited 50 s in vain for Godot." });
  assert.equal(await within(Promise.resolve(1), "what is there"), 1);
});

test("a condition that never holds, or never answers, fails after 30 s and is not asked again", async () => {
  let asked = 0;
  const waiting = until(() => (asked++, false), "the end of days");
  for (let at = 0; at < 30_000; at += 20) {
    mock.timers.tick(20);
    for (let turn = 0; turn < 3; turn++) await Promise.resolve();
  }
  await assert.rejects(waiting, { message: "Waited 30 s in vain for the end of days." });
  const before = asked;
  mock.timers.tick(1000);
  await Promise.resolve();
  assert.ok(before > 2 && asked === before, `asked ${before} times, then ${asked}`);

  const hanging = until(() => never, "an answer");
  mock.timers.tick(30_000);
  await assert.rejects(hanging, { message: "Waited 30 s in vain for an answer." });
});

test("calls of a watched kind say whose they are and with what", async () => {
  class Page {
    /** @param {number} _width @param {() => unknown} _work */
    evaluate(_width, _work) { return never; }
  }
  watch(Page.prototype, ["evaluate"], 40_000, () => "about:blank");
  const waiting = new Page().evaluate(3, () => "x");
  mock.timers.tick(40_000);
  await assert.rejects(waiting, { message: 'Waited 40 s in vain for about:blank: evaluate(3, () => "x").' });
});
