/** What a scorer refuses for want of memory. */

import { expect, test } from "vitest";
import { byteModel } from "../../test/helpers/byte-scorer.ts";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { randomParameters } from "../../test/helpers/random-model.ts";
import { MemoryError } from "../core/errors.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import { Scorer } from "./index.ts";

const TOKENS = 40;
const ids = Int32Array.from({ length: TOKENS }, (_, i) => (7 * i) % 250);
const WINDOW = { tokens: ids, from: 0, targets: ids };

test("a window above the memory limit is refused before anything is allocated, and takes what the message says", async () => {
  const backend = createReferenceBackend();
  const settings = byteModel();
  const openWith = (limit: number): Promise<Scorer> =>
    Scorer.open({
      ...{ backend, settings, tokenizer: createByteTokenizer() },
      openWeights: (scope) => randomParameters(scope, settings.model, 6),
      memory: { place: "model", limit },
    });
  using small = await openWith(1);
  const before = backend.stats();
  const refused = await small.losses(WINDOW).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(MemoryError);
  expect((refused as MemoryError).message).toMatch(
    /^model with a window of 40 tokens: needs \d+ bytes .* available; \d+ bytes \([\d.]+ MiB\) are weights, \d+ bytes \([\d.]+ MiB\) cache and activations; /,
  );
  const { neededBytes } = refused as MemoryError;
  // The losses and their targets are not activations of the model.
  expect(backend.stats().liveBytes).toBe(before.liveBytes);
  using enough = await openWith(neededBytes);
  const weights = backend.stats().liveBytes - before.liveBytes;
  backend.resetPeak();
  const { liveBytes } = backend.stats();
  expect(await enough.losses(WINDOW)).toHaveLength(TOKENS);
  const taken = backend.stats().peakBytes - liveBytes;
  expect(taken).toBeLessThan(1.02 * (neededBytes - weights));
  expect(taken).toBeGreaterThan(0.9 * (neededBytes - weights));
  using tight = await openWith(neededBytes - 1);
  await expect(tight.losses(WINDOW)).rejects.toThrow(MemoryError);
});
