// The bench behind `cargo xtask bench --load`: how fast a model file comes to the GPU of a real Chromium, on each way that there is.
//
// usage: node tests/bench/load.mjs FILE.gguf [--ways=loopback,messages,file,opfs] [--cold] [--runs=1] [--tokens=32] [--json]
// `--cold`: before each way's other loads one whose file is on the disk alone (Linux; the system is asked to forget it).
// `--json`: the report on the standard output, the table on the other. The native host may read the file's folder. Environment: as for tests/e2e/harness.mjs; DOPPLER_HOST should be an optimized build.
//
// loopback, messages: the native host. file: one that was dropped on a page. opfs: one that was downloaded, from the same host over
// loopback, into the origin private file system, which no network surpasses; then it is loaded as a dropped one.

import { execFile } from "node:child_process";
import { cp, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { isSoftware } from "../../extension/bench/report.js";
import { copyExtension, launch, residentBytes, ROOT, until } from "../e2e/harness.mjs";
import { printTable } from "./table.mjs";

/** @typedef {import("../e2e/harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */
/**
 * Seconds and bytes. `times`: see LoadTimes in engine/src/model/pieces.rs; `cpu`: processor time by kind of process; `resident`: most
 * memory of the host, of all renderers and of the GPU process together, one reading after the other.
 * @typedef {{
 *   way: string, cold: boolean, load_seconds: number, bytes_per_second: number, first_token_seconds: number, download_seconds?: number,
 *   decode_tokens_per_second: number, times: {read: number, write: number, device: number}, wasm_bytes: number,
 *   cpu: Record<string, number>, resident: Record<string, number>,
 * }} Load
 */

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ways: { type: "string", default: "loopback,messages,file,opfs" },
    cold: { type: "boolean", default: false },
    runs: { type: "string", default: "1" },
    tokens: { type: "string", default: "32" },
    json: { type: "boolean", default: false },
  },
});
if (positionals.length !== 1) throw new Error("Name one GGUF file.");
const file = resolve(positionals[0] ?? "");
const bytes = (await stat(file)).size;

/** What the model is asked once it is loaded. */
const CHAT = { messages: [{ role: "user", content: "Hi" }], temperature: 0, max_tokens: Number(options.tokens) };
const EMBEDDED = "spark-28m";
const OPFS_WORKER = "extension/bench/opfs-worker.js";

/** How each way comes to its model's id; `blocked`: whether loopback is. @type {Record<string, {id: (browser: Browser, page: Page) => Promise<string>, blocked?: boolean}>} */
const WAYS = {
  loopback: { id: hostId },
  messages: { id: hostId, blocked: true },
  file: { id: droppedId },
  opfs: { id: downloadedId },
};

/**
 * @param {Page} page
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<any>}
 */
const ask = (page, method, params = {}) => page.evaluate(([method, params]) => /** @type {any} */ (window).engine.request(method, params), /** @type {const} */ ([method, params]));

/**
 * The id of the file among the host's models.
 * @param {Browser} _
 * @param {Page} page
 */
async function hostId(_, page) {
  const { data, host } = await ask(page, "models.list");
  const found = data.find((/** @type {any} */ { name, source }) => source === "host" && name === basename(file));
  if (!found) throw new Error(`The native host does not offer ${file}: ${JSON.stringify(host)}`);
  return found.id;
}

/**
 * @param {Page} page
 * @param {() => Promise<unknown>} add  what puts a file on the list of picked ones
 */
async function pickedId(page, add) {
  await add();
  /** @type {any} */
  let found;
  await until(async () => {
    found = (await ask(page, "models.list")).data.find((/** @type {any} */ { source }) => source === "picked");
    return found;
  }, "the file to be picked");
  return found.id;
}

/**
 * @param {Browser} browser
 * @param {Page} page
 */
async function droppedId(browser, page) {
  // As the popup takes it, but for loading it at once.
  await page.evaluate(async () => {
    const { add } = await import(/** @type {any} */ ("/extension/shared/picked.js"));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", async (event) => {
      event.preventDefault();
      // Without a handle that lives the browser asks for the permission again.
      const handles = await Promise.all([...event.dataTransfer?.items ?? []].map((item) => /** @type {any} */ (item).getAsFileSystemHandle()));
      Object.assign(window, { handles });
      await add(handles);
    });
  });
  const cdp = await browser.context.newCDPSession(page);
  const data = { items: [], files: [file], dragOperationsMask: 1 };
  return pickedId(page, async () => {
    for (const type of /** @type {const} */ (["dragEnter", "dragOver", "drop"])) await cdp.send("Input.dispatchDragEvent", { type, x: 200, y: 300, data });
  });
}

/** Seconds of the last download. */
let downloadSeconds = NaN;

