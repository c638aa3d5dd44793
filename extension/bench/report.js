// A report of `engine.bench`, for people: on the bench page and in the terminal. What `engine.tune` found too.

import { size } from "../shared/size.js";

/**
 * The fields are described in engine/src/bench/mod.rs and tests/bench/report.schema.json.
 * @typedef {{
 *   prompt_tokens: number, tokens: number, cold_first_token_ms: number, first_token_ms: number, prefill_tokens_per_second: number,
 *   decode_tokens_per_second: number, token_ms: [number, number, number], burst_tokens: number, dispatches_per_token: number,
 *   submissions_per_token: number, read_bytes_per_token: number,
 * }} Length
 * @typedef {{
 *   streams: number, places: number, prompt_tokens: number, tokens: number, together_tokens_per_second: number | null,
 *   tokens_per_second: number, each_tokens_per_second: number, first_token_ms: number, last_first_token_ms: number, differing: number,
 * }} Streams
 * @typedef {{
 *   name: string, workgroups: number, count: number, each_us: number, total_us: number, gigabytes_per_second: number, teraflops: number,
 * }} Kernel
 * @typedef {{pass: string, rows: number, positions: number, total_us: number, kernels: Kernel[]}} Pass
 * @typedef {{
 *   prompt_tokens: number, tokens: number, first_token_ms: number, engine_first_token_ms: number, decode_tokens_per_second: number,
 *   engine_decode_tokens_per_second: number,
 * }} PageReport
 * @typedef {import("../shared/protocol.js").Adapter} Adapter
 * @typedef {import("../shared/protocol.js").Settings} Settings
 * @typedef {{
 *   version: string, browser: string, adapter: Adapter | null, tuning: Settings,
 *   model: {name: string, quantization: string, file_bytes: number}, load_seconds: number, device_bytes: number, wasm_bytes: number,
 *   lengths: Length[], streams?: Streams[], page?: PageReport, kernels?: Pass[], roofline?: {gigabytes_per_second: number, teraflops: number},
 * }} Report
 */

/** Columns of the table: heading, and what stands there for a length. @type {[string, (length: Length) => string][]} */
export const COLUMNS = [
  ["Prompt", ({ prompt_tokens }) => `${prompt_tokens}`],
  ["First token, ms", ({ first_token_ms }) => first_token_ms.toFixed(1)],
  ["The very first", ({ cold_first_token_ms }) => cold_first_token_ms.toFixed(1)],
  ["Prefill, tokens/s", ({ prefill_tokens_per_second }) => prefill_tokens_per_second.toFixed(0)],
  ["Decode, tokens/s", ({ decode_tokens_per_second }) => decode_tokens_per_second.toFixed(1)],
  ["A token, ms: p50", ({ token_ms }) => token_ms[0].toFixed(2)],
  ["p90", ({ token_ms }) => token_ms[1].toFixed(2)],
  ["p99", ({ token_ms }) => token_ms[2].toFixed(2)],
  ["Come together", ({ burst_tokens }) => `${burst_tokens}`],
  ["Dispatches", ({ dispatches_per_token }) => dispatches_per_token.toFixed(1)],
  ["Submissions", ({ submissions_per_token }) => submissions_per_token.toFixed(2)],
  ["Bytes read", ({ read_bytes_per_token }) => read_bytes_per_token.toFixed(1)],
];

/** The same for requests at once. @type {[string, (streams: Streams) => string][]} */
export const STREAM_COLUMNS = [
  ["Streams", ({ streams }) => `${streams}`],
  ["At a time", ({ places }) => `${places}`],
  ["Together, tokens/s", ({ together_tokens_per_second: rate }) => rate === null ? "–" : rate.toFixed(1)],
  ["By the clock", ({ tokens_per_second }) => tokens_per_second.toFixed(1)],
  ["Each", ({ each_tokens_per_second }) => each_tokens_per_second.toFixed(1)],
  ["First token, ms: median", ({ first_token_ms }) => first_token_ms.toFixed(1)],
  ["The last one's", ({ last_first_token_ms }) => last_first_token_ms.toFixed(1)],
  ["Answers as alone", ({ streams, differing }) => `${streams - differing} of ${streams}`],
];

