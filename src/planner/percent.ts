/** A share in 0 to 1 in per cent, to one decimal at most: `24.9 %`, `85 %`. */
export function percent(share: number): string {
  return `${Number((100 * share).toFixed(1))} %`;
}