/**
 * @param {Browser} browser
 * @param {Page} page
 */
async function downloadedId(browser, page) {
  const id = await hostId(browser, page);
  const ask = (/** @type {string} */ method) => browser.inOffscreen(`chrome.runtime.sendMessage({ to: "background", method: "${method}", params: { id: "${id}" } })`);
  const { base, token, files: [{ path }] } = (await ask("models.open")).done;
  const name = basename(file);
  const request = { url: base + path, headers: { authorization: `Bearer ${token}` }, name };
  const begin = performance.now();
  const written = await page.evaluate(({ script, request }) => new Promise((resolve, reject) => {
    const worker = new Worker(script, { type: "module" });
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(request);
  }), { script: `/${OPFS_WORKER}`, request });
  downloadSeconds = (performance.now() - begin) / 1000;
  if (written !== bytes) throw new Error(`${written} of ${bytes} bytes were downloaded: is there enough room for another ${(bytes / 1e9).toFixed(1)} GB?`);
  await ask("models.close");
  return pickedId(page, () => page.evaluate(async (name) => {
    const { add } = await import(/** @type {any} */ ("/extension/shared/picked.js"));
    await add([await (await navigator.storage.getDirectory()).getFileHandle(name)]);
  }, name));
}

/** Lets the system forget what it keeps of a file in memory. @param {string} path */
const forget = (path) => promisify(execFile)("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"]);

/**
 * Files of the browser's own that are as large as the model.
 * @param {Browser} browser
 */
