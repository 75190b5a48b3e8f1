/** Tokens sent to their experts, or back, over one link. */

export interface AllToAll {
  /** Tokens of one device. */
  readonly tokens: number;
  /** Experts, or nodes, that each is sent to. */
  readonly destinations: number;
  /** Elements of a token, and bytes of one: dispatch and combine together where both are asked for. */
  readonly width: number;
  readonly bytes: number;
}

/** Seconds that the link needs at its peak. **Source:** Insights into DeepSeek-V3 (arXiv 2505.09343), 2.3.2. */
export function allToAllSeconds({ tokens, destinations, width, bytes }: AllToAll, bytesPerSec: number): number {
  return (tokens * destinations * width * bytes) / bytesPerSec;
}
