// Tables in a terminal.

/**
 * Prints rows below each other, right-aligned.
 * @param {string[][]} rows
 * @param {(line: string) => void} [print]
 */
export function printTable(rows, print = console.log) {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  for (const row of rows) print(row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join("  "));
}
