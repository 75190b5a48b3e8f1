/** How many steps fit into a time, by the speed of a trial. */

/** A trial takes so long, and three steps at least. */
const TRIAL_MS = 5000;
const TRIAL_STEPS = 3;
const MIN_STEPS = 20;

/** Milliseconds of a step: the median of a trial. */
export async function measureStep(step: () => Promise<{ readonly ms: number }>, now: () => number): Promise<number> {
  const times: number[] = [];
  const start = now();
  while (now() - start < TRIAL_MS || times.length < TRIAL_STEPS) times.push((await step()).ms);
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

/** Steps that take about so long, 20 at least. */
export function stepsWithin(minutes: number, msPerStep: number): number {
  return Math.max(MIN_STEPS, Math.round((minutes * 60_000) / msPerStep));
}
