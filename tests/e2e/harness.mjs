// Drives the real extension in a real Chromium. One browser per test file.
//
// Environment: DOPPLER_CHROME (or CHROME) the browser's binary; DOPPLER_CHROME_FLAGS further flags, space separated, e.g. for a
// machine with a GPU; DOPPLER_EXTENSION the unpacked extension, by default this repository; DOPPLER_HEADED=1 shows the windows.

import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { execFile } from "node:child_process";
import { chromium } from "playwright-core";
import { PATIENCE, until, watchCalls, within } from "./waits.mjs";

export { until, within } from "./waits.mjs";

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {import("playwright-core").CDPSession} CDPSession */

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);
const PAGES = fileURLToPath(new URL("pages", import.meta.url));
const SCRIPTED_WORKER = fileURLToPath(new URL("fixtures/scripted-worker.js", import.meta.url));
const SHORT_LIMITS = fileURLToPath(new URL("fixtures/short-limits.js", import.meta.url));

/** The browser under test. */
export const CHROME = process.env.DOPPLER_CHROME ?? process.env.CHROME
  ?? ["/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser"].find(existsSync) ?? "chromium";

/** The native host, built by `cargo build -p doppler-host`. */
const HOST = process.env.DOPPLER_HOST ?? join(ROOT, "target/debug/doppler-host");

const FLAGS = [
  "--enable-unsafe-webgpu",
  "--no-first-run",
  "--disable-sync",
  "--disable-background-networking",
  "--disable-component-update",
  // Tabs in the background answer as fast as the one in front.
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
];

