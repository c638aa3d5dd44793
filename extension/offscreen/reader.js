// Fetches ranges of a file over HTTP for the engine's worker, which starts this one: a stream must be drained in small steps, and these
// must not wait while that worker packs weights.
//
// A `FetchRange` is answered with a `{id, piece}` for each length, unless there is one `{id, status}` (the answer is another than 206)
// or `{id, error}` before; an `AbortRange` ends it. The worker returns a piece's buffer after use: allocating one for each piece would
// take as long as filling it.

/** Aborts each range in flight. @type {Map<number, AbortController>} */
const running = new Map();

/** Returned buffers, at most `SPARE`. @type {ArrayBuffer[]} */
const spare = [];
const SPARE = 16;
/** Bytes of the smallest buffer that is worth keeping. */
const WORTHWHILE = 1 << 20;

/** @typedef {import("../shared/protocol.js").FetchRange} FetchRange */
/** @typedef {import("../shared/protocol.js").AbortRange} AbortRange */

addEventListener("message", (/** @type {MessageEvent<ArrayBuffer | FetchRange | AbortRange>} */ { data }) => {
  if (data instanceof ArrayBuffer) {
    if (data.byteLength >= WORTHWHILE && spare.push(data) > SPARE) spare.shift();
    return;
  }
  const { id } = data;
  if (!("url" in data)) {
    running.get(id)?.abort();
    return;
  }
  const { url, headers, lengths } = data;
  const controller = new AbortController();
  running.set(id, controller);
  fetchRange(id, url, lengths, { headers: { ...headers }, signal: controller.signal, cache: "no-store", credentials: "omit" })
    .catch((error) => {
      controller.abort();
      postMessage({ id, error: String(error) });
    })
    .finally(() => running.delete(id));
});

/**
 * @param {number} id
 * @param {string} url
 * @param {number[]} lengths
 * @param {RequestInit} request
 */
async function fetchRange(id, url, lengths, request) {
  const { status, body } = await fetch(url, request);
  if (status !== 206) return postMessage({ id, status });
  if (!body) throw new Error("the answer has no bytes");
  const reader = body.getReader({ mode: "byob" });
  for (const bytes of lengths) {
    const piece = await readExact(reader, bytes);
    postMessage({ id, piece }, { transfer: [piece.buffer] });
  }
}

/**
 * @param {ReadableStreamBYOBReader} reader
 * @param {number} bytes
 * @returns {Promise<Uint8Array<ArrayBuffer>>}  exactly the next `bytes` bytes; rejects if the stream ends before
 */
async function readExact(reader, bytes) {
  const fitting = bytes < WORTHWHILE ? -1 : spare.findIndex(({ byteLength }) => byteLength >= bytes);
  let buffer = fitting < 0 ? new ArrayBuffer(bytes) : spare.splice(fitting, 1)[0];
  for (let at = 0; at < bytes;) {
    const { value, done } = await reader.read(new Uint8Array(buffer, at, bytes - at));
    if (done) throw new Error(`the stream ended ${bytes - at} bytes early`);
    buffer = value.buffer;
    at += value.byteLength;
  }
  return new Uint8Array(buffer, 0, bytes);
}