async function ownCopies(browser) {
  const entries = await readdir(browser.profile, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const sizes = await Promise.all(files.map((path) => stat(path).then(({ size }) => size, () => 0)));
  return files.filter((_, i) => sizes[i] === bytes);
}

/**
 * Watches processes until it is stopped.
 * @param {Browser} browser
 */
async function watch(browser) {
  /** @type {Record<string, number>} */
  const resident = {};
  const processes = async () => (await browser.cdp.send("SystemInfo.getProcessInfo")).processInfo;
  const seconds = async () => {
    /** @type {Record<string, number>} */
    const sums = {};
    for (const { type, cpuTime } of await processes()) sums[type.toLowerCase()] = (sums[type.toLowerCase()] ?? 0) + cpuTime;
    for (const pid of await browser.hosts()) {
      // utime and stime in hundredths of a second, behind the name in parentheses.
      const fields = (await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")).split(") ").at(-1)?.split(" ") ?? [];
      sums.host = (sums.host ?? 0) + (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100;
    }
    return sums;
  };
  const before = await seconds();
  let watching = true;
  const sampling = (async () => {
    while (watching) {
      const named = [...(await processes()).map(({ type, id }) => ({ type: type.toLowerCase(), id })), ...(await browser.hosts()).map((id) => ({ type: "host", id }))];
      /** @type {Record<string, number>} */
      const now = {};
      for (const { type, id } of named) {
        now[type] = (now[type] ?? 0) + await residentBytes(id);
      }
      for (const [type, value] of Object.entries(now)) resident[type] = Math.max(resident[type] ?? 0, value);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  })();
  // Its failure is told when it is stopped.
  sampling.catch(() => {});
  return async () => {
    watching = false;
    await sampling;
    const after = await seconds();
    return { resident, cpu: Object.fromEntries(Object.entries(after).map(([type, value]) => [type, value - (before[type] ?? 0)])) };
  };
}

/**
 * Times one load of a model that is not loaded.
 * @param {Browser} browser
 * @param {Page} page
 * @param {string} id
 * @param {{way: string, cold: boolean}} how
 * @returns {Promise<Load>}
 */
async function load(browser, page, id, how) {
  await ask(page, "models.choose", { id: EMBEDDED });
  if (how.cold) for (const path of [file, ...await ownCopies(browser)]) await forget(path);
  const stop = await watch(browser);
  const load_seconds = await page.evaluate(async (id) => {
    const begin = performance.now();
    await /** @type {any} */ (window).engine.request("models.choose", { id });
    return (performance.now() - begin) / 1000;
  }, id);
  const { resident, cpu } = await stop();
  const { timings, usage } = await ask(page, "chat.completions", CHAT);
  if (usage.completion_tokens === 0) throw new Error("The model answered nothing.");
  const { transport, load: { times, wasm_bytes } } = await ask(page, "engine.status");
  if (transport !== undefined && transport !== null && transport !== how.way && how.way !== "opfs") throw new Error(`The bytes came by ${transport}, not by ${how.way}.`);
  return {
    ...how, load_seconds, bytes_per_second: bytes / load_seconds, first_token_seconds: load_seconds + timings.first_token_ms / 1000,
    decode_tokens_per_second: timings.decode_tokens_per_second, times, wasm_bytes, cpu, resident,
  };
}

/**
 * A copy of the extension with what only measuring needs.
 * @param {boolean} blocked  whether the loopback interface is, as some software does it
 */
async function extensionFor(blocked) {
  const folder = await copyExtension();
  await cp(join(ROOT, "tests/bench/opfs-worker.js"), join(folder, OPFS_WORKER));
  if (blocked) {
    const path = join(folder, "manifest.json");
    const manifest = JSON.parse(await readFile(path, "utf8"));
    manifest.content_security_policy.extension_pages = manifest.content_security_policy.extension_pages.replace(" http://127.0.0.1:*", "");
    await writeFile(path, JSON.stringify(manifest));
  }
  return folder;
}

/** The GPU and the browser, once known. @type {any} */
let device;

/**
 * All loads on one way, in a browser of its own.
 * @param {string} way
 * @param {(load: Load) => void} done
 */
async function measure(way, done) {
  const { id: find, blocked = false } = WAYS[way] ?? (() => { throw new Error(`There is no way ${way}, but ${Object.keys(WAYS).join(", ")}.`); })();
  const browser = await launch({ host: dirname(file), extension: await extensionFor(blocked), limited: false });
  try {
    const page = await browser.openOwn("options/options.html");
    await page.evaluate(async () => {
      const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
      /** @type {any} */ (window).engine = await connectEngine();
    });
    await ask(page, "models.choose", { id: EMBEDDED });
    device ??= { adapter: (await ask(page, "engine.status")).adapter, browser: await page.evaluate(() => navigator.userAgent) };
    const id = await find(browser, page);
    const runs = [...(options.cold ? [true] : []), ...Array.from({ length: Number(options.runs) }, () => false)];
    for (const cold of runs) {
      const result = await load(browser, page, id, { way, cold });
      done(way === "opfs" ? { ...result, download_seconds: downloadSeconds } : result);
    }
  } finally {
    await browser.close();
  }
}

const megabytes = (/** @type {number | undefined} */ value) => (value === undefined ? "" : `${(value / 1e6).toFixed(0)}`);
const seconds = (/** @type {number | undefined} */ value) => (value === undefined ? "" : value.toFixed(2));

/** Columns of the table. @type {[string, (load: Load) => string][]} */
const COLUMNS = [
  ["way", ({ way }) => way],
  ["cache", ({ cold }) => (cold ? "cold" : "warm")],
  ["download s", ({ download_seconds }) => seconds(download_seconds)],
  ["load s", ({ load_seconds }) => seconds(load_seconds)],
  ["GB/s", (load) => (load.bytes_per_second / 1e9).toFixed(3)],
  ["first token s", ({ first_token_seconds, download_seconds = 0 }) => seconds(first_token_seconds + download_seconds)],
  ["waiting: file", ({ times }) => seconds(times.read)],
  ["device", ({ times }) => seconds(times.device)],
  ["handing over", ({ times }) => seconds(times.write)],
  ["wasm MB", ({ wasm_bytes }) => megabytes(wasm_bytes)],
  ["host MB", ({ resident }) => megabytes(resident.host)],
  ["renderers MB", ({ resident }) => megabytes(resident.renderer)],
  ["cpu s: host", ({ cpu }) => seconds(cpu.host)],
  ["network", ({ cpu }) => seconds(cpu["network.mojom.networkservice"])],
  ["renderers", ({ cpu }) => seconds(cpu.renderer)],
  ["gpu", ({ cpu }) => seconds(cpu.gpu)],
  ["browser", ({ cpu }) => seconds(cpu.browser)],
  ["decode/s", (load) => load.decode_tokens_per_second.toFixed(1)],
];

/** @type {Load[]} */
const loads = [];
for (const way of options.ways.split(",")) {
  const done = (/** @type {Load} */ load) => {
    loads.push(load);
    console.error(`${load.way}, ${load.cold ? "cold" : "warm"}: ${load.load_seconds.toFixed(2)} s`);
  };
  // The other ways are worth knowing all the same.
  await measure(way, done).catch((error) => {
    console.error(`${way}: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  });
}
if (loads.length === 0) process.exit();
const print = options.json ? console.error : console.log;
print(`${basename(file)}, ${(bytes / 1e9).toFixed(2)} GB; ${device.adapter.description} (${device.adapter.vendor}); ${device.browser}`);
printTable([COLUMNS.map(([heading]) => heading), ...loads.map((load) => COLUMNS.map(([, text]) => text(load)))], print);
if (options.json) console.log(JSON.stringify({ file: basename(file), bytes, ...device, loads }, null, 1));
if (isSoftware(device)) console.error("\nWARNING: the adapter is a software one, a program on the CPU. These figures say nothing of the speed on a GPU.");
