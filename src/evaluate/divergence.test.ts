import { expect, test } from "vitest";
import { byteModel, openByteScorer, textOf } from "../../test/helpers/byte-scorer.ts";
import { createByteTokenizer, FIRST_BYTE_ID } from "../../test/helpers/byte-tokenizer.ts";
import { packDocuments, randomModel, uploadPacked, valuesOf } from "../../test/helpers/random-model.ts";
import { softmax } from "../../test/reference-model/arrays.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { parseTokenizer } from "../tokenizer/index.ts";
import { distributionOf, divergence, evaluateDivergence } from "./divergence.ts";
import { Scorer } from "./scorer.ts";

const WINDOWS = { kind: "sliding", context: 96, stride: 48 } as const;

test("the divergence of two distributions is that computed by hand, and not the other way round", () => {
  // (1/4, 3/4) and (1/2, 1/2), whatever is added to all logits.
  const a = [5, 5 + Math.log(3)];
  const b = [-2, -2];
  expect(divergence(a, b)).toBeCloseTo(0.25 * Math.log(1 / 2) + 0.75 * Math.log(3 / 2), 14);
  expect(divergence(b, a)).toBeCloseTo(0.5 * Math.log(2) + 0.5 * Math.log(2 / 3), 14);
  expect(divergence(a, a)).toBe(0);
});

test("percentiles lie linearly between neighbours", () => {
  const { tokens, mean, meanError, percentile50, percentile90, percentile99, max } = distributionOf(
    Float64Array.of(4, 0, 3, 1, 2, 10),
  );
  expect([tokens, percentile50, percentile90, max]).toEqual([6, 2.5, 7, 10]);
  expect(percentile99).toBeCloseTo(9.7, 12);
  expect(mean).toBeCloseTo(20 / 6, 12);
  expect(meanError).toBeCloseTo(Math.sqrt((130 - 400 / 6) / 5 / 6), 12);
});

test("a model does not diverge from itself", async () => {
  using a = await openByteScorer();
  using b = await openByteScorer();
  const result = await evaluateDivergence(a, b, textOf([["itself, in two documents"], ["the second"]], WINDOWS));
  expect(result).toEqual({
    ...{ windows: 2, tokens: 34, mean: 0, meanError: 0, topOneAgreement: 1 },
    ...{ percentile50: 0, percentile90: 0, percentile99: 0, max: 0 },
  });
});

test("two models diverge as their distributions say", async () => {
  const text = "another model";
  const ids = [0, ...[...new TextEncoder().encode(text)].map((byte) => byte + FIRST_BYTE_ID)];
  const distributions = [6, 7].map((seed) => {
    using scope = Scope.root(createReferenceBackend());
    const model = randomModel(scope, byteModel().model, seed);
    const batch = uploadPacked(scope, model.config, packDocuments([ids]));
    const logits = Array.from(valuesOf(model.logits(scope, batch.tokens, batch)));
    return ids.slice(1).map((_, row) => softmax(logits.slice(259 * row, 259 * (row + 1))));
  });
  const [ps, qs] = distributions as [number[][], number[][]];
  const values = ps.map((p, row) => p.reduce((sum, x, id) => sum + x * Math.log(x / qs[row]![id]!), 0));
  const likeliest = (p: number[]): number => p.indexOf(Math.max(...p));
  const agreements = ps.filter((p, row) => likeliest(p) === likeliest(qs[row]!)).length;
  using a = await openByteScorer({ seed: 6 });
  using b = await openByteScorer({ seed: 7 });
  const result = await evaluateDivergence(a, b, textOf([[text]], WINDOWS));
  expect(result.mean).toBeCloseTo(values.reduce((sum, value) => sum + value, 0) / values.length, 5);
  expect(result.max).toBeCloseTo(Math.max(...values), 5);
  expect(result.topOneAgreement).toBe(agreements / values.length);
});

test("models of different vocabularies are refused with the first difference", async () => {
  using a = await openByteScorer();
  using wide = await openByteScorer({ settings: byteModel({ vocab_size: 320 }) });
  const renamed = JSON.parse(
    createByteTokenizer()
      .toJson()
      .replaceAll('"A"', '"\\u0000"')
      .replaceAll('"B"', '"A"')
      .replaceAll('"\\u0000"', '"B"'),
  );
  const settings = byteModel();
  using swapped = await Scorer.open({
    backend: createReferenceBackend(),
    settings,
    tokenizer: parseTokenizer(renamed),
    openWeights: (scope) => randomModel(scope, settings.model).parameters,
  });
  const refusal = (b: Scorer): Promise<string> =>
    evaluateDivergence(a, b, textOf([["text"]], WINDOWS)).then(String, String);
  expect([await refusal(wide), await refusal(swapped)]).toMatchInlineSnapshot(`
    [
      "ConfigError: model B: must have as many rows in its head as A (259), got 320; give two models of one vocabulary",
      "ConfigError: model B: must have the vocabulary of A, where "A" is 68, got 69; give two models of one vocabulary",
    ]
  `);
});
