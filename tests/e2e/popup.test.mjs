// The popup chat. No engine is needed: the worker is scripted, so that what arrives when is known.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { launch, scriptedExtension, until } from "./harness.mjs";

/** @typedef {import("./harness.mjs").Browser} Browser */
/** @typedef {import("playwright-core").Page} Page */

const T = { timeout: 60_000 };
const ANSWER = ".answer:last-child";

/** @type {Browser} */
let browser;
before(async () => {
  browser = await launch({ extension: await scriptedExtension() });
});
after(() => browser.close());
// Every test begins with a new offscreen document and without conversations.
afterEach(async () => {
  const options = await browser.openOwn("options/options.html");
  for (const page of browser.context.pages()) if (page !== options) await page.close();
  await browser.killOffscreen();
  await options.evaluate(() => new Promise((resolve) => {
    localStorage.clear();
    indexedDB.deleteDatabase("doppler").onsuccess = resolve;
  }));
});

/** Opens the popup in a tab of the popup's size, and waits until it knows what was open last. */
async function open() {
  const page = await browser.openOwn("popup/popup.html");
  await page.setViewportSize({ width: 400, height: 600 });
  await page.locator("#welcome:not([hidden]), .question").first().waitFor();
  return page;
}

/** @param {Page} page @param {object} script  see fixtures/scripted-worker.js */
async function ask(page, script) {
  await page.fill("#input", JSON.stringify(script));
  // Enter does nothing while an answer is being written.
  await until(async () => {
    await page.press("#input", "Enter");
    return await page.inputValue("#input") === "";
  }, "the question to be taken");
}

/** @param {Page} page */
const text = (page) => page.locator(`${ANSWER} .text`).innerText();
/** @param {Page} page */
const finished = (page) => page.locator("#send").waitFor();

/** @param {number} tokens */
const expected = (tokens) => Array.from({ length: tokens }, (_, index) => `t${index}`).join(" ");

test("an answer appears while it is written, and its speed when it is there", T, async () => {
  const page = await open();
  await ask(page, { tokens: 300, every: 10 });
  /** @type {Set<number>} */
  const lengths = new Set();
  while (await page.locator("#stop").isVisible()) {
    if (await page.locator(`${ANSWER} .text`).count()) lengths.add((await text(page)).length);
  }
  assert.ok(lengths.size > 5, `seen at ${lengths.size} lengths`);
  assert.equal(await text(page), expected(300));
  assert.match(await page.locator(`${ANSWER} .stats`).innerText(), /first after [\d.]+ m?s/);
  assert.equal(await page.locator("#model").innerText(), "Scripted model");
  assert.equal(await page.locator(".question").count(), 1);
});

test("stop keeps the text so far, regenerate replaces it", T, async () => {
  const page = await open();
  await ask(page, { tokens: 1000, every: 10 });
  await page.locator(`${ANSWER} .text`, { hasText: "t3" }).waitFor();
  await page.locator("#stop").click();
  await finished(page);
  const stopped = await text(page);
  assert.ok(expected(1000).startsWith(stopped));
  assert.match(await page.locator(`${ANSWER} .problem`).innerText(), /Stopped/);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "input", "the focus is not lost with the button");

  await page.locator(`${ANSWER} .again`).click();
  await page.locator("#stop").waitFor();
  await page.locator(`${ANSWER} .text`, { hasText: "t1" }).waitFor();
  await page.keyboard.press("Escape");
  await finished(page);
  assert.equal(await page.locator(".answer").count(), 1);
  assert.equal(await page.locator(".question").count(), 1);
});

test("an answer goes on while the popup is closed, and in every popup that is open", T, async () => {
  const first = await open();
  await ask(first, { tokens: 400, every: 10 });
  await first.locator(`${ANSWER} .text`, { hasText: "t5" }).waitFor();
  await first.close();
  const second = await open();
  assert.ok(await second.locator("#stop").isVisible(), "still being written");
  assert.ok((await text(second)).startsWith("t0 t1 t2"));
  const third = await open();
  for (const page of [second, third]) {
    await finished(page);
    assert.equal(await text(page), expected(400));
  }
});

