// What the way to a page costs: the same answers inside of the engine and at a page through window.doppler.

/** @typedef {import("../../extension/bench/report.js").PageReport} PageReport */

/** The embedded model tells the longest story: as it is the fastest of all, the way costs the largest part of its time. */
const QUESTION = "Write a story with Sandra and an acorn.";

/** @param {number[]} numbers */
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? NaN;

/**
 * Streams answers to a page, then times the like inside of the engine; the first of each is not counted.
 * @param {import("../e2e/harness.mjs").Browser} browser
 * @param {{runs: number, tokens: number}} options
 * @returns {Promise<PageReport>}
 */
export async function measurePage(browser, { runs, tokens }) {
  const page = await browser.open(browser.localhost);
  await browser.grant(page, "once");
  const question = { content: QUESTION, max_tokens: tokens };
  const { usage } = await page.evaluate(stream, question);
  const answers = [];
  for (let run = 0; run < runs; run++) answers.push(await page.evaluate(stream, question));

  const params = { shape: "spark", prompts: [usage.prompt_tokens], tokens: usage.completion_tokens, runs };
  const own = await browser.openOwn("options/options.html");
  const { lengths: [inside] } = await own.evaluate(async (params) => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    return (await connectEngine()).request("engine.bench", params);
  }, params);
  return {
    prompt_tokens: usage.prompt_tokens,
    tokens: usage.completion_tokens,
    first_token_ms: median(answers.map(({ first }) => first)),
    engine_first_token_ms: inside.first_token_ms,
    decode_tokens_per_second: median(answers.map(({ first, last }) => (usage.completion_tokens - 1) * 1e3 / (last - first))),
    engine_decode_tokens_per_second: inside.decode_tokens_per_second,
  };
}

/**
 * In the page: when the first and the last text came, in ms from the call.
 * @param {{content: string, max_tokens: number}} question
 */
async function stream({ content, max_tokens }) {
  let [first, last] = [0, 0];
  let usage = { prompt_tokens: 0, completion_tokens: 0 };
  const start = performance.now();
  const body = { messages: [{ role: /** @type {const} */ ("user"), content }], max_tokens, temperature: 0, stream: /** @type {const} */ (true), stream_options: { include_usage: true } };
  for await (const chunk of await doppler.chat.completions.create(body)) {
    usage = chunk.usage ?? usage;
    if (!chunk.choices[0]?.delta.content) continue;
    last = performance.now() - start;
    first ||= last;
  }
  return { first, last, usage };
}
