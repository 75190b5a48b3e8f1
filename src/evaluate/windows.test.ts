import { describe, expect, test } from "vitest";
import { collect } from "../../test/helpers/collect.ts";
import { cutWindows, resolveWindows, scoredShare, type Window, type WindowRule } from "./windows.ts";

const BOS = 1000;

/** BOS, 1, 2, …, count, in pieces. */
async function* document(count: number, pieceLength: number): AsyncGenerator<Int32Array> {
  yield Int32Array.of(BOS);
  for (let from = 1; from <= count; from += pieceLength) {
    yield Int32Array.from({ length: Math.min(pieceLength, count - from + 1) }, (_, i) => from + i);
  }
}

const cut = (count: number, rule: WindowRule, pieceLength = 7): Promise<Window[]> =>
  collect(cutWindows(document(count, pieceLength), rule, BOS));

const plain = ({ tokens, from, targets }: Window): unknown => [[...tokens], from, [...targets]];

describe("sliding windows", () => {
  test("begin a stride apart, and score what the one before could not", async () => {
    const windows = await cut(9, { kind: "sliding", context: 4, stride: 3 });
    expect(windows.map(plain)).toEqual([
      [[BOS, 1, 2, 3], 0, [1, 2, 3, 4]],
      [[3, 4, 5, 6], 1, [5, 6, 7]],
      [[6, 7, 8], 1, [8, 9]],
    ]);
  });

  test.each([
    [64, 32],
    [64, 64],
    [64, 1],
    [5, 2],
  ])(
    "of %i tokens, %i apart, score every token once with at least the difference before it",
    async (context, stride) => {
      for (const count of [1, context - 1, context, context + 1, 3 * context + 2]) {
        const windows = await cut(count, { kind: "sliding", context, stride }, 11);
        const scored = windows.flatMap(({ targets }) => [...targets]);
        expect(scored).toEqual(Array.from({ length: count }, (_, i) => i + 1));
        expect(windows).toHaveLength(1 + Math.max(0, Math.ceil((count - context) / stride)));
        for (const { tokens, from, targets } of windows) {
          expect(tokens.length).toBeLessThanOrEqual(context);
          expect([...targets.subarray(0, -1)]).toEqual([...tokens.subarray(from + 1)]);
          const before = Math.min(context - stride, targets[0]! - 1);
          expect(from + 1).toBeGreaterThanOrEqual(before);
        }
      }
    },
  );

  test("are the same however the text comes", async () => {
    const rule = { kind: "sliding", context: 8, stride: 3 } as const;
    const whole = (await cut(50, rule, 50)).map(plain);
    for (const length of [1, 7, 8, 9]) expect((await cut(50, rule, length)).map(plain)).toEqual(whole);
  });

  test("of a document without text are none", async () => {
    expect(await cut(0, { kind: "sliding", context: 8, stride: 4 })).toEqual([]);
  });
});

test("chunks of llama.cpp begin with BOS, score their second half, and leave out what fills none", async () => {
  const windows = await cut(21, { kind: "llama.cpp", context: 8 });
  expect(windows.map(plain)).toEqual([
    [[BOS, 1, 2, 3, 4, 5, 6], 4, [5, 6, 7]],
    [[BOS, 9, 10, 11, 12, 13, 14], 4, [13, 14, 15]],
  ]);
  expect(await cut(22, { kind: "llama.cpp", context: 8 })).toHaveLength(2);
  expect(await cut(23, { kind: "llama.cpp", context: 8 })).toHaveLength(3);
  expect(scoredShare({ kind: "llama.cpp", context: 8 })).toBe(3 / 8);
  const [full] = await cut(511, { kind: "llama.cpp", context: 512 });
  expect([full!.from, full!.targets.length]).toEqual([256, 255]);
});

describe("rules", () => {
  test("have the model's context, at most 2048, and half of it as stride", () => {
    expect(resolveWindows({}, 163_840)).toEqual({ kind: "sliding", context: 2048, stride: 1024 });
    expect(resolveWindows({}, 100)).toEqual({ kind: "sliding", context: 100, stride: 50 });
    expect(resolveWindows({ context: 9, stride: 9 }, 100)).toEqual({ kind: "sliding", context: 9, stride: 9 });
    expect(resolveWindows({ chunks: "llama.cpp" }, 4096)).toEqual({ kind: "llama.cpp", context: 512 });
    expect(resolveWindows({ chunks: "llama.cpp", context: 64 }, 64)).toEqual({ kind: "llama.cpp", context: 64 });
  });

  test("that a model or a text cannot follow are refused", () => {
    const refusal = (options: Parameters<typeof resolveWindows>[0]): string => {
      try {
        return JSON.stringify(resolveWindows(options, 256));
      } catch (error) {
        return String(error);
      }
    };
    expect(
      [
        { context: 257 },
        { context: 3 },
        { chunks: "llama.cpp" },
        { stride: 0 },
        { context: 64, stride: 65 },
        { chunks: "llama.cpp", context: 64, stride: 2 },
        { chunks: "lama.cpp" },
      ].map(refusal),
    ).toMatchInlineSnapshot(`
      [
        "ConfigError: --context: must be a whole number from 4 to 256, the context of the model, got 257",
        "ConfigError: --context: must be a whole number from 4 to 256, the context of the model, got 3",
        "ConfigError: --context: must be a whole number from 4 to 256, the context of the model, got 512",
        "ConfigError: --stride: must be a whole number from 1 to the context of 256, got 0",
        "ConfigError: --stride: must be a whole number from 1 to the context of 64, got 65",
        "ConfigError: --stride: must not stand with --chunks llama.cpp, whose chunks do not overlap, got 2",
        "ConfigError: --chunks: must be llama.cpp, got "lama.cpp"; did you mean llama.cpp?",
      ]
    `);
  });
});
