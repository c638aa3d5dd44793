// The worker that fetches, with a server in the place of the native host.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

/** @typedef {{id: number, piece?: Uint8Array, status?: number, error?: string}} Message */

/** What it said. @type {Message[]} */
const said = [];
/** @type {(event: {data: object}) => void} */
let hear;
Object.assign(globalThis, {
  addEventListener: (/** @type {string} */ _, /** @type {typeof hear} */ listener) => { hear = listener; },
  postMessage: (/** @type {Message} */ message, /** @type {StructuredSerializeOptions} */ options) => said.push(structuredClone(message, options)),
});
await import("../../extension/offscreen/reader.js");

const FILE = Uint8Array.from({ length: 4_000_000 }, (_, at) => at * 7);
/** The last answer to `/stalls`. @type {import("node:http").ServerResponse | undefined} */
let stalled;
const server = createServer(async (request, response) => {
  if (request.headers.authorization !== "Bearer t") return void response.writeHead(401).end();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? assert.fail("no range");
  const bytes = FILE.subarray(Number(from), Number(to) + 1);
  if (request.url === "/changed") return void response.writeHead(412).end();
  response.writeHead(206, { "content-length": bytes.length });
  if (request.url === "/stalls") {
    stalled = response;
    return void response.write(bytes.subarray(0, 10));
  }
  if (request.url === "/breaks") return void response.write(bytes.subarray(0, 10), () => response.destroy());
  // Network pieces are not ours.
  for (let at = 0; at < bytes.length; at += 7_777) {
    response.write(bytes.subarray(at, at + 7_777));
    await new Promise(setImmediate);
  }
  response.end();
});
/** @type {string} */
let base;
before(async () => {
  await once(server.listen(0, "127.0.0.1"), "listening");
  base = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** @param {number} id @param {string} path @param {number} from @param {number[]} lengths @param {string} [token] */
function read(id, path, from, lengths, token = "t") {
  const to = lengths.reduce((sum, length) => sum + length, from) - 1;
  hear({ data: { id, url: base + path, headers: { Authorization: `Bearer ${token}`, Range: `bytes=${from}-${to}` }, lengths } });
}
/** @param {() => unknown} condition */
async function until(condition) {
  while (!condition()) await new Promise(setImmediate);
}
/** What it said of a range. @param {number} id */
const of = (id) => said.filter((message) => message.id === id);

test("a range comes in the pieces that were asked for, two ranges at a time", async () => {
  read(1, "/", 5, [10_000, 1, 30_000]);
  read(2, "/", 50_000, [20_000]);
  await until(() => of(1).length === 3 && of(2).length === 1);
  assert.deepEqual(of(1), [FILE.slice(5, 10_005), FILE.slice(10_005, 10_006), FILE.slice(10_006, 40_006)].map((piece) => ({ id: 1, piece })));
  assert.deepEqual(of(2), [{ id: 2, piece: FILE.slice(50_000, 70_000) }]);
});

test("a buffer that comes back is filled again, if it is large enough for that", async () => {
  const kept = 2 << 20;
  for (const bytes of [10, 1 << 20, kept]) hear({ data: new ArrayBuffer(bytes) });
  read(7, "/", 3, [1_500_000, 1_500_000, 10]);
  await until(() => of(7).length === 3);
  assert.deepEqual(of(7).map(({ piece }) => piece?.buffer.byteLength), [kept, 1_500_000, 10]);
  assert.deepEqual(of(7)[0]?.piece, FILE.slice(3, 1_500_003));
  assert.deepEqual(of(7)[1]?.piece, FILE.slice(1_500_003, 3_000_003));
});

test("another status is told, and why bytes are missing", async () => {
  read(3, "/changed", 0, [10]);
  read(4, "/", 0, [10], "wrong");
  read(5, "/breaks", 0, [10, 10]);
  await until(() => of(3).length + of(4).length + of(5).length === 4);
  assert.deepEqual([...of(3), ...of(4)], [{ id: 3, status: 412 }, { id: 4, status: 401 }]);
  const [piece, failure] = of(5);
  assert.deepEqual(piece, { id: 5, piece: FILE.slice(0, 10) });
  assert.match(failure?.error ?? "", /\w/);
});

test("a range that is given up ends the request", async () => {
  read(6, "/stalls", 0, [10, 10]);
  await until(() => of(6).length === 1);
  hear({ data: { id: 6 } });
  await until(() => stalled?.closed);
  // Who reads and who gives up may cross.
  hear({ data: { id: 6 } });
  await until(() => of(6).length === 2);
  assert.match(of(6)[1]?.error ?? "", /AbortError/);
});
