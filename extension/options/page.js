// Parts of the options page.

/** @param {string} id  of an element of options.html */
export const find = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** A cell of a table. @param {string | Node} content */
export function cell(content) {
  const td = document.createElement("td");
  td.append(content);
  return td;
}
