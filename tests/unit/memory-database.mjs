// As much of IndexedDB as the extension uses of it, in memory.

/** @returns {any}  what takes the place of `indexedDB` */
export function memoryDatabase() {
  /** @type {Map<string, any>} */
  const records = new Map();
  const request = (/** @type {unknown} */ result) => {
    const request = { result, onsuccess() {} };
    queueMicrotask(() => request.onsuccess());
    return request;
  };
  const store = {
    get: (/** @type {string} */ id) => request(records.get(id)),
    getAll: () => request([...records.values()]),
    put: (/** @type {{id: string}} */ record) => request(records.set(record.id, record)),
    delete: (/** @type {string} */ id) => request(records.delete(id)),
  };
  const transaction = () => {
    const transaction = { objectStore: () => store, oncomplete() {} };
    setTimeout(() => transaction.oncomplete());
    return transaction;
  };
  return { open: () => request({ transaction }) };
}
