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
 * A write is durable once the transaction is complete: a full disk may show only then.
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
function completed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new DOMException("The browser gave the transaction up.", "AbortError"));
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
      const transaction = (await opened).transaction(store, mode);
      const [result] = await Promise.all([settled(run(transaction.objectStore(store))), completed(transaction)]);
      return result;
    } catch (error) {
      opened = undefined;
      throw error;
    }
  };
}
