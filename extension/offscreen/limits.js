// The router's limits. In a file of its own, for tests that cannot wait.

/** Requests of one origin. */
export const QUOTA = { running: 4, queued: 16 };

/**
 * When a worker that does not answer is ended: it is asked every so many ms while it has something to do, and may leave so many
 * in a row without an answer. Its event loop answers, so this is the longest that one piece of work may keep it: shaders are
 * compiled, models read and weights packed in many.
 */
export const HEARTBEAT = { every: 5000, missed: 6 };
