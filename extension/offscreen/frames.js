// Frames that a page may send: {id, method, params, priority?}, with {resume} where its bridge sends it again, {id, method: "cancel"} and
// {id, method: "read", params: {parts}}, and {priority}. Anything else is not our shim and bridge speaking.

import { isResume } from "./resume.js";

/** Longest frame, in characters of its JSON text. The bridge refuses longer ones with a proper error before. */
export const MAX_FRAME = 1 << 20;
/** Arrays and objects in each other, in a frame's `params`: the shim sends no more. What reads them further on may use its stack. */
export const MAX_DEPTH = 64;
/** Requests that one page may have open, of any kind. */
export const MAX_OPEN = 64;

/** @type {unknown[]} */
const PRIORITIES = ["foreground", "background"];

/**
 * @typedef {import("../shared/protocol.js").Request<any>} Frame
 * @typedef {import("../shared/protocol.js").PriorityChange} PriorityChange
 */

/**
 * @param {any} frame  as it came
 * @returns {frame is PriorityChange}
 */
export const isPriorityChange = (frame) =>
  isContainer(frame) && Object.keys(frame).length === 1 && PRIORITIES.includes(/** @type {any} */ (frame).priority);

/**
 * @param {any} frame  as it came
 * @returns {frame is {id: number, method: "read", params: import("../shared/protocol.js").PartsRead}}
 */
export function isRead(frame) {
  const { id, method, params, ...rest } = frame ?? {};
  if (method !== "read" || !isContainer(params) || Object.keys(rest).length > 0) return false;
  const { parts, ...others } = /** @type {{parts?: any}} */ (params);
  return Object.keys(others).length === 0 && Number.isSafeInteger(id) && id >= 0 && Number.isInteger(parts) && parts > 0 && parts < 2 ** 32;
}

/**
 * @param {any} frame  as it came
 * @param {number} lastId  the highest id that this page has used: ids only grow, so none is ever used twice
 * @returns {frame is Frame}
 */
export function isFrame(frame, lastId) {
  if (typeof frame !== "object" || frame === null) return false;
  const { id, method, params, priority, resume, ...rest } = frame;
  if (Object.keys(rest).length > 0 || typeof method !== "string" || !Number.isSafeInteger(id) || id < 0) return false;
  if (resume !== undefined && !(method === "chat.completions" && isResume(resume))) return false;
  if (method === "cancel") return params === undefined && priority === undefined;
  if (method === "read") return false;
  return id > lastId && (priority === undefined || PRIORITIES.includes(priority))
    && isContainer(params) && !Array.isArray(params) && isShallow(params)
    && JSON.stringify({ id, method, params }).length <= MAX_FRAME;
}

/** @param {unknown} value */
const isContainer = (value) => typeof value === "object" && value !== null;

/**
 * Looks level by level: whatever a page sends, the stack stays as it is.
 * @param {object} params
 */
function isShallow(params) {
  let level = [params];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth === MAX_DEPTH) return false;
    level = level.flatMap((value) => Object.values(value)).filter(isContainer);
  }
  return true;
}
