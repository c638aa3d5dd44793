// The router: the end of every port. It decides who is heard, keeps requests apart, and hands them to the engine's worker.
// Nothing here waits for the service worker while tokens flow.

import { Activity, figures } from "./activity.js";
import { Engine } from "./engine.js";
import { QUOTA } from "./limits.js";
import { Models } from "./models.js";
import { PageConnection, requesterOf } from "./page-connection.js";
import { Quota } from "./quota.js";
import { isOwnPage, UiConnection } from "./ui-connection.js";
import { acquire } from "../shared/router-lock.js";
import * as tunings from "../shared/tunings.js";

// There is one router. This document opened in a tab would be another, and pages' requests would reach both.
if ("tabs" in chrome) throw new Error("DOPPLER's router runs in the offscreen document only.");

/** @type {Set<PageConnection>} */
const pages = new Set();
/** @type {Set<UiConnection>} */
const uis = new Set();

/**
 * @template {keyof import("../shared/protocol.js").UiEvents} E
 * @param {E} event
 * @param {import("../shared/protocol.js").UiEvents[E]} detail
 */
function tellUis(event, detail) {
  for (const ui of uis) ui.tell(event, detail);
}

const activity = new Activity((sites) => tellUis("activity", { sites }));
const quota = new Quota(QUOTA);
const engine = new Engine({
  status: onStatus,
  activity: (origins) => activity.update(origins),
  answer: answerEngine,
  death(origin) {
    models.closeAll();
    if (origin !== undefined) quota.pause(origin);
  },
});
const models = new Models(engine);

/** Resolves once what a document before this one had open at the native host is closed. */
const alone = acquire();

/**
 * @param {string} method
 * @param {any} params
 */
async function answerEngine(method, params) {
  if (method.startsWith("tuning.")) return tunings.answer(method, params);
  await alone;
  return models.answer(method, params);
}

/** The model pages were told of last. @type {string | undefined} */
let model;
/** The model that is loaded. @type {import("../shared/protocol.js").Model | undefined} */
let loaded;

/** @param {import("../shared/protocol.js").EngineStatus} status */
function onStatus(status) {
  tellUis("status", status);
  loaded = status.model;
  const { state, id, progress = 1 } = status;
  // All of it is there when an answer is.
  if (state === "loading" && progress < 1 && models.answers(id)) {
    for (const page of pages) page.loading(progress);
  }
  if (!status.model || status.model.id === model) return;
  model = status.model.id;
  // Pages learn which model answers, nothing about the machine it runs on.
  for (const page of pages) void page.tell("modelchange", { model: models.pageId(model) });
}

/** @type {Promise<ReturnType<typeof import("./conversations.js").createConversations>> | undefined} */
let conversations;

/** Loaded when the popup first asks: pages do without. */
const openConversations = () => conversations ??= import("./conversations.js").then(({ createConversations }) =>
  createConversations({
    request: (method, params, onChunk, signal, resume) =>
      engine.request(method, models.complete(method, params), { onChunk, signal, origin: location.origin, resume }),
    broadcast: tellUis,
  }));

/** @returns {Promise<import("../shared/protocol.js").ActivityList>} */
async function listActivity() {
  const asked = [...pages].flatMap(({ origin, chats }) => Array(chats).fill(origin));
  const origins = engine.chats;
  const open = [...asked, ...origins.filter((origin) => origin === location.origin)];
  if (open.length === 0) return { origins: [], model: loaded };
  // Without conversations there may be no worker, and none is started to say so.
  const { chats } = origins.length > 0 ? await engine.request("engine.chats", {}) : { chats: [] };
  return { origins: figures(open, chats, await models.chosenName()), model: loaded };
}

/** The user wants no more of an origin's answers. @param {string} origin */
function stop(origin) {
  for (const page of pages) if (page.origin === origin) page.stop();
  if (origin !== location.origin) return;
  for (const ui of uis) ui.stop();
  void conversations?.then((conversations) => conversations.stop());
}

chrome.runtime.onConnect.addListener((port) => {
  const requester = requesterOf(port.sender);
  if (port.name === "doppler" && requester) {
    const page = new PageConnection(port, requester, engine, models, quota, () => pages.delete(page));
    pages.add(page);
  } else if (port.name === "doppler-ui" && isOwnPage(port.sender)) {
    const ui = new UiConnection(port, engine, models, openConversations, {
      get sites() { return activity.sites; },
      list: listActivity,
      stop,
    });
    uis.add(ui);
    port.onDisconnect.addListener(() => {
      uis.delete(ui);
      ui.gone();
    });
  } else {
    port.disconnect();
  }
});

/** The service worker has no origin and no tab, only an address. */
const SERVICE_WORKER = chrome.runtime.getURL("extension/background/service-worker.js");

/** The service worker announces that grants of an origin may have changed. */
chrome.runtime.onMessage.addListener((message, sender) => {
  if (message?.to !== "router" || sender.id !== chrome.runtime.id || sender.url !== SERVICE_WORKER || sender.tab) return false;
  const { origin, asked } = message.change;
  for (const page of pages) {
    if (page.origin === origin) void page.regrant(asked === true);
  }
  return false;
});
