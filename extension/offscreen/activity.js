// Which sites are being answered. The extension's pages are told at once, the toolbar's icon shows it if it lasts, and the list in the
// options has the figures of each.

import { background } from "../shared/background.js";

/** How long a site must be answered before the icon shows it, and none before the icon is cleared, in ms: each wakes the service worker. */
const DELAY = { shown: 500, cleared: 2000 };

/**
 * The figures of each origin, for the list in the options.
 * @param {string[]} open  the origin of each conversation that has not ended
 * @param {import("../shared/protocol.js").RunningChat[]} chats  those that the engine has
 * @param {string} chosen  the name of the model that answers those for which none is loaded yet
 * @returns {import("../shared/protocol.js").OriginActivity[]}
 */
export function figures(open, chats, chosen) {
  return [...new Set(open)].toSorted().map((origin) => {
    const own = chats.filter((chat) => chat.origin === origin);
    const computed = own.filter(({ running }) => running);
    const sum = (/** @type {"tokens" | "tokens_per_second"} */ field) => computed.reduce((sum, chat) => sum + chat[field], 0);
    const models = [...new Set(own.map(({ model }) => model ?? chosen))];
    return {
      origin,
      models: models.length > 0 ? models : [chosen],
      running: computed.length,
      // One that was cancelled may still be computed.
      waiting: Math.max(0, open.filter((asks) => asks === origin).length - computed.length),
      tokens: sum("tokens"),
      tokens_per_second: sum("tokens_per_second"),
    };
  });
}

export class Activity {
  /** Origins, sorted. @type {string[]} */
  sites = [];
  /** The sites that the icon shows. */
  #shown = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #tell;

  /** @param {(sites: string[]) => void} tell  called with every change */
  constructor(tell) {
    this.#tell = tell;
    // A router before this one may have ended in mid-answer.
    this.#show();
  }

  /** @param {string[]} origins  the origins that are being answered, the extension's own among them */
  update(origins) {
    const sites = origins.filter((origin) => origin !== location.origin).toSorted();
    if (String(sites) === String(this.sites)) return;
    this.sites = sites;
    this.#tell(sites);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (String(this.sites) !== this.#shown) this.#show();
    }, sites.length > 0 ? DELAY.shown : DELAY.cleared);
  }

  #show() {
    this.#shown = String(this.sites);
    // The icon is a courtesy: what cannot be shown is shown with the next change.
    background("activity.show", { sites: this.sites }).catch(() => { this.#shown = "?"; });
  }
}
