/** How evenly a router spreads tokens over its experts. */

export interface RoutingStats {
  /** Choices per expert. */
  readonly counts: readonly number[];
  /** Largest count over mean count; 1 is even. */
  readonly maxLoad: number;
  /** Experts that were never chosen. */
  readonly deadExperts: number;
  /** Entropy of the choices in nats; ln E is even. */
  readonly entropy: number;
}

export function routingStats(counts: readonly number[]): RoutingStats {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const entropy = counts.reduce((sum, count) => (count > 0 ? sum - (count / total) * Math.log(count / total) : sum), 0);
  return {
    counts,
    maxLoad: total > 0 ? (Math.max(...counts) * counts.length) / total : 0,
    deadExperts: counts.filter((count) => count === 0).length,
    entropy,
  };
}
