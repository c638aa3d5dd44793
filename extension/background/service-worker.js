// The service worker: creates the offscreen document, keeps the grants, opens the permission windows, starts the native host.
// It is never on the path of tokens and keeps nothing in memory: Chrome may end it at any moment.
//
// Others ask it with runtime.sendMessage({to: "background", method, params}) and get {done} or {error}. Who may ask what
// is decided by what the browser attests about the sender, never by the message.
// It tells the router about changes with runtime.sendMessage({to: "router", change}).

import { showActivity } from "./badge.js";
import * as grants from "./grants.js";
import { NativeHost } from "./native-host.js";
import { checkedPoint } from "./placement.js";
import * as prompts from "./prompts.js";
import { Refusal, toWire } from "../shared/errors.js";
import { FORWARDED } from "../shared/protocol.js";
import { whenFree } from "../shared/router-lock.js";

const OFFSCREEN = "extension/offscreen/offscreen.html";

/** Its state (a port, and requests that wait for it) is lost with the service worker: the router asks again. */
const host = new NativeHost();

/** One creation at a time; `createDocument` rejects when there is a document already. @type {Promise<void> | undefined} */
let creating;

/** Makes sure that the offscreen document, and with it the router, is there. */
async function ensureEngine() {
  const existing = await chrome.runtime.getContexts({ contextTypes: [chrome.runtime.ContextType.OFFSCREEN_DOCUMENT] });
  if (existing.length > 0 && !creating) return;
  creating ??= chrome.offscreen.createDocument({
    url: OFFSCREEN,
    reasons: [chrome.offscreen.Reason.WORKERS],
    justification: "Runs the language model in a dedicated worker on WebGPU for all tabs.",
  }).finally(() => { creating = undefined; });
  await creating;
}

/** Whether the router's end will be heard. */
let watching = false;

/** Closes what is open at the native host, and clears the icon, as soon as the router is gone. */
function closeAfterRouter() {
  if (watching) return;
  watching = true;
  whenFree(() => {
    watching = false;
    host.closeAll();
    void showActivity([]);
  });
}

/** @type {prompts.Announce} */
async function announce(change) {
  // Rejects when there is no offscreen document: then there is no router to tell.
  await chrome.runtime.sendMessage({ to: "router", change }).catch(() => {});
}

/**
 * @typedef {chrome.runtime.MessageSender} Sender
 * @typedef {"page" | "router" | "prompt" | "extension"} Role
 * @typedef {{from: Role[], handle: (params: any, sender: Sender) => Promise<unknown>}} Method
 */

/**
 * The only place that knows who a sender is.
 * @param {Sender} sender
 * @returns {Role | undefined}
 */
function roleOf(sender) {
  if (sender.id !== chrome.runtime.id) return undefined;
  if (sender.origin !== new URL(chrome.runtime.getURL("")).origin) {
    return sender.tab && sender.frameId === 0 ? "page" : undefined;
  }
  switch (new URL(sender.url ?? "").pathname) {
    case `/${OFFSCREEN}`: return "router";
    case "/extension/permission/permission.html": return "prompt";
    default: return "extension";
  }
}

/** The prompt a permission window shows, from its own URL. @param {Sender} sender */
const promptOf = (sender) => new URL(sender.url ?? "").search.slice(1);

/**
 * Native messages, under the names that the host has for them. Only the router may have them forwarded: their answers have the host's
 * token, and what the token opens.
 * @type {Record<string, Method>}
 */
const forwarded = Object.fromEntries(FORWARDED.map((method) =>
  [method, { from: ["router"], handle: (params) => host.forward(method, params).finally(closeAfterRouter) }]));

/** @type {Record<string, Method>} */
const methods = {
  "engine.ensure": { from: ["page", "prompt", "extension"], handle: ensureEngine },

  "permissions.query": { from: ["router"], handle: grants.query },
  "permissions.request": {
    from: ["router"],
    handle: ({ origin, documentId, tab, activated, pointer }) =>
      prompts.request({ origin, documentId }, { tab, activated: activated === true, pointer: checkedPoint(pointer) }),
  },
  "document.gone": {
    from: ["router"],
    handle: ({ documentId }) => Promise.all([grants.forgetDocument(documentId), prompts.documentGone(documentId)]),
  },

  "prompt.describe": { from: ["prompt"], handle: (_, sender) => prompts.describe(promptOf(sender)) },
  "prompt.decide": { from: ["prompt"], handle: ({ scope }, sender) => prompts.decide(promptOf(sender), checkedScope(scope), announce) },

  ...forwarded,

  "activity.show": { from: ["router"], handle: ({ sites }) => showActivity(sites).finally(() => { if (sites.length > 0) closeAfterRouter(); }) },

  "grants.list": { from: ["extension"], handle: grants.list },
  "permissions.revoke": {
    from: ["router"],
    async handle(requester) {
      // A page gives up what it was given; a block is the user's to lift.
      if ((await grants.query(requester)).state !== "granted") return;
      await grants.forget(requester.origin);
      await announce({ origin: requester.origin });
    },
  },
  "grants.revoke": {
    from: ["extension"],
    handle: ({ origin }) => changeGrants(origin, grants.forget),
  },
  "grants.unblock": {
    from: ["extension"],
    handle: ({ origin }) => changeGrants(origin, grants.unblock),
  },
};

/**
 * The user takes a decision back.
 * @param {string} origin
 * @param {(origin: string) => Promise<unknown>} change
 */
async function changeGrants(origin, change) {
  await Promise.all([change(origin), prompts.forgetDismissals(origin)]);
  await announce({ origin });
}

/**
 * @param {unknown} scope
 * @returns {grants.Scope}
 */
function checkedScope(scope) {
  if (scope === "once" || scope === "session" || scope === "always" || scope === "block") return scope;
  throw new Refusal("TypeError", "invalid_scope", "The answer must be once, session, always or block.");
}

chrome.runtime.onMessage.addListener((message, sender, reply) => {
  if (message?.to !== "background") return false;
  const method = Object.hasOwn(methods, message.method) ? methods[message.method] : undefined;
  const role = roleOf(sender);
  if (!method || !role || !method.from.includes(role)) {
    reply({ error: toWire(new Refusal("NotAllowedError", "forbidden", "This sender may not call this method.")) });
    return false;
  }
  Promise.resolve(method.handle(message.params ?? {}, sender)).then(
    (done) => reply({ done: done ?? {} }),
    (thrown) => reply({ error: toWire(thrown) }),
  );
  return true;
});

chrome.windows.onRemoved.addListener((windowId) => prompts.windowClosed(windowId, announce));

void grants.lockStorage();
