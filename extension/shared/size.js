/** Bytes for people. @param {number} bytes */
export const size = (bytes) => bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
