// What a client may send: {id, method, params} and {id, method: "cancel"}. Anything else is not our shim speaking.

/** Longest frame, in characters of its JSON text. The bridge refuses longer ones with a proper error before. */
export const MAX_FRAME = 1 << 20;
/** Requests one client may have open, of any kind. */
export const MAX_OPEN = 64;

/**
 * @typedef {{id: number, method: string, params: Record<string, any>}} Frame
 */

/**
 * @param {any} frame  as it came
 * @param {number} lastId  the highest id this client has used: ids only grow, so none is ever used twice
 * @returns {frame is Frame}
 */
export function isFrame(frame, lastId) {
  if (typeof frame !== "object" || frame === null) return false;
  const { id, method, params, ...rest } = frame;
  if (Object.keys(rest).length > 0 || typeof method !== "string" || !Number.isSafeInteger(id) || id < 0) return false;
  if (method === "cancel") return params === undefined;
  return id > lastId
    && typeof params === "object" && params !== null && !Array.isArray(params)
    && JSON.stringify(frame).length <= MAX_FRAME;
}
