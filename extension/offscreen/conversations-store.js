/**
 * Where conversations are kept between browser sessions: one IndexedDB object store, one record per conversation.
 *
 * @typedef {import("./conversations.js").Conversation} Conversation
 *
 * @typedef {object} ConversationStore
 * @property {() => Promise<Conversation[]>} load      every stored conversation, in no particular order
 * @property {(conversation: Conversation) => Promise<void>} put     inserts or replaces; takes its copy synchronously
 * @property {(id: string) => Promise<void>} delete    resolves as well when there is no such conversation
 */

import { openStore } from "../shared/database.js";

/** @returns {ConversationStore} */
export function indexedDbStore() {
  const transact = openStore("doppler", "conversations");
  return {
    load: () => transact("readonly", (store) => store.getAll()),
    put: async (conversation) => {
      const copy = structuredClone(conversation);
      await transact("readwrite", (store) => store.put(copy));
    },
    delete: async (id) => {
      await transact("readwrite", (store) => store.delete(id));
    },
  };
}
