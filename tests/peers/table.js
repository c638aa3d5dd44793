// A comparison for people, as Markdown.

/** @typedef {import("./compare.js").Comparison} Comparison */

/**
 * What is compared: the lengths that the project's targets name, or the nearest that were measured.
 * @param {Comparison} comparison
 * @returns {string}
 */
export function table({ date, browser, adapter, shape, quant, prompts, tokens, engines }) {
  const nearest = (/** @type {number} */ wanted) => prompts.reduce((best, _, i) => Math.abs((prompts[i] ?? 0) - wanted) < Math.abs((prompts[best] ?? 0) - wanted) ? i : best, 0);
  const [long, short] = [nearest(512), nearest(64)];
  const device = [adapter.vendor, adapter.architecture, adapter.description, adapter.driver, adapter.features.join(" ") || "no f16, no subgroups"];
  const heading = [
    `${shape} ${quant}`, "runs", `decode after ${prompts[long]}, tokens/s`, `prefill at ${prompts[long]}, tokens/s`, `first token at ${prompts[short]}, ms`, "load, s", "by",
  ];
  const rows = engines.map(({ name, error, runs: [first, ...rest], median }) => {
    const [after, before] = [median?.lengths[long], median?.lengths[short]];
    if (!first || !median || !after || !before) return [name, "", "", "", "", "", error ?? ""];
    return [
      `${name} ${first.version}`, `${1 + rest.length}`, after.decode_tokens_per_second.toFixed(1), after.prefill_tokens_per_second.toFixed(0),
      before.first_token_ms.toFixed(1), median.load_seconds.toFixed(1), first.backend + (error ? `; then: ${error}` : ""),
    ];
  });
  return [
    `${date.slice(0, 10)}, ${/Chrom\w*\/[\d.]+/.exec(browser)?.[0] ?? browser}, ${device.filter(Boolean).join(", ")}; answers of ${tokens} tokens, medians`,
    "",
    ...[heading, heading.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`),
  ].join("\n");
}
