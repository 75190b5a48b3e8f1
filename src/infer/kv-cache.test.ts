import fc from "fast-check";
import { expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { InternalError, MemoryError } from "../core/errors.ts";
import { createReferenceBackend, type Backend } from "../kernels/index.ts";
import { Scope, type Tensor } from "../tensor/index.ts";
import { BLOCK_SIZE, KvCache, type CachedSequence } from "./kv-cache.ts";

const { model } = resolveConfig("tiny");
const WIDTH = model.kvLoraRank + model.qkRopeHeadDim;
const BLOCK_BYTES = model.nLayers * BLOCK_SIZE * WIDTH * 4;

test("a pool row holds kvLoraRank + qkRopeHeadDim values for each layer, in whole blocks for open sequences", () => {
  const backend = createReferenceBackend();
  using scope = Scope.root(backend);
  const cache = new KvCache(scope, model);
  expect(backend.stats().liveBytes).toBe(0);
  const first = cache.open(130);
  expect(cache.paged.pools.map(({ shape }) => shape)).toEqual(
    Array.from({ length: model.nLayers }, () => [3 * BLOCK_SIZE, WIDTH]),
  );
  cache.open(1);
  expect(backend.stats().liveBytes).toBe(4 * BLOCK_BYTES);
  cache.close(first);
  cache.open(3 * BLOCK_SIZE);
  expect(backend.stats().liveBytes).toBe(4 * BLOCK_BYTES);
});

test("rows that are written stay when the pools grow, and without an open sequence nothing is copied", () => {
  const backend = createReferenceBackend();
  using scope = Scope.root(backend);
  const cache = new KvCache(scope, model);
  const sequence = cache.open(BLOCK_SIZE);
  const firstRow = (pool: Tensor): Uint8Array => pool.readBytes(0, 4 * WIDTH);
  for (const [i, pool] of cache.paged.pools.entries()) pool.write(new Float32Array(WIDTH).fill(i + 1));
  const before = cache.paged.pools.map(firstRow);
  cache.open(5 * BLOCK_SIZE);
  expect(cache.paged.pools.map(firstRow)).toEqual(before);
  expect(Array.from(cache.extend(sequence, 1))).toEqual([0]);

  const alone = new KvCache(scope, model);
  alone.close(alone.open(20 * BLOCK_SIZE));
  const { liveBytes } = backend.stats();
  backend.resetPeak();
  alone.open(21 * BLOCK_SIZE);
  expect(backend.stats().peakBytes).toBe(liveBytes + BLOCK_BYTES);
});

test("a sequence that finds no memory leaves the others as they were", () => {
  const reference = createReferenceBackend();
  const alloc = reference.alloc.bind(reference);
  const backend: Backend = Object.assign(reference, {
    alloc: (bytes: number) => {
      if (bytes > 3 * BLOCK_SIZE * WIDTH * 4) throw new MemoryError("test", bytes, 0, "none");
      return alloc(bytes);
    },
  });
  using scope = Scope.root(backend);
  const cache = new KvCache(scope, model);
  const sequence = cache.open(3 * BLOCK_SIZE);
  cache.extend(sequence, 70);
  const { liveBytes } = backend.stats();
  expect(() => cache.open(1)).toThrow(MemoryError);
  expect(backend.stats().liveBytes).toBe(liveBytes);
  expect(sequence).toEqual({ blocks: [0, 1], maxBlocks: 3, length: 70 });
  expect(Array.from(cache.extend(sequence, 58))).toEqual(Array.from({ length: 58 }, (_, i) => 70 + i));
});

test("blocks never leak and no row belongs to two tokens, whatever the order of calls", () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant("open" as const), tokens: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant("extend" as const), which: fc.nat(), count: fc.integer({ min: 0, max: 150 }) }),
    fc.record({ kind: fc.constant("close" as const), which: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      using scope = Scope.root(createReferenceBackend());
      const cache = new KvCache(scope, model);
      const rows = new Map<CachedSequence, number[]>();
      let most = 0;
      const sure = (): number => [...rows.keys()].reduce((sum, { maxBlocks }) => sum + maxBlocks, 0);
      for (const action of actions) {
        if (action.kind === "open") rows.set(cache.open(action.tokens), []);
        most = Math.max(most, sure());
        const sequence = action.kind === "open" ? undefined : [...rows.keys()][action.which % Math.max(1, rows.size)];
        if (sequence === undefined) continue;
        if (action.kind === "close") {
          cache.close(sequence);
          rows.delete(sequence);
        } else if (action.kind === "extend") {
          const before = { ...sequence, blocks: [...sequence.blocks] };
          if (sequence.length + action.count <= sequence.maxBlocks * BLOCK_SIZE) {
            rows.get(sequence)!.push(...cache.extend(sequence, action.count));
          } else {
            expect(() => cache.extend(sequence, action.count)).toThrow(InternalError);
            expect(sequence).toEqual(before);
          }
        }
        const all = [...rows.values()].flat();
        expect(new Set(all).size).toBe(all.length);
        expect(all.every((row) => row >= 0 && row < cache.blocks * BLOCK_SIZE)).toBe(true);
        for (const [{ length, blocks }, own] of rows) {
          expect(own).toHaveLength(length);
          expect(blocks).toHaveLength(Math.ceil(length / BLOCK_SIZE));
        }
      }
      expect(cache.blocks).toBe(most);
    }),
    { seed: 9 },
  );
});
