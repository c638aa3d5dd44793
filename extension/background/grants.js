// Which origin may use the engine. The only module that reads or writes grants.
//
// The key is the origin the browser attests for a top-level document: requests from frames are refused, so the
// top-level and the requesting origin of DOPPLER's permission key are always the same one.
//
// storage.local    grant:<origin>      {scope: "always" | "block", since}
// storage.session  grant:<origin>      {scope: "session", since}
//                  once:<documentId>   {origin, since}; a document id is never used twice, so a stale one grants nothing
// One key per grant: two writers never overwrite each other. Session storage is memory: it outlives the service worker
// and ends with the browser (or with an update of the extension).

/**
 * @typedef {"once" | "session" | "always" | "block"} Scope
 * @typedef {"granted" | "denied" | "prompt"} State
 * @typedef {{origin: string, documentId: string}} Requester   both attested by the browser
 * @typedef {{state: State, scope?: Scope}} Grant
 * @typedef {{origin: string, scope: Scope, since: number}} ListedGrant   `since` in ms since 1970
 */

const { local, session } = chrome.storage;

/** Content scripts live in the pages' processes: they must not reach the grants. Set at every start of the worker. */
export const lockStorage = () => Promise.all([
  local.setAccessLevel({ accessLevel: "TRUSTED_CONTEXTS" }),
  session.setAccessLevel({ accessLevel: "TRUSTED_CONTEXTS" }),
]);

/**
 * @param {Requester} requester
 * @returns {Promise<Grant>}
 */
export async function query({ origin, documentId }) {
  const byOrigin = `grant:${origin}`;
  const once = `once:${documentId}`;
  const [kept, fleeting] = await Promise.all([local.get(byOrigin), session.get([byOrigin, once])]);
  const scope = /** @type {any} */ (kept)[byOrigin]?.scope
    ?? /** @type {any} */ (fleeting)[byOrigin]?.scope
    ?? (/** @type {any} */ (fleeting)[once]?.origin === origin ? "once" : undefined);
  if (scope === "block") return { state: "denied", scope };
  return scope ? { state: "granted", scope } : { state: "prompt" };
}

/**
 * Stores the user's decision.
 * @param {string} origin
 * @param {Scope} scope
 * @param {string[]} documents  the documents a "once" is for
 */
export async function remember(origin, scope, documents) {
  const since = Date.now();
  // A block that is lifted must not leave an older grant.
  if (scope === "block") await forget(origin);
  switch (scope) {
    case "always":
    case "block":
      return local.set({ [`grant:${origin}`]: { scope, since } });
    case "session":
      return session.set({ [`grant:${origin}`]: { scope, since } });
    case "once":
      return session.set(Object.fromEntries(documents.map((id) => [`once:${id}`, { origin, since }])));
  }
}

/**
 * Ends every grant of an origin; a block stays.
 * @param {string} origin
 */
export async function forget(origin) {
  const key = `grant:${origin}`;
  const [kept, fleeting] = await Promise.all([local.get(key), session.get(null)]);
  const once = Object.entries(fleeting).filter(([name, value]) => name.startsWith("once:") && /** @type {any} */ (value).origin === origin);
  await Promise.all([
    isBlock(kept[key]) ? undefined : local.remove(key),
    session.remove([key, ...once.map(([name]) => name)]),
  ]);
}

/**
 * Lifts a block: the next request asks again.
 * @param {string} origin
 */
export async function unblock(origin) {
  const key = `grant:${origin}`;
  if (isBlock((await local.get(key))[key])) await local.remove(key);
}

/** @param {any} grant  as it is stored */
const isBlock = (grant) => grant?.scope === "block";

/**
 * Ends what a "once" granted to a document that went away.
 * @param {string} documentId
 */
export const forgetDocument = (documentId) => session.remove(`once:${documentId}`);

/**
 * Every grant, oldest first; an origin may appear with more than one scope.
 * @returns {Promise<ListedGrant[]>}
 */
export async function list() {
  const entries = (await Promise.all([local.get(null), session.get(null)])).flatMap((area) => Object.entries(area));
  return entries
    .flatMap(([key, value]) => {
      const grant = /** @type {any} */ (value);
      if (key.startsWith("grant:")) return [{ origin: key.slice("grant:".length), scope: grant.scope, since: grant.since }];
      if (key.startsWith("once:")) return [{ origin: grant.origin, scope: /** @type {Scope} */ ("once"), since: grant.since }];
      return [];
    })
    .sort((a, b) => a.since - b.since);
}