test("the offscreen document ends in mid-answer: the answer goes on where it was, and is kept when that happens too often", T, async () => {
  const page = await open();
  await ask(page, { tokens: 500, every: 10 });
  await page.locator(`${ANSWER} .text`, { hasText: "t120" }).waitFor();
  await browser.killOffscreen();
  await page.locator(`${ANSWER} .text`, { hasText: "t300" }).waitFor();
  await finished(page);
  assert.equal(await text(page), expected(500));
  assert.equal(await page.locator(".question").count(), 1);

  await ask(page, { tokens: 1500, every: 10 });
  for (const reached of ["t120", "t300", "t480"]) {
    await page.locator(`${ANSWER} .text`, { hasText: reached }).waitFor();
    await browser.killOffscreen();
  }
  await page.locator(`${ANSWER} .problem`, { hasText: "cut off" }).waitFor();
  assert.ok(expected(1500).startsWith(await text(page)));
  assert.ok((await text(page)).startsWith("t0 t1"), "at most about a second is lost");
  await page.locator(`${ANSWER} .retry`).click();
  await page.locator("#stop").waitFor();
});

test("an answer that had not begun when the offscreen document ended comes by itself, once", T, async () => {
  const page = await open();
  await ask(page, { tokens: 3, every: 1500 });
  await page.locator("#stop").waitFor();
  await browser.killOffscreen();
  await page.locator(`${ANSWER} .text`, { hasText: "t2" }).waitFor();
  await finished(page);
  assert.equal(await text(page), expected(3));
  assert.equal(await page.locator(".question").count(), 1);
});

test("conversations: a new one, back to the old one, delete", T, async () => {
  const page = await open();
  await ask(page, { chunks: ["first answer"] });
  await page.locator(`${ANSWER} .text`, { hasText: "first answer" }).waitFor();
  await page.keyboard.press("Control+Shift+O");
  await page.locator("#welcome").waitFor();
  await ask(page, { chunks: ["second answer"] });
  await page.locator(`${ANSWER} .text`, { hasText: "second answer" }).waitFor();
  await ask(page, { chunks: ["third answer"] });
  await page.locator(`${ANSWER} .text`, { hasText: "third answer" }).waitFor();
  assert.equal(await page.locator(".answer").count(), 2);

  await page.click("header [data-action=list]");
  const items = page.locator("#chat-list .open");
  await items.nth(1).waitFor();
  assert.equal(await items.count(), 2);
  assert.equal(await items.first().getAttribute("aria-current"), "true");
  await items.nth(1).click();
  await page.locator(`${ANSWER} .text`, { hasText: "first answer" }).waitFor();

  await page.click("header [data-action=list]");
  const remove = page.locator("#chat-list .delete").nth(1);
  await remove.click();
  assert.equal(await items.count(), 2, "the first click only asks");
  await remove.click();
  await until(async () => await items.count() === 1, "the conversation to go");
  await page.keyboard.press("Escape");
  await page.locator("#welcome").waitFor();

  // The browser's storage has the rest.
  await browser.killOffscreen();
  const again = await open();
  await again.locator(`${ANSWER} .text`, { hasText: "third answer" }).waitFor();
});

