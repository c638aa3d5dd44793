// The options page: what was granted to whom, and taking it back. activity.js shows what is being answered.

import "./activity.js";
import { background } from "../shared/background.js";
import { showOrigin } from "../shared/origin.js";
import { tuningText } from "../shared/tunings.js";
import { cell, find } from "./page.js";

/** @typedef {import("../background/grants.js").ListedGrant} ListedGrant */

/** @type {Record<ListedGrant["scope"], string>} */
const ACCESS = {
  once: "Allowed once, until its page is left",
  session: "Allowed for this session",
  always: "Always allowed",
  block: "Blocked",
};

const rows = /** @type {HTMLTableSectionElement} */ (document.querySelector("#grants tbody"));
const since = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** @param {ListedGrant} grant */
function row(grant) {
  const tr = document.createElement("tr");
  const site = document.createElement("th");
  site.scope = "row";
  site.className = "origin";
  showOrigin(site, grant.origin);

  const button = document.createElement("button");
  button.textContent = grant.scope === "block" ? "Unblock" : "Revoke";
  button.setAttribute("aria-label", `${button.textContent} ${grant.origin}`);
  button.addEventListener("click", () => (grant.scope === "block" ? unblock(grant.origin) : revoke([grant.origin])));

  tr.append(site, cell(ACCESS[grant.scope]), cell(since.format(grant.since)), cell(button));
  return tr;
}

/** @param {string[]} origins */
async function revoke(origins) {
  for (const origin of origins) await background("grants.revoke", { origin });
  await showChange(origins.length === 1 ? `${origins[0]} has no access any more.` : "No site has access any more.");
}

/** @param {string} origin */
async function unblock(origin) {
  await background("grants.unblock", { origin });
  await showChange(`${origin} may ask again.`);
}

/** @param {string} text  what has changed */
async function showChange(text) {
  await show();
  find("status").textContent = text;
  // The pressed button is gone: keyboard and screen reader go on from the heading.
  find("sites-title").focus();
}

async function show() {
  /** @type {ListedGrant[]} */
  const grants = await background("grants.list");
  rows.replaceChildren(...grants.map(row));
  find("grants").hidden = grants.length === 0;
  find("none").hidden = grants.length > 0;
  const granted = [...new Set(grants.filter(({ scope }) => scope !== "block").map(({ origin }) => origin))];
  find("revoke-all").hidden = granted.length < 2;
  find("revoke-all").onclick = () => revoke(granted);
}

find("version").textContent = chrome.runtime.getManifest().version;
const showTuning = () => { find("tuning").textContent = tuningText(); };
addEventListener("storage", showTuning);
showTuning();
chrome.storage.onChanged.addListener(() => void show());
await show();
