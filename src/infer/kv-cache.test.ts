import fc from "fast-check";
import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { MemoryError } from "../core/errors.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scope } from "../tensor/index.ts";
import { BLOCK_SIZE, KvCache, type CachedSequence } from "./kv-cache.ts";

const { model } = resolveConfig("tiny");
const BLOCKS = 5;

/** How many tokens a new sequence can take: a whole cache has room for all of them. */
function roomOf(cache: KvCache): number {
  const probe = cache.open();
  let tokens = 0;
  try {
    for (; ; tokens += BLOCK_SIZE) cache.extend(probe, BLOCK_SIZE);
  } catch (error) {
    expect(error).toBeInstanceOf(MemoryError);
  }
  cache.close(probe);
  return tokens;
}

test("a pool row holds kvLoraRank + qkRopeHeadDim values for each layer, in whole blocks", () => {
  using scope = Scope.root(createReferenceBackend());
  const { paged } = new KvCache(scope, model, 130);
  expect(paged.pools.map(({ shape }) => shape)).toEqual([
    [3 * BLOCK_SIZE, model.kvLoraRank + model.qkRopeHeadDim],
    [3 * BLOCK_SIZE, model.kvLoraRank + model.qkRopeHeadDim],
  ]);
});

test("a sequence that finds no room is as before, and the error says so", () => {
  using scope = Scope.root(createReferenceBackend());
  const cache = new KvCache(scope, model, 2 * BLOCK_SIZE);
  const sequence = cache.open();
  cache.extend(sequence, 70);
  expect(() => cache.extend(sequence, 200)).toThrowErrorMatchingInlineSnapshot(
    `[MemoryError: kv cache: needs 36864 bytes of 0 available bytes; end a sequence or open the engine with a larger cache]`,
  );
  expect(sequence).toEqual({ blocks: [0, 1], length: 70 });
  expect(Array.from(cache.extend(sequence, 58))).toEqual(Array.from({ length: 58 }, (_, i) => 70 + i));
});

test("blocks never leak and no row belongs to two tokens, whatever the order of calls", () => {
  using scope = Scope.root(createReferenceBackend());
  const cache = new KvCache(scope, model, BLOCKS * BLOCK_SIZE);
  const action = fc.oneof(
    fc.constant({ kind: "open" as const }),
    fc.record({ kind: fc.constant("extend" as const), which: fc.nat(), count: fc.integer({ min: 0, max: 150 }) }),
    fc.record({ kind: fc.constant("close" as const), which: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      const rows = new Map<CachedSequence, number[]>();
      const pick = (which: number): CachedSequence | undefined => [...rows.keys()][which % Math.max(1, rows.size)];
      for (const action of actions) {
        if (action.kind === "open") rows.set(cache.open(), []);
        const sequence = action.kind === "open" ? undefined : pick(action.which);
        if (sequence === undefined) continue;
        if (action.kind === "close") {
          cache.close(sequence);
          rows.delete(sequence);
        } else if (action.kind === "extend") {
          const before = { blocks: [...sequence.blocks], length: sequence.length };
          try {
            rows.get(sequence)!.push(...cache.extend(sequence, action.count));
          } catch (error) {
            expect(error).toBeInstanceOf(MemoryError);
            expect(sequence).toEqual(before);
          }
        }
        const all = [...rows.values()].flat();
        expect(new Set(all).size).toBe(all.length);
        expect(all.every((row) => row >= 0 && row < BLOCKS * BLOCK_SIZE)).toBe(true);
        for (const [{ length, blocks }, own] of rows) {
          expect(own).toHaveLength(length);
          expect(blocks).toHaveLength(Math.ceil(length / BLOCK_SIZE));
        }
      }
      for (const sequence of rows.keys()) cache.close(sequence);
      expect(roomOf(cache)).toBe(BLOCKS * BLOCK_SIZE);
    }),
    { seed: 9 },
  );
});