test("errors are one sentence with a remedy", T, async () => {
  const page = await open();
  await ask(page, { error: { name: "OperationError", code: "x", message: "The GPU went away; try again." } });
  const problem = page.locator(`${ANSWER} .problem`);
  await problem.locator(".retry").waitFor();
  assert.match(await problem.innerText(), /^The GPU went away; try again\./);
  await problem.locator(".retry").click();
  await page.locator("#send").waitFor();
  await ask(page, { error: { name: "QuotaExceededError", code: "context_length_exceeded", message: "the prompt is too long", data: { requested: 9, quota: 8 } } });
  await problem.locator(".new-chat").waitFor();
  assert.match(await problem.innerText(), /^The prompt is too long\./);
  await problem.locator(".new-chat").click();
  await page.locator("#welcome").waitFor();

  await ask(page, { fatal: "the worker ran out of memory" });
  await problem.locator(".retry").waitFor();
  assert.match(await problem.innerText(), /^The engine stopped \(the worker ran out of memory\): ask again/);
  await ask(page, { chunks: ["alive"] });
  await page.locator(`${ANSWER} .text`, { hasText: "alive" }).waitFor();
});

test("Markdown is shown, and nothing in it is active", T, async () => {
  const page = await open();
  /** @type {string[]} */
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const hostile = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror=\"window.pwned = 2\">",
    "<svg onload=window.pwned=3><style>* { display: none }</style></svg>",
    "[link](javascript:window.pwned=4) [data](data:text/html,x) <javascript:window.pwned=5>",
    "[ref]\n\n[ref]: javascript:window.pwned=6 \"title\"",
    "![picture](https://example.com/track.png) ![inline](data:image/png;base64,AAAA)",
    "```html\n</code></pre><script>window.pwned = 7</script>\n```",
    "``` \"><img/src=x/onerror=window.pwned=8>\nx\n```",
    "[quote](https://example.com/\"onmouseover=window.pwned=9)",
    "<iframe src=\"https://example.com\"></iframe> <form action=https://example.com><input name=q></form>",
    "| <b>a</b> | b |\n| - | -: |\n| [x](vbscript:x) | **bold** |",
    "> ".repeat(400) + "deep",
  ].join("\n\n");
  await ask(page, { chunks: hostile.match(/[^]{1,9}/g), every: 1 });
  await page.locator("#stop").waitFor();
  await finished(page);
  const answer = page.locator(`${ANSWER} .text`);
  const found = await answer.evaluate((root) => ({
    pwned: /** @type {any} */ (window).pwned,
    tags: [...new Set([...root.querySelectorAll("*")].map((element) => element.localName))].sort(),
    handlers: [...root.querySelectorAll("*")].flatMap((element) => element.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style" || name === "src"),
    links: [...root.querySelectorAll("a")].map(({ href, rel, target }) => ({ href, rel, target })),
  }));
  assert.equal(found.pwned, undefined);
  assert.deepEqual(found.handlers, []);
  const known = ["a", "blockquote", "br", "button", "code", "div", "figcaption", "figure", "p", "pre", "span", "strong", "table", "td", "th", "tr"];
  assert.deepEqual(found.tags.filter((tag) => !known.includes(tag)), []);
  assert.deepEqual(found.links.map(({ href }) => href), ["https://example.com/track.png", "https://example.com/%22onmouseover=window.pwned=9"]);
  for (const { rel, target } of found.links) {
    assert.match(rel, /\bnoopener\b/);
    assert.equal(target, "_blank");
  }
  assert.ok((await answer.innerText()).includes("<script>window.pwned = 1</script>"), "raw HTML is shown as text");
  assert.deepEqual(requests.filter((url) => !url.startsWith("chrome-extension:")), []);
});

test("a table scrolls in a box of its own, and no word in it is broken", T, async () => {
  const page = await open();
  const table = "| Language | Typing | Memory management | First released | Compiles to |\n| - | - | - | - | - |\n| Python | dynamic | collected | 1991 | bytecode |\n| Rust | static | ownership | 2015 | machine code |\n";
  await ask(page, { chunks: [table] });
  await page.locator(`${ANSWER} .actions`).waitFor();
  const found = await page.locator(`${ANSWER} .table`).evaluate((box) => ({
    scrolls: box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === "auto",
    broken: [...box.querySelectorAll("th, td")].flatMap(({ firstChild }) => [...firstChild?.textContent?.matchAll(/\S+/g) ?? []].filter(({ 0: word, index }) => {
      const range = document.createRange();
      if (firstChild) range.setStart(firstChild, index);
      if (firstChild) range.setEnd(firstChild, index + word.length);
      return range.getClientRects().length !== 1;
    }).map(([word]) => word)),
  }));
  assert.deepEqual(found, { scrolls: true, broken: [] });
  const sideways = await page.locator("#scroller").evaluate((element) => element.scrollWidth - element.clientWidth);
  assert.equal(sideways, 0, "the conversation itself does not scroll sideways");
});

