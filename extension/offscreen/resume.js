// What is known of a streamed answer, so that it can go on when its worker or its document has ended.

/** @typedef {import("../shared/protocol.js").Resume} Resume */
/** @typedef {import("../shared/protocol.js").Part} Part */

/**
 * With one chunk more.
 * @param {Resume | undefined} resume  as it was before this chunk, which is changed
 * @param {{id?: string, created?: number}} chunk
 * @param {Part | undefined} part  that came with the chunk
 * @returns {Resume | undefined}  undefined: the answer cannot go on behind this chunk
 */
export function extended(resume, { id, created }, part) {
  if (!part || id === undefined || created === undefined) return undefined;
  resume ??= { id, created, model: part.model, tokens: [], retell: false };
  resume.retell = false;
  for (const token of part.tokens) resume.tokens.push(token);
  return resume;
}

const isNumber = (/** @type {unknown} */ value) => typeof value === "number" && value >= 0 && value < 2 ** 32 && Number.isInteger(value);

/**
 * Whether a page's bridge may send this. Its text was delivered to the page, and is not told again.
 * @param {any} resume
 * @returns {resume is Resume}
 */
export function isResume(resume) {
  if (typeof resume !== "object" || resume === null) return false;
  const { id, created, model, tokens, retell, ...rest } = resume;
  return Object.keys(rest).length === 0 && typeof id === "string" && id.length <= 64 && isNumber(created) && isNumber(model)
    && retell === false && Array.isArray(tokens) && tokens.length <= MAX_TOKENS && tokens.every(isNumber);
}

/** No model's context is longer. */
const MAX_TOKENS = 1 << 20;
