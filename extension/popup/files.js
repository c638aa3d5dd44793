// The popup's way to files of the user: picked, dropped, and allowed again.

import * as picked from "../shared/picked.js";

/** The page in a tab: a popup is closed by the window of the file picker, and when something is dragged from elsewhere. */
const IN_TAB = "extension/popup/popup.html#models";

const KINDS = [{ description: "Models", accept: { "application/octet-stream": /** @type {`.${string}`[]} */ ([".gguf", ".safetensors", ".json", ".jinja"]) } }];

/**
 * Lets the user pick a model's files, or the folder that it is in.
 * @param {"files" | "folder"} kind
 * @returns {Promise<string[]>}  ids of models; none if the user changed their mind, or goes on in a tab
 */
async function pick(kind) {
  if (!await chrome.tabs.getCurrent()) {
    await chrome.tabs.create({ url: chrome.runtime.getURL(IN_TAB) });
    window.close();
    return [];
  }
  const { showOpenFilePicker, showDirectoryPicker } = /** @type {any} */ (window);
  try {
    return await picked.add(kind === "folder" ? [await showDirectoryPicker()] : await showOpenFilePicker({ multiple: true, types: KINDS }));
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return [];
    throw error;
  }
}

/**
 * Takes files and folders that are dropped anywhere on the page.
 * @param {(ids: Promise<string[]>) => void} deliver
 */
function watchDrops(deliver) {
  const mark = (/** @type {boolean} */ dragging) => document.body.classList.toggle("dragging", dragging);
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) mark(false); });
  addEventListener("drop", (event) => {
    mark(false);
    const items = [...event.dataTransfer?.items ?? []].filter(({ kind }) => kind === "file");
    if (items.length === 0) return;
    event.preventDefault();
    // The items are gone once this returns: every handle is asked for now.
    const handles = Promise.all(items.map((item) => /** @type {any} */ (item).getAsFileSystemHandle()));
    deliver(handles.then((handles) => picked.add(handles.filter(Boolean))));
  });
}

export const files = { pick, watchDrops, permit: picked.permit };
