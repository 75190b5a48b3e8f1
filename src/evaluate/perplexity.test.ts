import { describe, expect, test } from "vitest";
import { byteModel, openByteScorer, textOf } from "../../test/helpers/byte-scorer.ts";
import { FIRST_BYTE_ID } from "../../test/helpers/byte-tokenizer.ts";
import { testBackends } from "../../test/helpers/backends.ts";
import {
  packDocuments,
  randomModel,
  randomParameters,
  uploadPacked,
  valuesOf,
} from "../../test/helpers/random-model.ts";
import { softmax } from "../../test/reference-model/arrays.ts";
import { referenceForward } from "../../test/reference-model/model.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { LossStatistics, evaluatePerplexity } from "./perplexity.ts";

const BOS = 0;
const idsOf = (text: string): number[] =>
  [BOS, ...new TextEncoder().encode(text)].map((b, i) => (i ? b + FIRST_BYTE_ID : b));

/** −ln p of the last id after those before it, in float64 and without the rooms under test. */
function directLoss(ids: readonly number[]): number {
  using scope = Scope.root(createReferenceBackend());
  const { model } = byteModel();
  const parameters = randomParameters(scope, model, 6);
  const balance = { segments: [0, ids.length - 1], alpha: 0 };
  const { logits } = referenceForward(model, parameters, packDocuments([ids.slice(0, -1)]), balance);
  return -Math.log(softmax(logits.at(-1)!)[ids.at(-1)!]!);
}

const DOCUMENTS = [["Wer reitet so ", "spät durch"], ["Nacht"]];

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test("sliding windows give the mean of directly computed losses", async () => {
    const [context, stride] = [12, 5];
    const expected = DOCUMENTS.flatMap((pieces) => {
      const ids = idsOf(pieces.join(""));
      return ids.slice(1).map((_, i) => {
        const target = i + 1;
        const begin = stride * Math.max(0, Math.ceil((target - context) / stride));
        return directLoss(ids.slice(begin, target + 1));
      });
    });
    using scorer = await openByteScorer({ backend: create() });
    const result = await evaluatePerplexity(scorer, textOf(DOCUMENTS, { kind: "sliding", context, stride }));
    const nats = expected.reduce((sum, loss) => sum + loss, 0) / expected.length;
    expect(result.nats).toBeCloseTo(nats, 4);
    expect(result.perplexity / Math.exp(nats)).toBeCloseTo(1, 4);
    // Every token is a byte.
    expect(result.bitsPerByte).toBeCloseTo(nats / Math.LN2, 4);
    expect(result).toMatchObject({ windows: 1 + Math.ceil((25 - 12) / 5) + 1, tokens: 30, bytes: 30 });
  });

  test("chunks of llama.cpp give the mean of directly computed losses", async () => {
    const ids = idsOf("Es ist der Vater mit seinem Kind");
    const expected = [0, 16].flatMap((begin) =>
      Array.from({ length: 7 }, (_, i) => directLoss([BOS, ...ids.slice(begin + 1, begin + 10 + i)])),
    );
    using scorer = await openByteScorer({ backend: create() });
    const text = textOf([["Es ist der Vater mit seinem Kind"]], { kind: "llama.cpp", context: 16 });
    const result = await evaluatePerplexity(scorer, text);
    expect(result).toMatchObject({ windows: 2, tokens: 14 });
    expect(result.nats).toBeCloseTo(expected.reduce((sum, loss) => sum + loss, 0) / 14, 4);
  });

  test("chunks of logits are the rows of all logits", () => {
    using scope = Scope.root(create());
    const model = randomModel(scope, byteModel().model);
    const batch = uploadPacked(scope, model.config, packDocuments([idsOf("mit seinem Kind")]));
    const all = valuesOf(model.logits(scope, batch.tokens, batch));
    const chunks = [...model.logitChunks(scope, batch.tokens, batch, { from: 5, rows: 4 })].length;
    expect(chunks).toBe(3);
    let at = 5 * model.config.vocabSize;
    for (const chunk of model.logitChunks(scope, batch.tokens, batch, { from: 5, rows: 4 })) {
      for (const value of valuesOf(chunk)) expect(value).toBeCloseTo(all[at++]!, 4);
    }
    expect(at).toBe(all.length);
  });
});

