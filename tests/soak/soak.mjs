// Tabs that come, ask, abort and go for a while, as people's do, while the parts under them are killed: the GPU process, the offscreen
// document, the engine's worker, the service worker. `cargo xtask soak` runs this, and a browser test does for a minute.
//
// node soak.mjs '{"minutes": 30, "seed": 1}'

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { launch, ROOT, scriptedExtension, until } from "../e2e/harness.mjs";
import { measure, problemsOfMemory } from "./memory.mjs";

/** @typedef {import("../e2e/harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{name: string, messages: {role: "user", content: string}[], continuation_text: string}} Golden */
/** @typedef {"stream" | "whole" | "count"} Kind */
/**
 * @typedef {object} Outcome
 * @property {"done" | "aborted" | "left" | "refused"} how   `left`: its tab was closed
 * @property {string} [text]
 * @property {number} [tokens]
 * @property {string} [code]     of a refusal
 * @property {string} [message]
 */
/**
 * @typedef {object} Report
 * @property {number} seed
 * @property {number} seconds
 * @property {number} requests
 * @property {number} tokens
 * @property {number} done
 * @property {number} aborted    by their pages
 * @property {number} left       whose tabs were closed
 * @property {Record<string, number>} refused    by the error's code
 * @property {number} resumed    done, though something that they needed was killed after their first words
 * @property {Record<string, number>} kills
 * @property {string[]} differing     answers that are not those of the same prompts alone
 * @property {string[]} unclear       refusals without a code or a sentence
 * @property {number} unanswered
 * @property {{warm: import("./memory.mjs").Memory, end: import("./memory.mjs").Memory}} memory
 */

/** Prompts whose greedy answers are far from every tie, and long enough to be cut off. */
const PROMPTS = ["fixed-1", "identity", "explain", "table"];
/** Pauses between the end of one disturbance and the next, in ms. */
const PAUSE = { least: 1000, most: 6000 };
/** An answer that comes so late, in ms, is none: a software GPU compiles shaders for a minute. */
const LATE = 240_000;

/** Numbers from 0 to 1 that look random: the same for the same seed (mulberry32). @param {number} seed */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** @template T @param {() => number} random @param {T[]} values @returns {T} */
const pick = (random, values) => /** @type {T} */ (values[Math.floor(random() * values.length)]);

/**
 * Asks in a page, where `asked` lists how many characters each answer that has not ended has.
 * @param {Page} page
 * @param {{id: number, kind: Kind, messages: object[], abortAfter?: number}} request   `abortAfter`: ms
 * @returns {Promise<Outcome>}
 */
const ask = (page, request) => page.evaluate(async ({ id, kind, messages, abortAfter }) => {
  const asked = /** @type {any} */ (window).asked ??= {};
  asked[id] = 0;
  const abort = new AbortController();
  if (abortAfter !== undefined) setTimeout(() => abort.abort(), abortAfter);
  const parameters = /** @type {any} */ ({ messages, temperature: 0, max_tokens: 64 });
  const options = { signal: abort.signal };
  try {
    if (kind === "count") {
      const session = await doppler.LanguageModel.create();
      await session.measureContextUsage(messages[0].content, options);
      session.destroy();
      return { how: "done" };
    }
    if (kind === "whole") {
      const { choices, usage } = /** @type {any} */ (await doppler.chat.completions.create(parameters, options));
      return { how: "done", text: choices[0].message.content, tokens: usage.completion_tokens };
    }
    let text = "";
    let tokens = 0;
    const streamed = { ...parameters, stream: true, stream_options: { include_usage: true } };
    const stream = await doppler.chat.completions.create(streamed, options);
    for await (const { choices, usage } of stream) {
      text += choices[0]?.delta.content ?? "";
      asked[id] = text.length;
      tokens = usage?.completion_tokens ?? tokens;
    }
    return { how: "done", text, tokens };
  } catch (thrown) {
    const { reason, message, name } = /** @type {any} */ (thrown);
    return abort.signal.aborted ? { how: "aborted" } : { how: "refused", code: reason ?? name, message };
  } finally {
    delete asked[id];
  }
}, /** @type {any} */ (request));

