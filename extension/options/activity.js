// Who is being answered now, and stopping it. The figures are asked for once a second while the page is visible.

import { connectEngine } from "../shared/engine-port.js";
import { showOrigin } from "../shared/origin.js";
import { size } from "../shared/size.js";
import { cell, find } from "./page.js";

/**
 * @typedef {import("../shared/protocol.js").OriginActivity} OriginActivity
 * @typedef {import("../shared/protocol.js").Model} Model
 * @typedef {{tr: HTMLTableRowElement, cells: HTMLTableCellElement[]}} Row
 */

/** Between one answer and the next question, in ms. */
const EVERY = 1000;

const body = /** @type {HTMLTableSectionElement} */ (document.querySelector("#activity tbody"));
/** Rows by origin. They stay for as long as it is active, so that a button keeps the focus. @type {Map<string, Row>} */
const rows = new Map();
const whole = new Intl.NumberFormat();

/** @type {Promise<import("../shared/engine-port.js").EnginePort> | undefined} */
let engine;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @type {typeof connectEngine} */
const connect = () => engine ??= connectEngine({ onClose: () => { engine = undefined; } }).catch((thrown) => {
  engine = undefined;
  throw thrown;
});

/** Asks and shows, now and then once a second. */
async function watch() {
  if (document.visibilityState !== "visible") return;
  try {
    const { origins, model } = await (await connect()).request("activity.list");
    show(origins, model);
  } catch {
    // The engine has ended, and what it answered with it.
    show([], undefined);
  }
  clearTimeout(timer);
  timer = setTimeout(watch, EVERY);
}

/**
 * @param {OriginActivity[]} origins
 * @param {Model | undefined} model
 */
function show(origins, model) {
  const active = new Set(origins.map(({ origin }) => origin));
  for (const [origin, { tr }] of rows) {
    if (active.has(origin)) continue;
    tr.remove();
    rows.delete(origin);
  }
  for (const activity of origins) {
    const { cells } = rows.get(activity.origin) ?? addRow(activity.origin);
    texts(activity).forEach((text, column) => { /** @type {HTMLElement} */ (cells[column]).textContent = text; });
  }
  find("activity").hidden = origins.length === 0;
  find("idle").hidden = origins.length > 0;
  find("memory").hidden = !model;
  if (model) find("memory").textContent = memoryText(model);
}

/**
 * A row's texts, but the name.
 * @param {OriginActivity} activity
 */
const texts = ({ models, running, waiting, tokens, tokens_per_second }) => [
  models.join(", "),
  tokens_per_second.toFixed(1),
  waiting > 0 ? `${running} running, ${waiting} waiting` : `${running} running`,
  `${whole.format(tokens)} ${tokens === 1 ? "token" : "tokens"}`,
];
const COLUMNS = 4;

/** @param {string} origin @returns {Row} */
function addRow(origin) {
  const name = document.createElement("th");
  name.scope = "row";
  const button = document.createElement("button");
  button.textContent = "Stop";
  button.addEventListener("click", () => stop(origin));
  if (origin === location.origin) {
    name.textContent = "Your chats";
    button.setAttribute("aria-label", "Stop your chats");
  } else {
    name.className = "origin";
    showOrigin(name, origin);
    button.setAttribute("aria-label", `Stop ${origin}`);
  }
  const tr = document.createElement("tr");
  const cells = Array.from({ length: COLUMNS }, () => cell(""));
  tr.append(name, ...cells, cell(button));
  body.append(tr);
  const row = { tr, cells };
  rows.set(origin, row);
  return row;
}

/** @param {string} origin */
async function stop(origin) {
  await (await connect()).request("activity.stop", { origin });
  find("activity-status").textContent = origin === location.origin ? "Your chats were stopped." : `${origin} was stopped.`;
  // The button goes: keyboard and screen reader go on from the heading.
  find("activity-title").focus();
  await watch();
}

/** @param {Model} model */
const memoryText = ({ name, memory: { weights, cache, scratch } }) =>
  `${name} takes ${size(weights)} of graphics memory for its weights, ${size(cache)} for the cache that all share, and ${size(scratch)} to compute.`;

document.addEventListener("visibilitychange", watch);
void watch();