test("formulas are shown as formulas, copied as they were written, and nothing in them is active", T, async () => {
  const page = await open();
  await browser.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const source = "So \\(a_1 * b_2\\) and\n\n\\[\n\\frac{a}{b} \\, \\text{<img src=x onerror=\"window.pwned=1\">}\n\\]\n\ncost $5 and $10, \\(\\unknown{x}\\).";
  await ask(page, { chunks: source.match(/[^]{1,5}/g), every: 1 });
  await page.locator(`${ANSWER} .actions`).waitFor();
  const found = await page.locator(`${ANSWER} .text`).evaluate((root) => ({
    formulas: root.querySelectorAll("math").length,
    fractions: [...root.querySelectorAll("mfrac")].filter(({ namespaceURI }) => namespaceURI === "http://www.w3.org/1998/Math/MathML").length,
    foreign: [...root.querySelectorAll("math *")].filter(({ localName }) => !/^m[a-z]+$/.test(localName)).length,
    images: root.querySelectorAll("img").length,
    pwned: /** @type {any} */ (window).pwned,
    text: root.lastElementChild?.textContent,
  }));
  assert.deepEqual(found, { formulas: 2, fractions: 1, foreign: 0, images: 0, pwned: undefined, text: "cost $5 and $10, \\unknown{x}." });
  await page.locator(".actions .copy").click();
  await page.locator(".actions .copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), source);
});

test("a thought is open while it is thought, then folded, and not part of what is copied", T, async () => {
  const page = await open();
  await browser.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const thought = Array.from({ length: 60 }, (_, index) => `idea${index} `);
  await ask(page, { chunks: ["<thi", "nk>\n", ...thought, "\n</thi", "nk>\n\n", "The *answer*.", "\n\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>"], every: 20 });
  const details = page.locator(`${ANSWER} details.thought`);
  await page.locator(`${ANSWER} .thinking`, { hasText: "idea3" }).waitFor();
  assert.equal(await details.evaluate((element) => /** @type {HTMLDetailsElement} */ (element).open), true);
  assert.equal(await details.locator("summary").innerText(), "Thinking…");
  await page.locator(`${ANSWER} .actions`).waitFor();
  assert.equal(await details.evaluate((element) => /** @type {HTMLDetailsElement} */ (element).open), false);
  assert.match(await details.locator("summary").innerText(), /^Thought for /);
  assert.equal(await page.locator(`${ANSWER} .text em`).innerText(), "answer");
  assert.ok(!(await page.locator(`${ANSWER}`).innerText()).includes("think>"), "no marks are seen");
  const card = page.locator(`${ANSWER} figure`);
  assert.match(await card.innerText(), /Calls weather/);
  assert.match(await card.innerText(), /"city": "Oslo"/);
  await details.locator("summary").focus();
  await page.keyboard.press("Enter");
  assert.match(await details.innerText(), /idea0 idea1 .*idea59/);
  await page.locator(".actions .copy").click();
  await page.locator(".actions .copied").waitFor();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^The \*answer\*\.\n/);
});

