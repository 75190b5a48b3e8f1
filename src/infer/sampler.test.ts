import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Rng } from "../core/rng.ts";
import { sample, type SamplingConfig } from "./sampler.ts";

const PLAIN: SamplingConfig = { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1 };
const GREEDY: SamplingConfig = { ...PLAIN, temperature: 0 };
const NOTHING: ReadonlySet<number> = new Set();
/** Probabilities 0.4, 0.05, 0.3, 0.05, 0.2 up to a common shift of the logits. */
const PROBABILITIES = [0.4, 0.05, 0.3, 0.05, 0.2];
const LOGITS = Float32Array.from(PROBABILITIES, (p) => Math.log(p) + 3);
const DRAWS = 20_000;

function frequencies(config: SamplingConfig, seen = NOTHING): number[] {
  const rng = new Rng(11, "sampler.test");
  const counts = LOGITS.map(() => 0);
  for (let i = 0; i < DRAWS; i++) counts[sample(LOGITS, seen, config, rng)]!++;
  return Array.from(counts, (count) => count / DRAWS);
}

/** Each frequency within five standard deviations; impossible tokens never. */
function expectDistribution(observed: readonly number[], expected: readonly number[]): void {
  for (const [id, p] of expected.entries()) {
    const error = Math.abs(observed[id]! - p);
    expect(error, `token ${id}: ${observed[id]} for ${p}`).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / DRAWS));
  }
}

/** Probabilities after raising to 1 / temperature and normalising over the kept ids. */
function exact(kept: readonly number[], temperature = 1): number[] {
  const powers = PROBABILITIES.map((p, id) => (kept.includes(id) ? p ** (1 / temperature) : 0));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

describe("temperature 0", () => {
  test("takes the largest logit, ties to the lowest id", () => {
    const rng = new Rng(0, "sampler.test");
    expect(sample(Float32Array.from([1, 5, 3, 5]), NOTHING, GREEDY, rng)).toBe(1);
    expect(sample(Float32Array.from([-1, -1, -1]), NOTHING, GREEDY, rng)).toBe(0);
    expect(rng.state.position).toBe(0);
  });

  test("heeds the repetition penalty: positive logits are divided, negative ones multiplied", () => {
    const rng = new Rng(0, "sampler.test");
    const penalised = { ...GREEDY, repetitionPenalty: 2 };
    expect(sample(Float32Array.from([3, 2, 1]), new Set([0]), penalised, rng)).toBe(1);
    expect(sample(Float32Array.from([-2, -3, -5]), new Set([0]), penalised, rng)).toBe(1);
    expect(sample(Float32Array.from([-2, -5, -6]), new Set([0]), penalised, rng)).toBe(0);
  });
});

describe("draws", () => {
  test.each([0.5, 1, 2])("follow the softmax at temperature %f", (temperature) => {
    expectDistribution(frequencies({ ...PLAIN, temperature }), exact([0, 1, 2, 3, 4], temperature));
  });

  test("with top-k come from the k likeliest, ties to the lower id", () => {
    expectDistribution(frequencies({ ...PLAIN, topK: 2 }), exact([0, 2]));
    expectDistribution(frequencies({ ...PLAIN, topK: 4 }), exact([0, 1, 2, 4]));
    expectDistribution(frequencies({ ...PLAIN, topK: 99 }), exact([0, 1, 2, 3, 4]));
  });

  test("with top-p come from the shortest run that holds p", () => {
    expectDistribution(frequencies({ ...PLAIN, topP: 0.01 }), exact([0]));
    expectDistribution(frequencies({ ...PLAIN, topP: 0.6 }), exact([0, 2]));
    expectDistribution(frequencies({ ...PLAIN, topP: 0.75 }), exact([0, 2, 4]));
  });

  test("apply top-k before top-p, and temperature before both", () => {
    // Of the two likeliest, token 0 alone holds 0.4 / 0.7 of the probability.
    expectDistribution(frequencies({ ...PLAIN, topK: 2, topP: 0.57 }), exact([0]));
    // At temperature 0.25 it holds 0.73 of all.
    expectDistribution(frequencies({ ...PLAIN, temperature: 0.25, topP: 0.7 }), exact([0]));
  });

  test("a repetition penalty makes seen tokens rarer and leaves the logits as they were", () => {
    const before = LOGITS.slice();
    const [first] = frequencies({ ...PLAIN, repetitionPenalty: 1.5 }, new Set([0]));
    expect(first).toBeLessThan(0.3);
    expect(LOGITS).toEqual(before);
  });

  test("are the same for the same seed and differ for another", () => {
    const draw = (seed: number): number[] => {
      const rng = new Rng(seed, "sample");
      return Array.from({ length: 50 }, () => sample(LOGITS, NOTHING, PLAIN, rng));
    };
    expect(draw(3)).toEqual(draw(3));
    expect(draw(3)).not.toEqual(draw(4));
  });
});

/** The same draw by sorting the whole vocabulary. */
function drawSorted(logits: Float32Array, { temperature, topK, topP }: SamplingConfig, uniform: number): number {
  const ids = Array.from(logits.keys()).toSorted((a, b) => logits[b]! - logits[a]! || a - b);
  const candidates = topK > 0 ? ids.slice(0, topK) : ids;
  const weights = candidates.map((id) => Math.exp((logits[id]! - logits[ids[0]!]!) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let mass = 0;
  const kept = weights.findIndex((weight) => (mass += weight) >= topP * total) + 1 || weights.length;
  let left = uniform * mass;
  const at = weights.slice(0, kept).findIndex((weight) => (left -= weight) < 0);
  return candidates[at < 0 ? kept - 1 : at]!;
}

test("draws are those of the sorted vocabulary, with equal and banned logits among them", () => {
  const size = 500;
  const rng = new Rng(2, "logits");
  for (const [i, temperature] of [0.3, 0.8, 1, 3].entries()) {
    // Steps of a quarter make ties; the last id is banned.
    const logits = Float32Array.from({ length: size }, () => Math.round(40 * (rng.uniform() - 0.5) ** 3 * 16) / 4);
    logits.fill(-Infinity, size - 1 - i);
    for (const topK of [0, 1, 7, 499, 900]) {
      for (const topP of [0, 0.05, 0.6, 0.95, 1]) {
        const config = { temperature, topK, topP, repetitionPenalty: 1 };
        for (let seed = 0; seed < 10; seed++) {
          const expected = drawSorted(logits, config, new Rng(seed, "sample").uniform());
          expect(sample(logits, NOTHING, config, new Rng(seed, "sample"))).toBe(expected);
        }
      }
    }
  }
});

test("the drawn token is among the k largest logits, whatever the logits", () => {
  const logits = fc.array(fc.float({ min: -80, max: 80, noNaN: true }), { minLength: 1, maxLength: 30 });
  const settings = fc.record({
    temperature: fc.double({ min: 0.05, max: 10, noNaN: true }),
    topK: fc.integer({ min: 0, max: 40 }),
    topP: fc.double({ min: 0.01, max: 1, noNaN: true }),
    repetitionPenalty: fc.constant(1),
  });
  fc.assert(
    fc.property(logits, settings, fc.nat(), (values, config, seed) => {
      const id = sample(Float32Array.from(values), NOTHING, config, new Rng(seed, "sample"));
      const larger = values.filter((value) => value > values[id]!).length;
      expect(larger).toBeLessThan(config.topK === 0 ? values.length : config.topK);
    }),
    { seed: 5 },
  );
});
