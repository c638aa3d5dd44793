// Measures engines in turns, each time in a frame of its own: ours, a peer, ours, a peer, …

/** @typedef {import("./timing.js").Asked} Asked */
/** @typedef {import("./timing.js").Run} Run */
/** @typedef {import("./timing.js").Length} Length */

/**
 * What an engine did; `median` has the medians of its runs.
 * @typedef {{name: string, error: string | null, runs: Run[], median: {load_seconds: number, lengths: Length[]} | null}} Measured
 */

/**
 * The fields are described in comparison.schema.json.
 * @typedef {{
 *   date: string, browser: string, adapter: {vendor: string, architecture: string, description: string, driver: string | null, features: string[]},
 *   shape: string, quant: string, prompts: number[], tokens: number, context: number, engines: Measured[],
 * }} Comparison
 */

/** The longest that a run may take, in ms. */
const LIMIT = 600_000;

/**
 * @param {Partial<Asked> & {engines?: string[], rounds?: number}} options  `engines` in the order of their turns; see engines/
 * @returns {Promise<Comparison>}
 */
export async function compare({ engines = ["doppler", "wllama"], rounds = 5, shape = "llama-3.2-1b", quant = "q4_k_m", prompts = [64, 512], tokens = 128, ...files }) {
  // As `engine.bench` does by itself.
  const context = Math.max(4096, Math.ceil((Math.max(...prompts) + tokens) / 256) * 256);
  const adapter = await findAdapter();
  const asked = { shape, quant, prompts, tokens, context, ...files };
  /** @type {Measured[]} */
  const measured = engines.map((name) => ({ name, error: null, runs: [], median: null }));
  for (let round = 0; round < rounds; round++) {
    for (const engine of measured) {
      if (engine.error !== null) continue;
      try {
        engine.runs.push(await inFrame(engine.name, asked));
      } catch (error) {
        engine.error = error instanceof Error ? error.message : String(error);
      }
    }
  }
  for (const engine of measured) engine.median = medians(engine.runs);
  return { date: new Date().toISOString(), browser: navigator.userAgent, adapter, shape, quant, prompts, tokens, context, engines: measured };
}

/** The adapter that engines get. In a headless browser the GPU process may have to start twice. */
async function findAdapter() {
  for (let attempt = 0; attempt < 20; attempt++) {
    const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (adapter) {
      const { vendor, architecture, description, driver = null } = adapter.info;
      return { vendor, architecture, description, driver, features: [...adapter.features].filter((name) => /f16|subgroup/.test(name)) };
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error("This browser has no WebGPU adapter: start it with --enable-unsafe-webgpu, or see chrome://gpu.");
}

/**
 * Opens an engine in a frame, which ends with everything that it held.
 * @param {string} engine
 * @param {Asked} asked
 * @returns {Promise<Run>}
 */
async function inFrame(engine, asked) {
  const frame = document.createElement("iframe");
  frame.src = `peer.html?${new URLSearchParams({ engine, asked: JSON.stringify(asked) })}`;
  /** @type {AbortController} */
  const listening = new AbortController();
  try {
    return await new Promise((resolve, reject) => {
      addEventListener("message", ({ source, data }) => {
        if (source !== frame.contentWindow) return;
        if (data.error) reject(new Error(data.error));
        else resolve(data.run);
      }, { signal: listening.signal });
      setTimeout(() => reject(new Error(`no result after ${LIMIT / 1000} s`)), LIMIT);
      document.body.append(frame);
    });
  } finally {
    listening.abort();
    frame.remove();
  }
}

/** @param {number[]} numbers */
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? NaN;

/**
 * @param {Run[]} runs
 * @returns {Measured["median"]}
 */
export function medians(runs) {
  const [first] = runs;
  if (!first) return null;
  return {
    load_seconds: median(runs.map((run) => run.load_seconds)),
    lengths: first.lengths.map(({ prompt_tokens }, i) => {
      const of = (/** @type {keyof Length} */ field) => median(runs.map((run) => run.lengths[i]?.[field] ?? NaN));
      return {
        prompt_tokens,
        first_token_ms: of("first_token_ms"),
        prefill_tokens_per_second: of("prefill_tokens_per_second"),
        decode_tokens_per_second: of("decode_tokens_per_second"),
      };
    }),
  };
}
