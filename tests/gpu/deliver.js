// How a page hands its result to whoever opened it.

/**
 * Does the page's work, shows its result and hands it to page_runner.py.
 * @param {() => Promise<object>} work
 */
export async function deliver(work) {
  const result = JSON.stringify(await work().catch((error) => ({ error: String(error) })), null, 1);
  const out = document.getElementById("out");
  if (out) out.textContent = result;
  await fetch("/result", { method: "POST", body: result });
}
