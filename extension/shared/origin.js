// Showing an origin to a person.

/**
 * Writes an origin into an element, in full and unmistakably: host names stay in their ASCII form (a look-alike shows as
 * "xn--…"), the part a registrar answers for stands out, and the text runs left to right whatever surrounds it.
 * @param {HTMLElement} element
 * @param {string} origin  as the browser attested it, e.g. "https://example.org:8443"
 */
export function showOrigin(element, origin) {
  const { protocol, host } = new URL(origin);
  element.dir = "ltr";
  const name = document.createElement("strong");
  name.textContent = host;
  element.replaceChildren(`${protocol}//`, name);
}
