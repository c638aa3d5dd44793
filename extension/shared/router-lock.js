// How the service worker learns that the offscreen document has ended, which no event tells it: the browser takes a lock back from
// whoever ended, in whatever way.

const NAME = "router";

/**
 * Holds the lock to the end of this document.
 * @returns {Promise<void>}  resolves once it is held
 */
export const hold = () => new Promise((held) => {
  void navigator.locks.request(NAME, () => {
    held();
    return new Promise(() => {});
  });
});

/**
 * Calls back when nobody holds the lock, and nobody does before the callback is done.
 * @param {() => void} callback
 */
export const whenFree = (callback) => void navigator.locks.request(NAME, callback);
