// Showing an origin to a person.

import { getDomain } from "../pkg/tldts.js";

/**
 * A host name in two parts, by the Public Suffix List: the part that was registered, and what its owner put before it.
 * @param {string} hostname
 * @returns {{before: string, registered: string}}  an address, or a name that is itself a suffix, is registered as a whole
 */
export function partsOf(hostname) {
  // A dot at the end is part of the name, and not of what the list knows.
  const bare = hostname.replace(/\.$/, "");
  const before = bare.length - (getDomain(bare, { allowPrivateDomains: true }) ?? bare).length;
  return { before: hostname.slice(0, before), registered: hostname.slice(before) };
}

/**
 * Writes an origin into an element, in full and unmistakably: host names stay in their ASCII form (a look-alike shows as
 * "xn--…"), the registered part stands out and is in view, and the text runs left to right whatever
 * surrounds it.
 * @param {HTMLElement} element
 * @param {string} origin  as the browser attested it, e.g. "https://example.org:8443"
 */
export function showOrigin(element, origin) {
  const { protocol, hostname, port } = new URL(origin);
  const { before, registered } = partsOf(hostname);
  element.dir = "ltr";
  const name = document.createElement("strong");
  name.textContent = registered;
  element.replaceChildren(`${protocol}//${before}`, name, port && `:${port}`);
  element.scrollTop = element.scrollHeight;
}
