// What every engine is asked, and how its answers become figures.

/**
 * `model`: URL of a GGUF file of the shape; `onnx`: URL of a folder with the shape for transformers.js.
 * @typedef {{shape: string, quant: string, prompts: number[], tokens: number, context: number, model?: string, onnx?: string}} Asked
 * @typedef {{prompt_tokens: number, first_token_ms: number, prefill_tokens_per_second: number, decode_tokens_per_second: number}} Length
 *   `prompt_tokens` as the engine counts them
 * @typedef {{version: string, backend: string, load_seconds: number, lengths: Length[]}} Run
 *   `backend`: what computed; `load_seconds`: from a file that is at hand to a model that is ready
 * @typedef {{prompt_tokens: number, tokens: number, first: number, last: number}} Answer
 *   `first`, `last`: when the first and the last of the tokens came, in ms from the call
 */

/**
 * Asks for an answer to a prompt of each length, after one that is not counted.
 * @param {Asked} asked
 * @param {(length: number, seed: number) => Promise<Answer>} answer  greedy, `asked.tokens` long, no prompt like another
 * @returns {Promise<Length[]>}
 */
export async function timeLengths({ prompts }, answer) {
  /** @type {Length[]} */
  const lengths = [];
  for (const length of prompts) {
    await answer(length, 1);
    const { prompt_tokens, tokens, first, last } = await answer(length, 2);
    lengths.push({
      prompt_tokens,
      first_token_ms: first,
      prefill_tokens_per_second: prompt_tokens * 1e3 / first,
      decode_tokens_per_second: (tokens - 1) * 1e3 / (last - first),
    });
  }
  return lengths;
}

/**
 * Pseudo-random numbers below a bound: the same for a seed.
 * @param {number} seed
 */
export function randomNumbers(seed) {
  let state = seed;
  return (/** @type {number} */ bound) => {
    // The constants are those of Numerical Recipes; the upper bits are the better ones.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * bound);
  };
}
