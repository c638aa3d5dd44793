// The bench behind `cargo xtask bench`: the extension in a real Chromium times a model.
//
// usage: node tests/bench/bench.mjs PARAMS [--json]
// PARAMS: JSON, what engine.bench takes (extension/host/src/bench.rs). Environment: as for tests/e2e/harness.mjs, DOPPLER_CHROME_FLAGS
// above all where Chromium does not find the GPU by itself.

import { COLUMNS, deviceLine, isSoftware, modelLine, pageLine, passLine, ratesText, STREAM_COLUMNS } from "../../extension/bench/report.js";
import { launch } from "../e2e/harness.mjs";
import { measurePage } from "./page.mjs";
import { printTable } from "./table.mjs";

/** @typedef {import("../../extension/bench/report.js").Report} Report */

const [params = '{"shape":"llama-3.2-1b"}', form] = process.argv.slice(2);

/** @returns {Promise<Report>} */
async function measure() {
  const asked = { runs: 5, tokens: 128, ...JSON.parse(params) };
  const browser = await launch({ limited: false });
  try {
    // Any page of the extension will do: this one shows little, which also a browser without fonts survives.
    const page = await browser.openOwn("options/options.html");
    const report = await page.evaluate(async (params) => {
      const { connectEngine } = await import(/** @type {any} */ ("/extension/shared/engine-port.js"));
      return (await connectEngine()).request("engine.bench", params);
    }, asked);
    return { ...report, page: await measurePage(browser, asked) };
  } finally {
    await browser.close();
  }
}

/**
 * A table: headings, then a row for each.
 * @template Row
 * @param {[string, (row: Row) => string][]} columns
 * @param {Row[]} rows
 */
const rowsOf = (columns, rows) => [columns.map(([heading]) => heading), ...rows.map((row) => columns.map(([, text]) => text(row)))];

const report = await measure();
if (form === "--json") {
  console.log(JSON.stringify(report, null, 1));
} else {
  console.log(modelLine(report));
  console.log(deviceLine(report));
  printTable(rowsOf(COLUMNS, report.lengths));
  if (report.streams) printTable(rowsOf(STREAM_COLUMNS, report.streams));
  if (report.page) console.log(pageLine(report.page));
  if (report.roofline) console.log(`At most ${ratesText(report.roofline)}`);
  for (const pass of report.kernels ?? []) {
    console.log(passLine(pass));
    printTable(pass.kernels.map(({ name, workgroups, count, each_us, total_us, ...rates }) => [name, `${workgroups} workgroups`, `${count} ×`, `${each_us.toFixed(2)} µs`, `${total_us.toFixed(1)} µs`, ratesText(rates)]));
  }
}
if (isSoftware(report)) {
  console.error("\nWARNING: the adapter is a software one, a program on the CPU. These figures say nothing of the speed on a GPU.");
}
