/**
 * The names under which a checkpoint holds the scales of weights whose stored values alone are not the weights.
 *
 * **Source:** deepseek-ai/DeepSeek-V3 README_WEIGHTS.md (weight_scale_inv) and inference/convert.py (scale);
 * vllm-project/compressed-tensors (weight_scale).
 */

/** What stands behind a weight's name, by its type, in folders of V3 and of compressed-tensors. */
export const SCALE_SUFFIXES = { F8_E4M3: "_scale_inv", I8: "_scale" } as const;

/** V4's folders and those of DeepSeek's demo. */
const WEIGHT = /\.weight$/;
const SCALE = /\.scale$/;

/** The names that the scales of a weight may have. */
export function scaleNames(weight: string): string[] {
  const suffixed = Object.values(SCALE_SUFFIXES).map((suffix) => weight + suffix);
  return WEIGHT.test(weight) ? [...suffixed, weight.replace(WEIGHT, ".scale")] : suffixed;
}

/** The weights whose scales a tensor may be by its name; none for most names. */
export function scaledWeights(name: string): string[] {
  const suffixed = Object.values(SCALE_SUFFIXES).filter((suffix) => name.endsWith(suffix));
  const weights = suffixed.map((suffix) => name.slice(0, -suffix.length));
  return SCALE.test(name) ? [...weights, name.replace(SCALE, ".weight")] : weights;
}
