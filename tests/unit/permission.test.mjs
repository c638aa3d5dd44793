// The permission window's rules that need no browser: when an answer counts, where the window opens, what of a host is marked.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkedPoint, places } from "../../extension/background/placement.js";
import { Quiet, QUIET } from "../../extension/permission/quiet.js";
import { partsOf } from "../../extension/shared/origin.js";

/** @param {Quiet} quiet @param {number} time @returns {boolean} whether a click then is an answer */
function click(quiet, time) {
  quiet.press(time);
  quiet.release(time + 5);
  return quiet.accepts(time + 5);
}

test("an answer counts after a quiet time in front; whatever is pressed before starts it again", () => {
  const quiet = new Quiet();
  assert.equal(click(quiet, 10_000), false, "it is not in front");
  quiet.begin(0);
  // Every 60 to 400 ms for 10 s, then at once.
  let last = 0;
  for (const every of [60, 150, 250, 400]) {
    for (const end = last + 2500; last < end; last += every) assert.equal(click(quiet, last), false, `at ${last}, every ${every}`);
  }
  assert.equal(click(quiet, last), false);
  assert.equal(click(quiet, last + QUIET - 1), false);
  assert.equal(click(quiet, last + 2 * QUIET + 10), true);
  quiet.end();
  assert.equal(click(quiet, last + 10 * QUIET), false, "it went behind");
});

test("a press that began too early is no answer, however late it ends", () => {
  const quiet = new Quiet();
  quiet.begin(0);
  quiet.press(100);
  quiet.release(2 * QUIET);
  assert.equal(quiet.accepts(2 * QUIET), false);
  // Nor is a click whose press was in another window.
  assert.equal(quiet.accepts(5 * QUIET), false);
  assert.equal(click(quiet, 6 * QUIET), true);
});

test("the window is never under the pointer", () => {
  const size = { width: 460, height: 540 };
  for (const around of [{ left: 0, top: 0, width: 1280, height: 800 }, { left: -1920, top: 40, width: 1920, height: 1040 }, { left: 300, top: 200, width: 400, height: 300 }]) {
    for (let x = around.left; x <= around.left + around.width; x += 20) {
      for (let y = around.top; y <= around.top + around.height; y += 20) {
        const found = places(size, around, { x, y });
        assert.ok(found.length > 0);
        for (const { left, top } of found) {
          assert.ok(x < left || x > left + size.width || y < top || y > top + size.height, `${x}, ${y} in ${left}, ${top}`);
          assert.ok(Number.isInteger(left) && Number.isInteger(top));
        }
      }
    }
  }
  assert.deepEqual(places(size, { left: 0, top: 0, width: 1460, height: 1000 }, undefined)[0], { left: 500, top: 120 });
});

test("where the pointer was is a point of a screen, or not known", () => {
  assert.deepEqual(checkedPoint({ x: 1.5, y: -3, more: 1 }), { x: 1.5, y: -3 });
  for (const value of [undefined, null, 1, {}, { x: 1 }, { x: "1", y: 1 }, { x: NaN, y: 1 }, { x: Infinity, y: 1 }, { x: 1e9, y: 1 }]) {
    assert.equal(checkedPoint(value), undefined);
  }
});

test("the registered part of a host is found", () => {
  for (const [before, registered] of [
    ["accounts.google.com.security-check.", "evil.test"], ["", "example.org"], ["a.b.", "example.co.uk"], ["", "somebody.github.io"],
    ["www.", "somebody.github.io"], ["", "github.io"], ["", "localhost"], ["", "127.0.0.1"], ["", "[::1]"], ["www.", "xn--e1afmkfd.xn--p1ai"],
    ["login.", "evil.test."],
  ]) {
    assert.deepEqual(partsOf(`${before}${registered}`), { before, registered });
  }
});
