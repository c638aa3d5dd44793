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

const DATABASE = "doppler";
const STORE = "conversations";

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @returns {Promise<IDBDatabase>} */
function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(STORE, { keyPath: "id" });
  };
  return settled(request);
}

/** @returns {ConversationStore} */
export function indexedDbStore() {
  /** @type {Promise<IDBDatabase> | undefined} */
  let database;

  /**
   * Runs one request; a failed opening is tried again by the next call.
   *
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest<T>} run
   * @returns {Promise<T>}
   */
  async function transact(mode, run) {
    database ??= open();
    try {
      return await settled(run((await database).transaction(STORE, mode).objectStore(STORE)));
    } catch (error) {
      database = undefined;
      throw error;
    }
  }

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
