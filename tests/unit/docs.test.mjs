// Links of README.md and docs/ lead to files and headings that exist.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Anchors of headings, as GitHub makes them. @param {string} text */
const anchors = (text) => [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => heading.toLowerCase().replace(/[^\p{L}\p{N}\- _]/gu, "").replaceAll(" ", "-"));

/** @param {string} file  a path in the repository */
async function brokenLinks(file) {
  const text = await readFile(join(ROOT, file), "utf8");
  const broken = [];
  for (const [, link = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (link.startsWith("https://")) continue;
    const [path, anchor] = link.split("#");
    const target = path ? join(dirname(file), path) : file;
    const found = existsSync(join(ROOT, target)) && (!anchor || anchors(await readFile(join(ROOT, target), "utf8")).includes(anchor));
    if (!found) broken.push(`${file}: ${link}`);
  }
  return broken;
}

test("links of the documentation lead to files and headings that exist", async () => {
  const docs = (await readdir(join(ROOT, "docs"))).map((name) => `docs/${name}`);
  assert.ok(docs.length >= 7);
  assert.deepEqual((await Promise.all(["README.md", ...docs].map(brokenLinks))).flat(), []);
});
