// Which files make up a model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { add, all, group } from "../../extension/shared/picked.js";
import { memoryDatabase } from "./memory-database.mjs";

const grouped = (/** @type {string[]} */ ...names) => group(names).map(({ name, format, files }) => `${name} (${format}): ${files.join(" ")}`);

test("GGUF files are models each, the parts of a split one together", () => {
  assert.deepEqual(grouped("b.gguf", "a.GGUF", "big-00002-of-00002.gguf", "big-00001-of-00002.gguf", "big-00001-of-00003.gguf", "notes.txt"), [
    "a.GGUF (gguf): a.GGUF",
    "b.gguf (gguf): b.gguf",
    "big.gguf (gguf): big-00001-of-00002.gguf big-00002-of-00002.gguf",
    "big.gguf (gguf): big-00001-of-00003.gguf",
  ]);
});

test("a folder's files are one model, if there are weights among them", () => {
  assert.deepEqual(grouped("tokenizer.json", "model.safetensors", "config.json", "readme.md"),
    ["config.json (safetensors): config.json model.safetensors tokenizer.json"]);
  assert.deepEqual(grouped("tokenizer.json", "config.json"), []);
});

test("a split model that comes in another order is the same model", async () => {
  Object.assign(globalThis, { indexedDB: memoryDatabase() });
  const part = (/** @type {number} */ number) => /** @type {FileSystemFileHandle} */ (/** @type {unknown} */ ({
    kind: "file", name: `big-0000${number}-of-00002.gguf`, getFile: async () => new Blob(["x"]),
    isSameEntry: async (/** @type {{name: string}} */ { name }) => name === `big-0000${number}-of-00002.gguf`,
  }));
  const [first] = await add([part(1), part(2)]);
  assert.deepEqual(await add([part(2), part(1)]), [first]);
  assert.deepEqual((await all()).map(({ name, bytes, handles }) => [name, bytes, ...handles.map(({ name }) => name)]),
    [["big.gguf", 2, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]]);
});