test("errors are those of independent tokens, computed in one pass as in two", () => {
  const draws = [2.5, 0.25, 7, 1, 3.5].map((loss, i) => ({ loss, bytes: [4, 1, 6, 0, 3][i]! }));
  const statistics = new LossStatistics();
  for (const { loss, bytes } of draws) statistics.add(loss, bytes);
  const { nats, natsError, bitsPerByte, bitsPerByteError, perplexity, perplexityError } = statistics.result();
  const sum = (value: (draw: (typeof draws)[number]) => number): number =>
    draws.reduce((total, draw) => total + value(draw), 0);
  const ratio = 14.25 / 14;
  expect(nats).toBeCloseTo(2.85, 12);
  expect(natsError).toBeCloseTo(Math.sqrt(sum(({ loss }) => (loss - 2.85) ** 2) / 4 / 5), 12);
  expect(perplexity).toBeCloseTo(Math.exp(2.85), 12);
  expect(perplexityError).toBeCloseTo(Math.exp(2.85) * natsError, 12);
  expect(bitsPerByte).toBeCloseTo(ratio / Math.LN2, 12);
  const residual = Math.sqrt((5 / 4) * sum(({ loss, bytes }) => (loss - ratio * bytes) ** 2)) / 14;
  expect(bitsPerByteError).toBeCloseTo(residual / Math.LN2, 12);
});

test("a text that spells a special token is text about it", async () => {
  using scorer = await openByteScorer();
  const windows = { kind: "sliding", context: 64, stride: 32 } as const;
  const text = "<｜end▁of▁sentence｜>";
  const { tokens, bytes } = await evaluatePerplexity(scorer, textOf([[text]], windows));
  expect([tokens, bytes]).toEqual([new TextEncoder().encode(text).length, tokens]);
});

test("texts without enough tokens are refused", async () => {
  using scorer = await openByteScorer();
  const windows = { kind: "sliding", context: 64, stride: 32 } as const;
  const refusal = (pieces: string[], rule: Parameters<typeof textOf>[1] = windows): Promise<string> =>
    evaluatePerplexity(scorer, textOf([pieces], rule)).then(String, String);
  expect([
    await refusal([]),
    await refusal(["a"]),
    await refusal(["less than a chunk"], { kind: "llama.cpp", context: 64 }),
  ]).toMatchInlineSnapshot(`
    [
      "ConfigError: --data: must hold at least 2 tokens to score, got 0; give longer text",
      "ConfigError: --data: must hold at least 2 tokens to score, got 1; give longer text",
      "ConfigError: --data: must fill at least one chunk of 64 tokens, got 0; give longer text",
    ]
  `);
});

test("a signal ends it after the window that it is in, with what was scored", async () => {
  using scorer = await openByteScorer();
  const controller = new AbortController();
  const seen: number[] = [];
  const text = textOf([["x".repeat(60)]], { kind: "sliding", context: 16, stride: 8 });
  const result = await evaluatePerplexity(scorer, {
    ...text,
    signal: controller.signal,
    onProgress: ({ tokens }) => {
      seen.push(tokens);
      if (seen.length === 2) controller.abort();
    },
  });
  expect(seen).toEqual([16, 24]);
  expect(result).toMatchObject({ tokens: 24, windows: 2 });
});

test("memory does not grow with the text, and a closed scorer holds none", async () => {
  const backend = createReferenceBackend();
  const scorer = await openByteScorer({ backend });
  const windows = { kind: "sliding", context: 16, stride: 8 } as const;
  await evaluatePerplexity(scorer, textOf([["y".repeat(20)]], windows));
  const { liveBytes, peakBytes } = backend.stats();
  await evaluatePerplexity(scorer, textOf([["y".repeat(200)]], windows));
  expect(backend.stats()).toMatchObject({ liveBytes, peakBytes });
  scorer[Symbol.dispose]();
  expect(backend.stats().liveBytes).toBe(0);
});
