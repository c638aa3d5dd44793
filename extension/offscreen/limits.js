// The router's limits. In a file of its own, for tests that cannot wait.

/**
 * Requests of one origin that the engine has and that wait here, and those of hidden tabs that the engine has of all origins together.
 * The engine orders what it has; these limits are for memory, of which a request takes up to 1 MiB.
 */
export const QUOTA = { running: 16, queued: 64, background: 64 };

/** Parts of an answer that may be on their way to a page unread. A page that is busy, or frozen in the background, gets no more. */
export const MAX_UNREAD = 128;

/**
 * When a worker that does not answer is ended: it is asked every so many ms while it has something to do, and may leave so many
 * in a row without an answer. Its event loop answers, so this is the longest that one piece of work may keep it: shaders are
 * compiled, models read and weights packed in many.
 */
export const HEARTBEAT = { every: 5000, missed: 6 };