const TYPES = /** @type {Record<string, string>} */ ({ ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css" });

/**
 * Serves tests/e2e/pages on the loopback interface: `localhost` and `127.0.0.1` are two origins.
 * @param {Record<string, {headers?: Record<string, string>, body: string}>} [extra]  further pages by path
 */
export async function servePages(extra = {}) {
  const server = createServer(async (request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const made = extra[path];
    if (made) {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8", ...made.headers }).end(made.body);
      return;
    }
    try {
      const body = await readFile(join(PAGES, path === "/" ? "blank.html" : path.replaceAll("..", "")));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/html; charset=utf-8" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    localhost: `http://localhost:${port}`,
    loopback: `http://127.0.0.1:${port}`,
    close: () => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(resolve);
    }),
  };
}

/** Folders made by `copyExtension`. @type {Set<string>} */
const copies = new Set();

/**
 * A copy of the extension in a temporary folder, which `launch` removes in the end.
 * @param {(path: string) => boolean} [wanted]  which of its files, by their path in `extension/`
 * @returns {Promise<string>}
 */
export async function copyExtension(wanted = () => true) {
  const folder = await mkdtemp(join(tmpdir(), "doppler-extension-"));
  copies.add(folder);
  const from = join(ROOT, "extension");
  const skip = ["protocol", "ui", "worker", "node_modules"];
  await cp(join(ROOT, "manifest.json"), join(folder, "manifest.json"));
  await cp(from, join(folder, "extension"), {
    recursive: true,
    filter: (source) => source === from || (!skip.includes(relative(from, source)) && wanted(relative(from, source))),
  });
  return folder;
}

/**
 * A copy of the extension whose engine is tests/e2e/fixtures/scripted-worker.js: for tests of the message path, where what
 * the engine says and when must be known exactly. A worker that is silent is ended after 2 seconds.
 */
export async function scriptedExtension() {
  const folder = await copyExtension((path) => path !== "models" && path !== "pkg/worker");
  await cp(SCRIPTED_WORKER, join(folder, "extension/offscreen/worker.js"));
  await cp(SHORT_LIMITS, join(folder, "extension/offscreen/limits.js"));
  return folder;
}

/**
 * @typedef {Awaited<ReturnType<typeof launch>>} Browser
 */

/**
 * Starts a browser with the extension, and a server of test pages.
 * @param {{extension?: string, pages?: Parameters<typeof servePages>[0], flags?: string[], headless?: boolean, host?: string, limited?: boolean}} [options]
 *   `extension`: folder of the unpacked extension, by default this repository; a copy is removed on close;
 *   `host`: a folder of models for the native host, which is installed into the browser's profile;
 *   `limited`: calls of pages end after two minutes, which is too short for what measures
 */
export async function launch({ extension = process.env.DOPPLER_EXTENSION ?? ROOT, pages = {}, flags = [], headless = process.env.DOPPLER_HEADED !== "1", host, limited = true } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "doppler-profile-"));
  /** The native host's settings are in the profile as well. */
  const env = { ...process.env, XDG_CONFIG_HOME: join(profile, "config"), XDG_DATA_HOME: join(profile, "data") };
  if (host) await installHost(profile, host, env);
  const site = await servePages(pages);
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROME,
    headless,
    timeout: 2 * PATIENCE,
    chromiumSandbox: process.getuid?.() !== 0,
    ignoreDefaultArgs: ["--disable-extensions"],
    viewport: null,
    env,
    args: [
      `--disable-extensions-except=${extension}`,
      `--load-extension=${extension}`,
      ...FLAGS, ...flags, ...(process.env.DOPPLER_CHROME_FLAGS?.split(/\s+/).filter(Boolean) ?? []),
    ],
  });
  context.setDefaultTimeout(PATIENCE);

  const browser = context.browser();
  const [blank] = context.pages();
  if (!browser || !blank) throw new Error("The browser cannot be controlled as a whole.");
  const cdp = await browser.newBrowserCDPSession();
  if (limited) watchCalls(blank, cdp);
  const id = await extensionId(context);
  const own = `chrome-extension://${id}`;

  const targets = async () => (await cdp.send("Target.getTargets")).targetInfos;
  const offscreenTarget = async () => (await targets()).find(({ url }) => url === `${own}/extension/offscreen/offscreen.html`);
  const workerTarget = async () => (await targets()).find(({ type, url }) => type === "service_worker" && url.startsWith(own));
  /** When a target's global object was made, which tells one instance of a worker from the next; NaN: it does not answer. */
  const birth = (/** @type {string} */ targetId) => evaluateIn(cdp, targetId, "performance.timeOrigin", 1000).catch(() => NaN);

  return {
    context,
    cdp,
    id,
    /** The browser's own folder. */
    profile,
    ...site,
    /** Opens a page and waits until it has loaded. */
    async open(/** @type {string} */ url) {
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    /** Opens one of the extension's own pages, e.g. "options/options.html". */
    async openOwn(/** @type {string} */ path) {
      const page = await context.newPage();
      await page.goto(`${own}/extension/${path}`);
      return page;
    },
    targets,
    offscreenTarget,
    workerTarget,
    /** Ends the service worker as Chrome does when it is idle, only without asking. */
    async killServiceWorker() {
      const target = await workerTarget();
      if (!target) return false;
      const born = await birth(target.targetId);
      // Told again until it is gone: one that is just starting does not hear it. Another instance may be there already, under
      // the same target's id.
      await until(async () => {
        await cdp.send("Target.closeTarget", { targetId: target.targetId }).catch(() => {});
        if ((await workerTarget())?.targetId !== target.targetId) return true;
        const now = await birth(target.targetId);
        return !Number.isNaN(now) && now !== born;
      }, "the service worker to end");
      return true;
    },
    /** Closes the offscreen document, and the engine with it, as a crash of its process would. */
    async killOffscreen() {
      const target = await offscreenTarget();
      if (!target) return false;
      await cdp.send("Target.closeTarget", { targetId: target.targetId });
      await until(async () => (await offscreenTarget())?.targetId !== target.targetId, "the offscreen document to end");
      return true;
    },
    /** Ends the engine's worker as an error of its program does that no request is to blame for. A worker cannot be reached but from its document. */
    async killWorker() {
      const target = await offscreenTarget();
      if (!target) return false;
      return inTarget(cdp, target.targetId, async (call) => {
        const { result: { objectId: prototypeObjectId } } = await call("Runtime.evaluate", { expression: "Worker.prototype" });
        const { objects: { objectId } } = await call("Runtime.queryObjects", { prototypeObjectId });
        const functionDeclaration = `function () {
          const error = { message: "ended by a test", cancelable: true };
          return [...this].filter((worker) => worker.onerror?.call && !worker.dispatchEvent(new ErrorEvent("error", error))).length > 0;
        }`;
        const { result } = await call("Runtime.callFunctionOn", { objectId, functionDeclaration, returnByValue: true });
        return /** @type {boolean} */ (result.value);
      });
    },
    /** Kills the GPU process, and every device in it; Chrome starts another. */
    async killGpuProcess() {
      const { processInfo } = await cdp.send("SystemInfo.getProcessInfo");
      const gpu = processInfo.find(({ type }) => type === "GPU");
      if (!gpu) throw new Error("There is no GPU process.");
      process.kill(gpu.id, "SIGKILL");
    },
    /** How many workers run besides the engine's: those that read for it. Chromium tells no names, and 148 no parents. */
    async readers() {
      const workers = (await targets()).filter(({ type }) => type === "worker");
      return workers.length - 1;
    },
    /** Closes whatever pages a test left open. */
    async closePages() {
      await Promise.all(context.pages().filter((page) => page !== blank).map((page) => page.close()));
    },
    /** Native hosts that run. */
    hosts: () => hostProcesses(profile),
    /** Evaluates an expression in the offscreen document. */
    async inOffscreen(/** @type {string} */ expression) {
      const target = await offscreenTarget();
      if (!target) throw new Error("There is no offscreen document.");
      return evaluateIn(cdp, target.targetId, expression);
    },
    /**
     * Evaluates in the isolated world of a page's bridge: what a page's process could do if it were taken over.
     * @param {Page} page
     * @param {string} expression
     */
    async inBridge(page, expression) {
      const session = await context.newCDPSession(page);
      /** @type {number | undefined} */
      let contextId;
      session.on("Runtime.executionContextCreated", ({ context: { id, origin } }) => { if (origin === own) contextId = id; });
      await session.send("Runtime.enable");
      const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, contextId, awaitPromise: true, returnByValue: true });
      await session.detach();
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description);
      return result.value;
    },
    /**
     * Clicks a button of the page and, where the extension asks the user, an answer in its window.
     * @param {Page} page  a page with a button that calls doppler.permissions.request(), like pages/blank.html
     * @param {"once" | "session" | "always" | "block" | "close"} [answer]
     * @returns {Promise<string>}  the state the page got
     */
    async grant(page, answer = "always") {
      await answerPrompt(await this.ask(page), answer);
      return answerOf(page);
    },
    /**
     * Clicks the page's button and waits for the permission window.
     * @param {Page} page
     */
    async ask(page) {
      const [prompt] = await Promise.all([context.waitForEvent("page"), page.click("#request")]);
      return prompt;
    },
    async close() {
      await within(context.close(), "the browser to close");
      await site.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
      if (copies.has(extension)) await rm(extension, { recursive: true, force: true });
    },
  };
}