test("without a GPU it says so in plain words, with one link to what helps", T, async () => {
  const page = await open();
  const error = { name: "NotSupportedError", code: "no_gpu", message: "no usable WebGPU adapter: noop support not compiled in, vulkan support not compiled in" };
  await ask(page, { status: { state: "failed", error }, error });
  await page.locator(`${ANSWER} .problem`).waitFor();
  assert.match(await page.locator(`${ANSWER} .problem`).innerText(), /^This browser gives pages no GPU\./);
  assert.equal(await page.locator("#detail").innerText(), "This browser gives pages no GPU");
  for (const place of ["header", ANSWER]) assert.ok(!(await page.locator(place).first().innerText()).includes("support not compiled in"), place);
  const links = page.locator("a[href$='help/no-gpu.html']:visible");
  assert.equal(await links.count(), 1);
  const [help] = await Promise.all([browser.context.waitForEvent("page"), links.click()]);
  await help.waitForLoadState();
  for (const system of ["Windows", "macOS", "Linux"]) await help.getByRole("heading", { name: system }).waitFor();
});

test("a model that does not fit is offered with the context that does, and an error looks like one", T, async () => {
  const page = await open();
  const error = { name: "QuotaExceededError", code: "out_of_memory", message: "the model needs 9 GB", data: { largest_context: 4096 } };
  await ask(page, { status: { state: "failed", id: "spark-28m", error }, error });
  const problem = page.locator(`${ANSWER} .problem`);
  await problem.getByRole("button", { name: "Load with 4096 tokens" }).waitFor();
  assert.equal(await page.locator("#detail").innerText(), "The model could not be loaded", "the sentence stands once");
  assert.ok(await problem.locator(".icon").isVisible());
  const [problemColor, caption] = await page.evaluate(() => [".answer:last-child .problem", "#keys"].map((selector) => getComputedStyle(/** @type {Element} */ (document.querySelector(selector))).color));
  assert.notEqual(problemColor, caption);
});

test("text from right to left: bullets are inside, columns are mirrored", T, async () => {
  const page = await open();
  await ask(page, { chunks: ["- مرحبا بالعالم\n- سطر ثان\n\n| الاسم | الفاكهة |\n| - | - |\n| آنا | مانجو |\n\nEnglish"] });
  await page.locator(`${ANSWER} .actions`).waitFor();
  const found = await page.locator(`${ANSWER} .text`).evaluate((root) => {
    const box = (/** @type {string} */ selector) => /** @type {Element} */ (root.querySelector(selector)).getBoundingClientRect();
    const list = /** @type {Element} */ (root.querySelector("ul"));
    return {
      list: getComputedStyle(list).direction,
      room: box("ul").right - box("li").right,
      mirrored: box("th:first-child").left > box("th:last-child").left,
      after: getComputedStyle(/** @type {Element} */ (root.lastElementChild)).direction,
    };
  });
  assert.deepEqual(found, { list: "rtl", room: 24, mirrored: true, after: "ltr" });
});

test("a thousand conversations: as many rows as are seen, and one formatter", T, async () => {
  const options = await browser.openOwn("options/options.html");
  await options.evaluate(() => new Promise((resolve) => {
    const opening = indexedDB.open("doppler");
    opening.onupgradeneeded = () => opening.result.createObjectStore("conversations", { keyPath: "id" });
    opening.onsuccess = () => {
      const transaction = opening.result.transaction("conversations", "readwrite");
      for (let index = 0; index < 1000; index += 1) {
        const messages = [{ id: `q${index}`, role: "user", content: `Question ${index}`, state: "done" }];
        transaction.objectStore("conversations").put({ id: `c${index}`, title: `Question ${index}`, created: index, updated: index * 1e6, messages });
      }
      transaction.oncomplete = () => {
        opening.result.close();
        resolve(undefined);
      };
    };
  }));
  const page = await browser.context.newPage();
  await page.addInitScript(() => {
    const { DateTimeFormat } = Intl;
    Object.assign(window, { made: 0 });
    Intl.DateTimeFormat = /** @type {any} */ (new Proxy(DateTimeFormat, { construct: (target, parameters) => {
      /** @type {any} */ (window).made += 1;
      return Reflect.construct(target, parameters);
    } }));
  });
  await page.goto(`chrome-extension://${browser.id}/extension/popup/popup.html`);
  await page.setViewportSize({ width: 400, height: 600 });
  await page.locator("#welcome:not([hidden]), .question").first().waitFor();
  await page.click("header [data-action=list]");
  const rows = page.locator("#chat-list li");
  await rows.nth(20).waitFor();
  const first = await rows.count();
  assert.ok(first <= 100, `${first} rows are built`);
  await page.locator("#chat-list").evaluate((list) => list.scrollTo(0, list.scrollHeight));
  await until(async () => await rows.count() > first, "more rows");
  assert.ok(await page.evaluate(() => /** @type {any} */ (window).made) <= 2, "one formatter for times and one for dates");
  assert.match(await rows.first().innerText(), /Question 999/);
});

