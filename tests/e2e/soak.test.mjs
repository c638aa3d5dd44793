// A short soak: see tests/soak/soak.mjs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { problems, soak } from "../soak/soak.mjs";

test("tabs ask, abort and close while parts under them are killed: every request is answered or refused, no answer is wrong, memory stays", { timeout: 600_000 }, async (t) => {
  const report = await soak({ minutes: 0.75, seed: 14, visitors: 2 });
  t.diagnostic(JSON.stringify(report));
  assert.deepEqual(problems(report), []);
});
