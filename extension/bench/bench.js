// The bench page: what to measure, and the report as a table and bars.

import { connectEngine } from "../shared/engine-port.js";
import { COLUMNS, deviceLine, isSoftware, modelLine, passLine, ratesText, STREAM_COLUMNS } from "./report.js";

/** @typedef {import("./report.js").Report} Report */

const find = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (find("options"));
const SVG = "http://www.w3.org/2000/svg";

/** The last report. @type {Report | undefined} */
let report;

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {...(string | Node)} content
 */
function element(name, ...content) {
  const made = document.createElement(name);
  made.append(...content);
  return made;
}

/**
 * Bars from 0 to the largest value.
 * @param {HTMLElement} list
 * @param {[string, number, string][]} bars  name, value, and the value as text
 */
function drawBars(list, bars) {
  const largest = Math.max(...bars.map(([, value]) => value));
  list.replaceChildren(...bars.flatMap(([name, value, text]) => {
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("aria-hidden", "true");
    const bar = document.createElementNS(SVG, "rect");
    bar.setAttribute("width", `${100 * value / largest}%`);
    bar.setAttribute("height", "100%");
    drawing.append(bar);
    return [element("dt", name), element("dd", drawing, element("span", text))];
  }));
}

/**
 * A row for each report, under the headings of its columns.
 * @template Row
 * @param {string} id
 * @param {[string, (row: Row) => string][]} columns
 * @param {Row[]} rows
 */
function fillTable(id, columns, rows) {
  const table = /** @type {HTMLTableElement} */ (find(id));
  table.hidden = rows.length === 0;
  table.tHead?.rows[0]?.replaceChildren(...columns.map(([heading]) => element("th", heading)));
  table.tBodies[0]?.replaceChildren(...rows.map((row) => element("tr", ...columns.map(([, text]) => element("td", text(row))))));
}

/** Whole numbers separated by commas. */
const numbers = (/** @type {string} */ text) => text.split(",").filter((part) => part.trim()).map(Number);

/** @param {Report} shown */
function show(shown) {
  report = shown;
  find("report-title").textContent = modelLine(shown);
  find("device").textContent = deviceLine(shown);
  fillTable("lengths", COLUMNS, shown.lengths);
  fillTable("streams", STREAM_COLUMNS, shown.streams ?? []);
  drawBars(find("decode"), shown.lengths.map(({ prompt_tokens, decode_tokens_per_second: speed }) => [`${prompt_tokens}`, speed, speed.toFixed(1)]));
  const most = shown.roofline ? [element("p", `This device reads and multiplies f32 at most at ${ratesText(shown.roofline)}.`)] : [];
  find("kernels").replaceChildren(...most, ...(shown.kernels ?? []).flatMap((pass) => {
    const list = element("dl");
    list.className = "bars";
    drawBars(list, pass.kernels.map(({ name, workgroups, count, total_us, ...rates }) => [`${count} × ${name}, ${workgroups} workgroups`, total_us, `${total_us.toFixed(1)} µs, ${ratesText(rates)}`]));
    return [element("h2", passLine(pass)), list];
  }));
  find("report").hidden = false;
  find("report-title").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const text = (/** @type {string} */ name) => String(fields.get(name));
  const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
  button.disabled = true;
  find("status").textContent = "Loading and measuring: some minutes for large shapes. What is asked meanwhile disturbs it.";
  try {
    const engine = await connectEngine();
    try {
      show(await engine.request("engine.bench", {
        shape: text("shape"),
        quant: text("quant"),
        prompts: numbers(text("prompts")),
        streams: numbers(text("streams")),
        tokens: Number(text("tokens")),
        runs: Number(text("runs")),
        kernels: fields.has("kernels"),
      }));
    } finally {
      engine.close();
    }
    find("status").textContent = report && isSoftware(report) ? "There is no GPU here: the figures are those of a program that imitates one." : "";
  } catch (error) {
    find("status").textContent = error instanceof Error ? error.message : String(error);
  } finally {
    button.disabled = false;
  }
});

find("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(JSON.stringify(report, null, 1));
  find("status").textContent = "Copied.";
});
