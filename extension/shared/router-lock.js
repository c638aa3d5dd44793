// How the service worker learns that the offscreen document has ended, which no event tells it: the browser releases the
// lock of a document that has ended, for any reason.

const NAME = "router";

/**
 * Acquires the lock until the end of this document.
 * @returns {Promise<void>}  resolves once it is acquired
 */
export const acquire = () => new Promise((acquired) => {
  void navigator.locks.request(NAME, () => {
    acquired();
    return new Promise(() => {});
  });
});

/**
 * Calls back when no document has the lock; none acquires it before the callback is done.
 * @param {() => void} callback
 */
export const whenFree = (callback) => void navigator.locks.request(NAME, callback);
