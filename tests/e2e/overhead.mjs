// What the way through the browser costs: prints JSON. `node tests/e2e/overhead.mjs`
//
// first_chunk_overhead_ms: time in the page from the call to the first chunk, less the engine's own time from the request's
// arrival in its worker to that chunk (timings.first_token_ms). round_trip_ms: page → bridge → router → worker and back.
// With the scripted worker always, with the real engine when it has been built.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { launch, ROOT, scriptedExtension } from "./harness.mjs";

/** @typedef {{median: number, p95: number, samples: number}} Summary   milliseconds */

/**
 * @param {number[]} times
 * @returns {Summary}
 */
function summarize(times) {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (/** @type {number} */ share) => Math.round(1000 * /** @type {number} */ (sorted[Math.floor(share * (sorted.length - 1))])) / 1000;
  return { median: at(0.5), p95: at(0.95), samples: sorted.length };
}

/**
 * @param {import("playwright-core").Page} page  with a grant
 * @param {{content: string, samples: number}} options  `content` of the one message
 */
export async function measureOverhead(page, { content, samples }) {
  const { overhead, roundTrip } = await page.evaluate(async ({ content, samples }) => {
    const body = {
      messages: [{ role: /** @type {const} */ ("user"), content }],
      stream: /** @type {const} */ (true), max_tokens: 1, temperature: 0,
    };
    /** @type {number[]} */
    const overhead = [];
    /** @type {number[]} */
    const roundTrip = [];
    const warmUp = 5;
    for (let i = -warmUp; i < samples; i++) {
      let start = performance.now();
      let first = 0;
      let engine = NaN;
      for await (const { timings } of await doppler.chat.completions.create(body)) {
        first ||= performance.now() - start;
        engine = timings?.first_token_ms ?? engine;
      }
      start = performance.now();
      await doppler.models.list();
      if (i < 0) continue;
      overhead.push(first - engine);
      roundTrip.push(performance.now() - start);
    }
    return { overhead, roundTrip };
  }, { content, samples });
  return { first_chunk_overhead_ms: summarize(overhead), round_trip_ms: summarize(roundTrip) };
}

/**
 * @param {string} extension
 * @param {{content: string, samples: number}} options
 */
async function measureIn(extension, options) {
  const browser = await launch({ extension, limited: false });
  try {
    const page = await browser.open(browser.localhost);
    await browser.grant(page, "once");
    return await measureOverhead(page, options);
  } finally {
    await browser.close();
  }
}

if (import.meta.filename === process.argv[1]) {
  const built = existsSync(join(ROOT, "extension/pkg/worker/doppler_worker_bg.wasm"));
  console.log(JSON.stringify({
    scripted: await measureIn(await scriptedExtension(), { content: '{"tokens":1}', samples: 200 }),
    spark: built ? await measureIn(ROOT, { content: "Who are you?", samples: 10 }) : "not built",
  }, null, 2));
}