/** Streamed answers of a page that have begun and not ended. @param {Page} page @returns {Promise<number[]>} */
const begun = (page) => page.evaluate(() => Object.entries(/** @type {any} */ (window).asked ?? {}).filter(([, length]) => length > 0).map(([id]) => Number(id)))
  .catch(() => []);

class Soak {
  /** Requests that something was killed under after their first words. @type {Set<number>} */
  #disturbed = new Set();
  /** Of visitors. @type {Set<Page>} */
  #pages = new Set();
  #ended = false;
  #next = 1;
  #browser;
  #goldens;
  #seed;
  /** @type {Omit<Report, "seed" | "seconds" | "memory">} */
  counts = {
    requests: 0, tokens: 0, done: 0, aborted: 0, left: 0, refused: {}, resumed: 0, kills: {}, differing: [], unclear: [], unanswered: 0,
  };

  /**
   * @param {Browser} browser  with grants for both origins
   * @param {Golden[]} goldens
   * @param {number} seed
   */
  constructor(browser, goldens, seed) {
    this.#browser = browser;
    this.#goldens = goldens;
    this.#seed = seed;
  }

  /** @param {number} seconds @param {number} visitors  tabs at the same time */
  async run(seconds, visitors) {
    const end = setTimeout(() => { this.#ended = true; }, seconds * 1000);
    try {
      const visits = Array.from({ length: visitors }, (_, i) => this.#visit(randomNumbers(this.#seed + 1 + i)));
      await Promise.all([this.#disturb(randomNumbers(this.#seed)), ...visits]);
    } finally {
      clearTimeout(end);
      this.#ended = true;
    }
  }

  /** One who opens a tab, asks in it, closes it, and opens another. @param {() => number} random */
  async #visit(random) {
    while (!this.#ended) {
      const page = await this.#browser.open(pick(random, [this.#browser.localhost, this.#browser.loopback]));
      this.#pages.add(page);
      const [requests, leaves] = [1 + Math.floor(random() * 3), random() < 0.2];
      const asking = Array.from({ length: requests }, () => this.#request(page, random));
      if (leaves) await Promise.race([sleep(random() * 3000), Promise.all(asking)]);
      else await Promise.all(asking);
      this.#pages.delete(page);
      await page.close();
      await Promise.all(asking);
    }
  }

  /** @param {Page} page @param {() => number} random */
  async #request(page, random) {
    const id = this.#next++;
    const golden = pick(random, this.#goldens);
    const kind = pick(random, /** @type {Kind[]} */ (["stream", "stream", "stream", "whole", "count"]));
    const abortAfter = random() < 0.15 ? random() * 3000 : undefined;
    this.counts.requests++;
    const late = new AbortController();
    /** @type {Outcome | undefined} */
    const outcome = await Promise.race([
      ask(page, { id, kind, messages: golden.messages, ...(abortAfter !== undefined && { abortAfter }) })
        .catch((error) => page.isClosed() || /closed/.test(String(error)) ? /** @type {Outcome} */ ({ how: "left" }) : Promise.reject(error)),
      sleep(LATE, undefined, { signal: late.signal }).catch(() => undefined),
    ]);
    late.abort();
    this.#count(id, golden, outcome);
  }

  /** @param {number} id @param {Golden} golden @param {Outcome | undefined} outcome */
  #count(id, { name, continuation_text: whole }, outcome) {
    const { counts } = this;
    if (!outcome) {
      counts.unanswered++;
      return;
    }
    const { how, text, tokens = 0, code = "", message = "" } = outcome;
    if (how === "refused") {
      counts.refused[code] = (counts.refused[code] ?? 0) + 1;
      if (!code || message.length < 20) counts.unclear.push(`${name}: ${code} ${message}`);
      return;
    }
    counts[how]++;
    counts.tokens += tokens;
    if (how === "done" && this.#disturbed.has(id)) counts.resumed++;
    if (text !== undefined && text !== whole) counts.differing.push(`${name}: ${JSON.stringify(text)}`);
  }

  /** Kills something, waits until answers come again, and so on. @param {() => number} random */
  async #disturb(random) {
    /** @type {[string, boolean, () => Promise<unknown>][]} */
    const all = [
      ["GPU process", true, () => this.#browser.killGpuProcess()],
      ["offscreen document", true, () => this.#browser.killOffscreen()],
      ["worker", true, () => this.#browser.killWorker()],
      ["service worker", false, () => this.#browser.killServiceWorker()],
    ];
    /** @type {typeof all} */
    let deck = [];
    while (!this.#ended) {
      await sleep(PAUSE.least + random() * (PAUSE.most - PAUSE.least));
      if (this.#ended) return;
      // Each before one of them comes again.
      if (deck.length === 0) deck = all.map((kill) => ({ kill, place: random() })).toSorted((a, b) => a.place - b.place).map(({ kill }) => kill);
      const [what, stops, kill] = /** @type {typeof all[number]} */ (deck.pop());
      if (stops) for (const id of (await Promise.all([...this.#pages].map(begun))).flat()) this.#disturbed.add(id);
      await kill();
      this.counts.kills[what] = (this.counts.kills[what] ?? 0) + 1;
      const { done } = this.counts;
      await until(() => this.#ended || this.counts.done > done, "an answer after a kill", LATE);
    }
  }
}

/**
 * @param {{minutes: number, seed?: number, visitors?: number, scripted?: boolean}} options
 *   `visitors`: tabs at the same time; `scripted`: with the worker that repeats what it is asked, which tests the messages' path more densely
 * @returns {Promise<Report>}
 */
export async function soak({ minutes, seed = 1, visitors = 4, scripted = false }) {
  /** @type {Golden[]} */
  const prompts = JSON.parse(await readFile(join(ROOT, "tests/fixtures/spark/goldens-q8_0.json"), "utf8")).prompts;
  const repeated = (/** @type {Golden} */ golden) => ({ ...golden, messages: [{ role: /** @type {const} */ ("user"), content: golden.continuation_text }] });
  const goldens = prompts.filter(({ name }) => PROMPTS.includes(name)).map((golden) => scripted ? repeated(golden) : golden);
  const first = /** @type {Golden} */ (goldens[0]);
  // Chrome gives up a GPU whose process ends often.
  const browser = await launch({
    flags: ["--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis"], limited: false,
    ...(scripted && { extension: await scriptedExtension() }),
  });
  try {
    for (const origin of [browser.localhost, browser.loopback]) {
      const page = await browser.open(origin);
      await browser.grant(page, "always");
      await ask(page, { id: 0, kind: "whole", messages: first.messages });
      await page.close();
    }
    const warm = await measure(browser);
    const run = new Soak(browser, goldens, seed);
    await run.run(minutes * 60, visitors);
    // What was killed last is there again before the memory is compared.
    const page = await browser.open(browser.localhost);
    await ask(page, { id: 0, kind: "whole", messages: first.messages });
    await page.close();
    return { seed, seconds: minutes * 60, ...run.counts, memory: { warm, end: await measure(browser) } };
  } finally {
    await browser.close();
  }
}

/**
 * What a soak found, in sentences.
 * @param {Report} report
 * @returns {string[]}
 */
export function problems({ requests, done, differing, unclear, unanswered, memory }) {
  return [
    ...(done === 0 ? [`None of ${requests} requests was answered.`] : []),
    ...(unanswered > 0 ? [`${unanswered} requests were neither answered nor refused within ${LATE / 1000} s.`] : []),
    ...differing.map((answer) => `An answer is not that of the same prompt alone: ${answer}.`),
    ...unclear.map((refusal) => `A refusal is not clear: ${refusal}.`),
    ...problemsOfMemory(memory.warm, memory.end),
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const report = await soak(JSON.parse(process.argv[2] ?? '{"minutes": 1}'));
  console.log(JSON.stringify(report, null, 2));
  for (const problem of problems(report)) {
    console.error(problem);
    process.exitCode = 1;
  }
}
