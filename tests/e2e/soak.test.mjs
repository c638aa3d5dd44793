// Short soaks: see tests/soak/soak.mjs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { problems, soak } from "../soak/soak.mjs";

/** @type {Record<string, Parameters<typeof soak>[0]>} */
const SOAKS = {
  "a scripted worker": { minutes: 0.4, seed: 14, scripted: true },
  "Spark": { minutes: 0.5, seed: 14, visitors: 2 },
};
for (const [what, options] of Object.entries(SOAKS)) {
  const name = `soak with ${what}: parts are killed under tabs that ask, abort and close, every request is answered or clearly refused, none wrongly`;
  test(name, { timeout: 600_000 }, async (t) => {
    const report = await soak(options);
    t.diagnostic(JSON.stringify(report));
    assert.deepEqual(problems(report), []);
    assert.ok(Object.keys(report.kills).length > 0);
  });
}