/** @param {Report} report */
export function modelLine({ model, load_seconds }) {
  return `${model.name}, ${model.quantization}, ${size(model.file_bytes)}, loaded in ${load_seconds.toFixed(1)} s`;
}

/** @param {Report} report */
export function deviceLine({ adapter, device_bytes, wasm_bytes, browser }) {
  const name = adapter ? `${adapter.description} (${[adapter.vendor, ...adapter.features].filter(Boolean).join(", ")})` : "no GPU";
  return `${name}: ${size(device_bytes)} on the device, ${size(wasm_bytes)} of wasm memory; ${browser}${matricesText(adapter?.matrices)}`;
}

/**
 * Which matrices of subgroups the browser shows, and why none of them is used.
 * @param {Adapter["matrices"]} [matrices]
 */
export function matricesText(matrices) {
  if (!matrices) return "";
  const { shapes, used, unused_because } = matrices;
  return `; subgroup matrices ${used ? `${used} used` : `not used, because ${unused_because}`} (listed: ${shapes.join("; ") || "none"})`;
}

/** @param {PageReport} page */
export function pageLine({ prompt_tokens, tokens, first_token_ms, engine_first_token_ms, decode_tokens_per_second: page, engine_decode_tokens_per_second: engine }) {
  return `spark at a page, prompt of ${prompt_tokens} tokens, answer of ${tokens}: ${page.toFixed(1)} tokens/s, inside of the engine ${engine.toFixed(1)} `
    + `(${(100 * page / engine).toFixed(1)} %); first token ${first_token_ms.toFixed(1)} ms, inside ${engine_first_token_ms.toFixed(1)} ms`;
}

/**
 * Whether the GPU was a program on the CPU, whose figures say nothing of the engine's speed.
 * @param {{adapter: {vendor: string, description: string} | null}} report
 */
export function isSoftware({ adapter }) {
  return /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${adapter?.vendor} ${adapter?.description}`);
}

/** @param {Pass} pass */
export function passLine({ pass, rows, positions, total_us }) {
  return `Kernels of ${pass}, ${rows} ${rows === 1 ? "row" : "rows"} at ${positions} positions: ${total_us.toFixed(0)} µs`;
}

/**
 * The differences between two settings.
 * @param {Settings} from
 * @param {Settings} to
 */
export function changesText(from, to) {
  return Object.keys(to).filter((name) => to[name] !== from[name]).map((name) => `${name} ${to[name]}`).join(", ") || "the default settings";
}

/** @param {Pick<import("../shared/protocol.js").TuneReport, "model" | "before" | "after" | "gain"> & {adapter: {description: string}}} tuned */
export function tunedText({ adapter, model, before, after, gain }) {
  const brought = gain > 0 ? `${(100 * gain).toFixed(0)} % less time, in use from now on` : "no setting is faster than the defaults";
  const both = (/** @type {number} */ from, /** @type {number} */ to, digits = 0) =>
    [from, ...(gain > 0 ? [to] : [])].map((rate) => rate.toFixed(digits)).join(" → ");
  const speeds = before.map((length, index) => {
    const now = after[index] ?? length;
    return `prefill of ${length.prompt_tokens} tokens ${both(length.prefill_tokens_per_second, now.prefill_tokens_per_second)} tokens/s, `
      + `decode ${both(length.decode_tokens_per_second, now.decode_tokens_per_second, 1)} tokens/s`;
  });
  return `${model} on ${adapter.description}: ${brought}; ${speeds.join("; ")}.`;
}

/**
 * How much a kernel, or the device at most, moves and computes in a second.
 * @param {{gigabytes_per_second: number, teraflops: number}} rates
 */
export function ratesText({ gigabytes_per_second, teraflops }) {
  return `${gigabytes_per_second.toFixed(0)} GB/s, ${teraflops.toFixed(2)} TFLOP/s`;
}
