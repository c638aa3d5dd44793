// Reading streams without a step of the wasm module for each of the browser's small pieces.

/**
 * @param {ReadableStreamBYOBReader} reader
 * @param {number} bytes
 * @returns {Promise<Uint8Array>}  the next so many bytes; an error if the stream ends before
 */
export async function take(reader, bytes) {
  let buffer = new ArrayBuffer(bytes);
  for (let at = 0; at < bytes;) {
    const { value, done } = await reader.read(new Uint8Array(buffer, at));
    if (done) throw new Error(`the stream ended ${bytes - at} bytes early`);
    buffer = value.buffer;
    at += value.byteLength;
  }
  return new Uint8Array(buffer);
}