test("a long question is folded until it is wanted", T, async () => {
  const page = await open();
  await ask(page, { chunks: ["short"], padding: Array(400).fill("word").join(" ") });
  await page.locator(`${ANSWER} .text`, { hasText: "short" }).waitFor();
  const height = () => page.locator(".question .text").evaluate((element) => element.getBoundingClientRect().height);
  assert.ok(await height() < 300);
  const button = page.getByRole("button", { name: "Show all" });
  await button.click();
  assert.ok(await height() > 300);
  await page.getByRole("button", { name: "Show less" }).click();
  assert.ok(await height() < 300);
});

test("a long paragraph keeps its nodes while it grows", T, async () => {
  const page = await open();
  await ask(page, { tokens: 3000, every: 1 });
  await page.locator(`${ANSWER} .text`, { hasText: "t1200 " }).waitFor();
  await page.locator(`${ANSWER} .text p`).evaluate((paragraph) => Object.assign(window, { first: paragraph.firstChild }));
  await page.locator(`${ANSWER} .actions`).waitFor();
  assert.equal(await text(page), expected(3000));
  assert.equal(await page.evaluate(() => /** @type {any} */ (window).first.isConnected), true);
});

test("a growing answer keeps its nodes: a selection in it survives", T, async () => {
  const page = await open();
  await ask(page, { chunks: ["First *paragraph*.\n\n", ...Array.from({ length: 100 }, (_, index) => `word${index} `)], every: 10 });
  await page.locator(`${ANSWER} .text`, { hasText: "word1 " }).waitFor();
  await page.locator(`${ANSWER} .text em`).evaluate((element) => getSelection()?.selectAllChildren(element));
  await finished(page);
  assert.equal(await page.evaluate(() => String(getSelection())), "paragraph");
});

