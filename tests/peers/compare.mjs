// The comparison behind `cargo xtask bench --peers`: compare.html in a Chromium, served from the loopback interface.
//
// usage: node tests/peers/compare.mjs PARAMS [--json]     PARAMS: JSON, what compare.html takes; `onnx` is a folder here
//        node tests/peers/compare.mjs --table FILE…       prints the tables of results that page_runner.py kept
// Environment: CHROME, DOPPLER_CHROME and DOPPLER_CHROME_FLAGS as for tests/e2e/harness.mjs.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { chromium } from "playwright-core";
import sirv from "sirv";
import { isSoftware } from "../../extension/bench/report.js";
import { CHROME, ROOT } from "../e2e/harness.mjs";
import { table } from "./table.js";

/** @typedef {import("./compare.js").Comparison} Comparison */

/** Workers with shared memory, which wllama wants for its threads, need the first two. @type {Record<string, string>} */
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cache-Control": "no-store" };

/**
 * Serves the repository, with `onnx/` from elsewhere.
 * @param {string | undefined} onnx  a folder
 */
async function serve(onnx) {
  const options = { dev: true, setHeaders: (/** @type {import("node:http").ServerResponse} */ response) => response.setHeaders(new Map(Object.entries(HEADERS))) };
  const [repository, elsewhere] = [sirv(ROOT, options), onnx ? sirv(dirname(onnx), options) : undefined];
  const server = createServer((request, response) => {
    const missing = () => void response.writeHead(404).end();
    if (!elsewhere || !request.url?.startsWith("/onnx/")) return repository(request, response, missing);
    request.url = request.url.slice("/onnx".length);
    elsewhere(request, response, missing);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { origin: `http://127.0.0.1:${port}`, close: () => (server.closeAllConnections(), server.close()) };
}

/**
 * @param {Record<string, string>} params
 * @returns {Promise<Comparison>}
 */
async function measure({ onnx, ...params }) {
  const folder = onnx && resolve(onnx);
  const server = await serve(folder);
  const profile = await mkdtemp(join(tmpdir(), "doppler-peers-"));
  // A profile on the disk, because the browser's own storage, where wllama keeps the model, is in memory without.
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROME,
    headless: process.env.DOPPLER_HEADED !== "1",
    chromiumSandbox: process.getuid?.() !== 0,
    args: ["--enable-unsafe-webgpu", "--enable-webgpu-developer-features", ...(process.env.DOPPLER_CHROME_FLAGS?.split(/\s+/).filter(Boolean) ?? [])],
  });
  try {
    const page = await context.newPage();
    const query = new URLSearchParams({ ...params, ...(folder && { onnx: `/onnx/${basename(folder)}` }) });
    const result = page.waitForRequest(`${server.origin}/result`, { timeout: 0 });
    await page.goto(`${server.origin}/tests/peers/compare.html?${query}`);
    const comparison = (await result).postDataJSON();
    if (comparison.error) throw new Error(comparison.error);
    return comparison;
  } finally {
    await context.close();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** @param {Comparison} comparison */
function print(comparison) {
  console.log(`${table(comparison)}\n`);
  if (isSoftware(comparison)) console.error("WARNING: the adapter is a software one, a program on the CPU. These figures say nothing of the speed on a GPU.");
}

const [params = "{}", ...more] = process.argv.slice(2);
if (params === "--table") {
  for (const file of more) print(JSON.parse(await readFile(file, "utf8")));
} else {
  const comparison = await measure(JSON.parse(params));
  if (more.includes("--json")) console.log(JSON.stringify(comparison, null, 1));
  else print(comparison);
}
