// One object store of an IndexedDB database, whose records have an `id`.

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

/**
 * Opens a store by its first use.
 *
 * @param {string} database  a database of this store alone
 * @param {string} store
 */
export function openStore(database, store) {
  /** @type {Promise<IDBDatabase> | undefined} */
  let opened;

  function open() {
    const request = indexedDB.open(database, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(store, { keyPath: "id" });
    };
    return settled(request);
  }

  /**
   * Runs one request; a failed opening is tried again by the next call.
   *
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest<T>} run
   * @returns {Promise<T>}
   */
  return async function transact(mode, run) {
    opened ??= open();
    try {
      return await settled(run((await opened).transaction(store, mode).objectStore(store)));
    } catch (error) {
      opened = undefined;
      throw error;
    }
  };
}