test("code and answers are copied as they were written", T, async () => {
  const page = await open();
  await browser.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await ask(page, { chunks: ["Some **code**:\n\n```rust\nfn main() {}\n```\n"] });
  await page.locator("figure [data-action=copy]").click();
  await page.locator("figure .copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "fn main() {}");
  assert.equal(await page.locator("figure .language").innerText(), "rust");
  await page.locator(".actions .copy").click();
  await page.locator(".actions .copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "Some **code**:\n\n```rust\nfn main() {}\n```\n");
});

test("the end stays in sight unless the reader scrolled away", T, async () => {
  const page = await open();
  const lines = Array.from({ length: 120 }, (_, index) => `Line ${index}\n\n`);
  await ask(page, { chunks: lines, every: 10 });
  const gap = () => page.locator("#scroller").evaluate((element) => element.scrollHeight - element.clientHeight - element.scrollTop);
  await page.locator(`${ANSWER} .text`, { hasText: "Line 40" }).waitFor();
  assert.ok(await gap() < 60, "follows");
  await page.locator("#scroller").evaluate((element) => element.scrollTo(0, 100));
  await page.locator(`${ANSWER} .text`, { hasText: "Line 80" }).waitFor();
  assert.equal(await page.locator("#scroller").evaluate((element) => element.scrollTop), 100, "stays");
  await page.click("#to-end");
  await finished(page);
  assert.ok(await gap() < 2);
  assert.ok(await page.locator("#to-end").isHidden());
});

test("everything works from the keyboard", T, async () => {
  const page = await open();
  const { keyboard } = page;
  const active = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.getAttribute("aria-label"));
  assert.equal(await active(), "input");
  await keyboard.type(JSON.stringify({ chunks: ["**hello**"] }));
  await keyboard.press("Shift+Enter");
  assert.ok((await page.inputValue("#input")).endsWith("\n"), "Shift+Enter begins a line");
  await keyboard.press("Enter");
  await page.locator(`${ANSWER} .text`, { hasText: "hello" }).waitFor();
  assert.equal(await page.inputValue("#input"), "");
  await finished(page);

  await keyboard.type(JSON.stringify({ hang: true }));
  await keyboard.press("Enter");
  await page.locator("#stop").waitFor();
  await keyboard.press("Escape");
  await finished(page);

  /** @type {Set<string | null | undefined>} */
  const reached = new Set();
  for (let press = 0; press < 20; press += 1) {
    reached.add(await active());
    await keyboard.press("Shift+Tab");
  }
  for (const name of ["input", "Copy answer", "scroller", "New chat", "Conversations"]) assert.ok(reached.has(name), `${name} is reached`);

  await page.locator("[aria-label=Conversations]").focus();
  await keyboard.press("Enter");
  await page.locator("dialog[open]").waitFor();
  await keyboard.press("Tab");
  await keyboard.press("Escape");
  await page.locator("dialog[open]").waitFor({ state: "detached" });
  assert.equal(await active(), "Conversations", "the focus goes back");
  await keyboard.press("Control+Shift+O");
  await page.locator("#welcome").waitFor();
  assert.equal(await active(), "input");
});

test("a draft survives closing the popup", T, async () => {
  const page = await open();
  await page.locator("#input").pressSequentially("half a question");
  await page.close();
  assert.equal(await (await open()).inputValue("#input"), "half a question");
});

test("a screen reader finds names and roles, and hears sentences rather than tokens", T, async () => {
  const page = await open();
  await page.evaluate(() => {
    const spoken = /** @type {string[]} */ ([]);
    Object.assign(window, { spoken });
    const announcer = document.getElementById("announcer");
    if (announcer) new MutationObserver((records) => {
      for (const node of records.flatMap((record) => [...record.addedNodes])) spoken.push(node.textContent ?? "");
    }).observe(announcer, { childList: true });
  });
  await ask(page, { chunks: "One sentence here. And **another** one! The rest".match(/[^]{1,3}/g), every: 5 });
  await page.locator(`${ANSWER} .actions`).waitFor();
  const spoken = await page.evaluate(() => /** @type {any} */ (window).spoken);
  assert.equal(spoken.join(" "), "One sentence here. And another one! The rest");
  assert.ok(spoken.length <= 3, `said in ${spoken.length} pieces`);

  const problems = await page.evaluate(() => {
    const visible = (/** @type {Element} */ element) => element.checkVisibility();
    const name = (/** @type {Element} */ element) => element.getAttribute("aria-label")
      || [...(element.getAttribute("aria-labelledby") ?? "").split(" ")].map((id) => document.getElementById(id)?.textContent ?? "").join("")
      || element.textContent?.trim();
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    return [
      ...[...document.querySelectorAll("button, a, textarea, [role], dialog, progress, main")].filter((element) => !name(element) && element.getAttribute("role") !== "alert").map((element) => `no name: ${element.outerHTML}`),
      ...[...document.querySelectorAll("img:not([alt])")].map((element) => `no alt: ${element.outerHTML}`),
      ...ids.filter((id, index) => ids.indexOf(id) !== index).map((id) => `id twice: ${id}`),
      ...[...document.querySelectorAll("button, textarea")].filter((element) => visible(element) && (element.getBoundingClientRect().width < 24 || element.getBoundingClientRect().height < 24)).map((element) => `too small: ${element.outerHTML}`),
      ...[...document.querySelectorAll("[aria-describedby]")].filter((element) => !document.getElementById(element.getAttribute("aria-describedby") ?? "")).map((element) => `describes nothing: ${element.outerHTML}`),
    ];
  });
  assert.deepEqual(problems, []);
  assert.equal(await page.locator("html").getAttribute("lang"), "en");
  await page.getByRole("log", { name: "Answers" }).waitFor({ state: "attached" });
  await page.getByRole("textbox", { name: "Message" }).waitFor();
  await page.getByRole("main", { name: "Conversation" }).waitFor();
});

test("colours have the contrast of WCAG AA in light and dark", T, async () => {
  const page = await open();
  await ask(page, { chunks: ["Text, `code`, [link](https://example.com) and\n\n> a quote\n\n```js\nlet a\n```\n"] });
  await page.locator(`${ANSWER} .actions`).waitFor();
  await ask(page, { error: { name: "OperationError", code: "no_gpu", message: "x" } });
  await page.locator(`${ANSWER} .problem`).waitFor();
  await ask(page, { chunks: ["<think>Hm</think>\n\nSee https://example.com, $x$.\n\n| a |\n| - |\n| b |\n\n<tool_call>{\"name\": \"a\"}</tool_call>"] });
  await page.locator(`${ANSWER} .actions`).waitFor();
  await page.locator(`${ANSWER} summary`).click();
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    await page.emulateMedia({ colorScheme });
    const poor = await page.evaluate(() => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const rgba = (/** @type {string} */ color) => {
        if (!canvas) throw new Error("no canvas");
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const luminance = (/** @type {number[]} */ color) => color.slice(0, 3)
        .map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * ([0.2126, 0.7152, 0.0722][index] ?? 0), 0);
      const ground = (/** @type {Element | null} */ element) => {
        for (; element; element = element.parentElement) {
          const color = rgba(getComputedStyle(element).backgroundColor);
          if (color[3] === 255) return color;
        }
        return [255, 255, 255];
      };
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const poor = [];
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        if (!element?.checkVisibility() || !node.textContent?.trim() || element.closest(".visually-hidden")) continue;
        const [light, dark] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))].sort((a, b) => b - a);
        const ratio = ((light ?? 0) + 0.05) / ((dark ?? 0) + 0.05);
        if (ratio < 4.5) poor.push(`${ratio.toFixed(2)}: ${node.textContent.trim()}`);
      }
      return poor;
    });
    assert.deepEqual(poor, [], colorScheme);
  }
});

