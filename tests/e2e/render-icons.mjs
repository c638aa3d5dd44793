// Draws the extension's icons from icon.svg: node tests/e2e/render-icons.mjs

import { readFile, writeFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const icons = new URL("../../extension/icons/", import.meta.url);
const svg = await readFile(new URL("icon.svg", icons), "utf8");
const browser = await chromium.launch({ executablePath: process.env.DOPPLER_CHROME ?? "/usr/bin/chromium", chromiumSandbox: process.getuid?.() !== 0 });
const page = await browser.newPage();
for (const size of [16, 32, 48, 128]) {
  await page.setViewportSize({ width: size, height: size });
  await page.setContent(`<style>body { margin: 0 } svg { display: block; width: ${size}px }</style>${svg}`);
  await writeFile(new URL(`${size}.png`, icons), await page.screenshot({ omitBackground: true }));
}
await browser.close();