/**
 * @param {Page} prompt  the permission window
 * @param {"once" | "session" | "always" | "block" | "close"} answer
 */
export async function answerPrompt(prompt, answer) {
  if (answer === "close") return prompt.close();
  await prompt.locator(`#${answer}[aria-disabled=false]`).click();
  if (answer === "always") await prompt.locator("#confirm[aria-disabled=false]").click();
  await until(() => prompt.isClosed(), "the permission window to close");
}

/** Resident bytes of a process; 0: it has ended, or the system has no /proc. @param {string | number} pid */
export async function residentBytes(pid) {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return 1024 * Number(/^VmRSS:\s*(\d+) kB/m.exec(status)?.[1] ?? 0);
}

/**
 * @param {Page} page  one like pages/blank.html, after a click on its button
 * @returns {Promise<string>}  the state doppler.permissions.request() brought, or the name of its error
 */
export async function answerOf(page) {
  await page.waitForFunction(() => /** @type {any} */ (window).granted !== undefined);
  return page.evaluate(() => /** @type {any} */ (window).granted);
}

/**
 * Installs the native host for a browser of this profile, and allows it a folder.
 * @param {string} profile
 * @param {string} models
 * @param {NodeJS.ProcessEnv} env
 */
async function installHost(profile, models, env) {
  await run(HOST, ["install", "--user-data-dir", profile], { env });
  await run(HOST, ["models", "add", models], { env });
}

/**
 * Native hosts that were started from a profile.
 * @param {string} profile
 * @returns {Promise<number[]>}
 */
async function hostProcesses(profile) {
  const commands = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(async (pid) => {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    return command.startsWith(profile) ? [Number(pid)] : [];
  });
  return (await Promise.all(commands)).flat();
}

/** @param {import("playwright-core").BrowserContext} context */
async function extensionId(context) {
  const worker = context.serviceWorkers()[0] ?? await context.waitForEvent("serviceworker");
  return new URL(worker.url()).host;
}

/**
 * Evaluates in a target Playwright does not show, such as the offscreen document.
 * @param {CDPSession} cdp  of the browser
 * @param {string} targetId
 * @param {string} expression
 * @param {number} [limit]  ms
 */
async function evaluateIn(cdp, targetId, expression, limit) {
  const { result, exceptionDetails } = await inTarget(cdp, targetId, (call) =>
    call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true }), limit);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description);
  return result.value;
}

/**
 * Calls methods of the protocol of such a target.
 * @template T
 * @param {CDPSession} cdp  of the browser
 * @param {string} targetId
 * @param {(call: (method: string, params?: object) => Promise<any>) => Promise<T>} work
 * @param {number} [limit]  ms for each call
 * @returns {Promise<T>}
 */
async function inTarget(cdp, targetId, work, limit) {
  const { sessionId } = await cdp.send("Target.attachToTarget", { targetId, flatten: false });
  /** @type {Map<number, {resolve: (message: any) => void, reject: (error: Error) => void}>} */
  const calls = new Map();
  const receive = (/** @type {{sessionId: string, message: string}} */ event) => {
    if (event.sessionId !== sessionId) return;
    const message = JSON.parse(event.message);
    calls.get(message.id)?.resolve(message);
  };
  const end = (/** @type {{sessionId: string}} */ event) => {
    if (event.sessionId !== sessionId) return;
    for (const { reject } of calls.values()) reject(new Error("The target has ended."));
  };
  cdp.on("Target.receivedMessageFromTarget", receive);
  cdp.on("Target.detachedFromTarget", end);
  const call = async (/** @type {string} */ method, params = {}) => {
    const id = calls.size + 1;
    const answer = new Promise((resolve, reject) => calls.set(id, { resolve, reject }));
    const message = JSON.stringify({ id, method, params });
    const [{ result, error }] = await within(
      Promise.all([answer, cdp.send("Target.sendMessageToTarget", { sessionId, message })]), `a target to do ${message}`, limit);
    if (error) throw new Error(error.message);
    return result;
  };
  try {
    return await work(call);
  } finally {
    cdp.off("Target.receivedMessageFromTarget", receive);
    cdp.off("Target.detachedFromTarget", end);
    // It may have ended.
    await cdp.send("Target.detachFromTarget", { sessionId }).catch(() => {});
  }
}