test("it opens quickly", T, async (context) => {
  const opener = await browser.openOwn("options/options.html");
  /** @type {{started: number, paint: number, usable: number}[]} */
  const times = [];
  for (let run = 0; run < 5; run += 1) {
    times.push(await opener.evaluate(async () => {
      const clicked = performance.timeOrigin + performance.now();
      await chrome.action.openPopup();
      for (;;) {
        const [popup] = chrome.extension.getViews({ type: "popup" });
        const [usable] = popup?.performance.getEntriesByName("doppler-usable") ?? [];
        const [paint] = popup?.performance.getEntriesByName("first-contentful-paint") ?? [];
        if (popup && usable && paint) {
          const started = popup.performance.timeOrigin - clicked;
          popup.close();
          return { started, paint: paint.startTime, usable: usable.startTime };
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }));
    await until(() => opener.evaluate(() => chrome.extension.getViews({ type: "popup" }).length === 0), "the popup to close");
  }
  const median = (/** @type {number[]} */ values) => Math.round(values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN);
  // How soon the browser begins is not ours: an empty popup takes as long.
  const [started, paint, usable] = [times.map(({ started }) => started), times.map(({ paint }) => paint), times.map(({ usable }) => usable)].map(median);
  context.diagnostic(`the browser begins ${started} ms after the click; from there to the first paint ${paint} ms, to usable ${usable} ms (medians of ${times.length})`);
});
