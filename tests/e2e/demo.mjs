// The demonstration behind `cargo xtask demo`: a page asks through window.doppler, then the popup holds a conversation.
//
// Environment: DOPPLER_CHROME or CHROME the browser; HEADLESS=1 shows no window; DOPPLER_OUT the folder for the screenshots (by
// default target/demo). With a window the browser stays open until it is closed.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { answerPrompt, launch, ROOT, until } from "./harness.mjs";

/** @typedef {import("playwright-core").Page} Page */

const out = process.env.DOPPLER_OUT ?? join(ROOT, "target/demo");
const headless = process.env.HEADLESS !== "0";
/** Software rendering compiles every shader on the CPU: minutes, not seconds. */
const PATIENCE = 300_000;

const QUESTIONS = ["Who are you?", "What is the capital of Norway?"];
const CONVERSATION = ["What is 17 + 25?", "Sort these words: pear, apple, fig"];

const say = (/** @type {string} */ text) => process.stdout.write(text);

/**
 * Prints text as it grows in an element, until `done`.
 * @param {() => Promise<string>} read
 * @param {() => Promise<boolean>} done
 */
async function follow(read, done) {
  let shown = 0;
  for (let last = false; ; ) {
    const text = await read();
    if (text.length > shown) say(text.slice(shown));
    shown = Math.max(shown, text.length);
    if (last) break;
    last = await done();
    if (!last) await new Promise((resolve) => setTimeout(resolve, 30));
  }
  say("\n");
}

await mkdir(out, { recursive: true });
say("Starting the browser with the extension ...\n");
const browser = await launch({ headless, limited: false });
try {
  const page = await browser.open(`${browser.localhost}/demo.html`);
  await page.setViewportSize({ width: 900, height: 720 });
  for (const [index, question] of QUESTIONS.entries()) {
    say(`\n[page] ${question}\n`);
    await page.fill("#question", question);
    const [prompt] = await Promise.all([index === 0 ? browser.context.waitForEvent("page") : undefined, page.click("#send")]);
    if (prompt) {
      await prompt.locator("#session[aria-disabled=false]").waitFor();
      await prompt.screenshot({ path: join(out, "permission.png") });
      await answerPrompt(prompt, "session");
    }
    await page.waitForFunction(() => document.getElementById("answer")?.textContent || document.getElementById("answer")?.ariaBusy === "false", undefined, { timeout: PATIENCE });
    await follow(
      async () => await page.locator("#answer").textContent() ?? "",
      async () => await page.locator("#answer").getAttribute("aria-busy") === "false",
    );
    say(`       ${await page.locator("#figures").textContent()}\n`);
    if (!await page.locator("#figures").textContent()) throw new Error("The page got no answer.");
  }
  await page.screenshot({ path: join(out, "page.png") });

  const popup = await browser.openOwn("popup/popup.html");
  await popup.setViewportSize({ width: 420, height: 600 });
  await popup.locator("#input").waitFor();
  for (const [index, question] of CONVERSATION.entries()) {
    say(`\n[popup] ${question}\n`);
    await popup.fill("#input", question);
    await popup.press("#input", "Enter");
    const answer = popup.locator("#messages .answer .text").nth(index);
    await answer.waitFor({ timeout: PATIENCE });
    await follow(
      async () => await answer.innerText(),
      async () => await popup.locator("#stop").isHidden(),
    );
    say(`       ${await popup.locator("#messages .answer .stats").nth(index).textContent()}\n`);
  }
  await popup.screenshot({ path: join(out, "popup.png") });

  const adapter = await popup.evaluate(async () => {
    const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
    const engine = await connectEngine();
    const { adapter } = await engine.request("engine.status");
    engine.close();
    return [adapter?.description, adapter?.vendor].filter(Boolean).join(", ");
  });
  say(`\nAdapter: ${adapter || "unknown"}\nScreenshots: ${out}\n`);

  if (!headless) {
    say("Close the browser window to end.\n");
    await until(() => browser.context.pages().length === 0, "the browser to be closed", Infinity);
  }
} finally {
  await browser.close();
}
