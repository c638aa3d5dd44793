// Models that the user picked or dropped: handles of their files, which the browser lets be kept in IndexedDB.
// A handle is a permission as well; after a while the browser wants it asked for again, in a page that the user clicks in.

import { openStore } from "./database.js";
import { Refusal } from "./errors.js";

/**
 * @typedef {{id: string, name: string, bytes: number, format: "gguf" | "safetensors", handles: (FileSystemFileHandle | FileSystemDirectoryHandle)[]}} Picked
 *   `handles`: the model's files, or the one folder they are in
 * @typedef {{name: string, blob: File}} OpenFile
 * @typedef {{name: string, files: OpenFile[]}} OpenModel
 */

const transact = openStore("doppler-picked", "models");

/** The beginning of a picked model's id. */
export const PREFIX = "picked-";

/** @returns {Promise<Picked[]>} */
export const all = () => transact("readonly", (store) => store.getAll());
/** @param {string} id @returns {Promise<Picked | undefined>} */
export const find = (id) => transact("readonly", (store) => store.get(id));

/**
 * Handles that this document keeps, by the models' ids. The browser forgets a permission when no document has a handle any more, which
 * the garbage collector decides, or when the last tab of the extension is closed; files that were opened before are read on.
 * @type {Map<string, {handles: Picked["handles"], files?: OpenFile[]}>}
 */
const kept = new Map();

/** @param {string} id */
export function forget(id) {
  kept.delete(id);
  return transact("readwrite", (store) => store.delete(id));
}

const notAModel = (/** @type {string} */ name) => new Refusal("DataError", "not_a_model",
  `${name} is no model: choose a .gguf file, all parts of a split one, or a folder with config.json and .safetensors files.`);

/**
 * Whether a file of a folder belongs to its model.
 * @param {string} name
 */
const isFolderFile = (name) => /\.(safetensors|json|jinja)$/.test(name);

/**
 * The models among files, by their names: each GGUF file, the parts of a split one together, and everything else as one folder.
 * @param {string[]} names
 * @returns {{name: string, format: Picked["format"], files: string[]}[]}
 */
export function group(names) {
  /** @type {Map<string, {name: string, format: Picked["format"], files: string[]}>} */
  const models = new Map();
  for (const name of names.toSorted()) {
    const gguf = name.toLowerCase().endsWith(".gguf");
    if (!gguf && !isFolderFile(name)) continue;
    const [, stem, count] = /^(.*)-\d{5}-of-(\d{5})\.gguf$/i.exec(name) ?? [];
    const key = stem ? `${stem} ${count}` : gguf ? name : "";
    const model = models.get(key) ?? { name: stem ? `${stem}.gguf` : name, format: gguf ? "gguf" : "safetensors", files: [] };
    model.files.push(name);
    models.set(key, model);
  }
  const folder = models.get("");
  if (folder && !folder.files.some((name) => name.endsWith(".safetensors"))) models.delete("");
  return [...models.values()];
}

/**
 * The files of a model, ready to be read.
 * @param {Picked["handles"]} handles
 * @returns {Promise<OpenFile[]>}
 */
async function read(handles) {
  /** @type {OpenFile[]} */
  const files = [];
  for (const handle of handles) {
    if (handle.kind === "file") {
      files.push({ name: handle.name, blob: await handle.getFile() });
      continue;
    }
    for await (const entry of handle.values()) {
      if (entry.kind === "file" && isFolderFile(entry.name)) files.push({ name: entry.name, blob: await entry.getFile() });
    }
    // How a sentence encoder pools is told by a file in a folder of its own.
    const pooling = await handle.getDirectoryHandle("1_Pooling").then((folder) => folder.getFileHandle("config.json")).catch(() => undefined);
    if (pooling) files.push({ name: "1_Pooling/config.json", blob: await pooling.getFile() });
  }
  return files.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Keeps what was picked or dropped.
 * @param {Picked["handles"]} handles
 * @returns {Promise<string[]>}  the models' ids; the same files have the same id as before
 */
export async function add(handles) {
  /** @type {Omit<Picked, "id" | "bytes">[]} */
  const models = [];
  for (const handle of handles) {
    if (handle.kind !== "directory") continue;
    const names = [];
    for await (const name of handle.keys()) names.push(name);
    for (const { name, format, files } of group(names)) {
      const own = format === "safetensors" ? [handle] : await Promise.all(files.map((file) => handle.getFileHandle(file)));
      models.push({ name: format === "safetensors" ? handle.name : name, format, handles: own });
    }
  }
  // In whichever order they came: a model is known again by its first.
  const files = handles.filter((handle) => handle.kind === "file").toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, format, files: names } of group(files.map(({ name }) => name))) {
    models.push({ name, format, handles: files.filter((handle) => names.includes(handle.name)) });
  }
  if (models.length === 0) throw notAModel(handles[0]?.name ?? "This");
  const known = await all();
  return Promise.all(models.map(async (model) => {
    const bytes = (await read(model.handles)).reduce((sum, { blob }) => sum + blob.size, 0);
    const id = (await findSame(known, model.handles))?.id ?? PREFIX + crypto.randomUUID();
    kept.set(id, model);
    await transact("readwrite", (store) => store.put({ ...model, id, bytes }));
    return id;
  }));
}

/**
 * @param {Picked[]} known
 * @param {Picked["handles"]} handles
 */
async function findSame(known, handles) {
  for (const model of known) {
    const [first] = handles;
    if (first && model.handles[0] && await first.isSameEntry(model.handles[0])) return model;
  }
  return undefined;
}

/**
 * The files of a model, if the browser lets them be read now or this document has them.
 * @param {string} id
 * @returns {Promise<OpenModel>}
 */
export async function open(id) {
  const model = await find(id);
  if (!model) throw new Refusal("NotFoundError", "model_not_found", "This model was removed from the list: choose another.");
  const { name, handles } = model;
  for (const handle of handles) {
    if (await /** @type {any} */ (handle).queryPermission({ mode: "read" }) === "granted") continue;
    const files = kept.get(id)?.files;
    if (files) return { name, files };
    throw new Refusal("NotAllowedError", "permission_needed", `The browser wants your permission for ${name} again: choose it in the popup's list of models.`);
  }
  try {
    const files = await read(handles);
    kept.set(id, { handles, files });
    return { name, files };
  } catch (error) {
    const gone = error instanceof DOMException && error.name === "NotFoundError";
    throw gone ? new Refusal("NotFoundError", "not_found", `${name} is not where it was: open it again.`) : error;
  }
}

/**
 * Asks for the permission to read a model, in a page that was just clicked in.
 * @param {string} id
 * @returns {Promise<boolean>}
 */
export async function permit(id) {
  const handles = (await find(id))?.handles ?? [];
  kept.set(id, { handles });
  for (const handle of handles) {
    if (await /** @type {any} */ (handle).requestPermission({ mode: "read" }) !== "granted") return false;
  }
  return true;
}
