// Where a permission window opens: near the top of the browser's, and never under the pointer.

/** Between the pointer and the window, in px. */
const MARGIN = 24;
/** Below the top of the browser's window, where its tabs and its address stay to be seen, in px. */
const TOP = 120;

/**
 * @typedef {{left: number, top: number}} Place
 * @typedef {{width: number, height: number}} Size
 * @typedef {{x: number, y: number}} Point   all in px of the screen
 */

/**
 * Where a window may open, the best place first.
 * @param {Size} size
 * @param {Place & Size} around  the browser's window
 * @param {Point | undefined} pointer  where the user pressed last
 * @returns {Place[]}  none of them is under the pointer
 */
export function places(size, around, pointer) {
  const [across, down] = [Math.max(0, around.width - size.width), Math.max(0, around.height - size.height)];
  const inside = [Math.min(TOP, down), down].flatMap((below) =>
    [0.5, 0, 1].map((share) => ({ left: around.left + share * across, top: around.top + below })));
  if (!pointer) return inside.map(whole);
  const { x, y } = pointer;
  const beside = [
    { left: x + MARGIN, top: around.top },
    { left: x - MARGIN - size.width, top: around.top },
    { left: around.left, top: y + MARGIN },
    { left: around.left, top: y - MARGIN - size.height },
  ];
  const clear = (/** @type {Place} */ { left, top }) =>
    x <= left - MARGIN || x >= left + size.width + MARGIN || y <= top - MARGIN || y >= top + size.height + MARGIN;
  return [...inside, ...beside].filter(clear).map(whole);
}

/** @param {Place} place @returns {Place} */
const whole = ({ left, top }) => ({ left: Math.round(left), top: Math.round(top) });

/**
 * A point that a page's process told of, which may be anything.
 * @param {any} value
 * @returns {Point | undefined}
 */
export function checkedPoint(value) {
  const fits = (/** @type {unknown} */ n) => typeof n === "number" && Math.abs(n) < 1e5;
  return fits(value?.x) && fits(value?.y) ? { x: value.x, y: value.y } : undefined;
}
