/** Generation on `tiny` with random weights: what is streamed, and when it ends. */

import { describe, expect, test } from "vitest";
import { FIRST_BYTE_ID, createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { collect } from "../../test/helpers/collect.ts";
import {
  packDocuments,
  randomModel,
  randomParameters,
  uploadPacked,
  valuesOf,
} from "../../test/helpers/random-model.ts";
import { testBackends } from "../../test/helpers/backends.ts";
import { resolveConfig, type GenerationConfig } from "../config/index.ts";
import { createReferenceBackend, decodeCalls, type Backend } from "../kernels/index.ts";
import type { ParameterSet } from "../model/index.ts";
import { Scope } from "../tensor/index.ts";
import type { TextCodec } from "./engine.ts";
import { Engine, type GemmImpl, type GenerationEnd, type Piece } from "./index.ts";

const tokenizer = createByteTokenizer();
const CONTEXT = 96;
const MODEL = resolveConfig("tiny", {
  vocab_size: tokenizer.vocabSize,
  dim: 16,
  inter_dim: 24,
  moe_inter_dim: 8,
  max_seq_len: CONTEXT,
  n_mtp_layers: 0,
});
const config = MODEL.model;

function settings(overrides: Partial<GenerationConfig> = {}): GenerationConfig {
  return { ...MODEL.generation, maxTokens: 40, seed: 1, temperature: 1, topP: 1, ...overrides };
}

interface OpenOptions {
  readonly backend?: Backend;
  readonly eosId?: number;
  readonly gemmImpl?: GemmImpl;
  readonly contextTokens?: number;
  /** The id that the decoder gets for the i-th generated one; the same one when left out. */
  readonly shown?: (id: number, i: number) => number;
}

/** An engine, and the ids that its decoder got in the last generation. */
async function open(options: OpenOptions = {}): Promise<{ engine: Engine; ids: number[] }> {
  const { backend = createReferenceBackend(), eosId = -1, gemmImpl = "f32", shown = (id) => id } = options;
  const ids: number[] = [];
  const createDecoder: TextCodec["createDecoder"] = () => {
    const decoder = tokenizer.createDecoder();
    ids.length = 0;
    return { push: (id) => decoder.push(ids[ids.push(shown(id, ids.length)) - 1]!), flush: () => decoder.flush() };
  };
  const codec: TextCodec = { bosId: tokenizer.bosId, eosId, encode: (text) => tokenizer.encode(text), createDecoder };
  const openWeights = (scope: Scope): ParameterSet => randomParameters(scope, config, 6);
  let clock = 0;
  const settings = {
    ...MODEL,
    model: { ...config, maxSeqLen: options.contextTokens ?? CONTEXT },
    runtime: { ...MODEL.runtime, gemmImpl },
  };
  const engine = await Engine.open({ backend, settings, codec, openWeights, now: () => (clock += 500) });
  return { engine, ids };
}

test("BOS stands before a prompt once, also when the prompt begins with it", async () => {
  const { engine } = await open();
  using _ = engine;
  for (const prompt of ["ab", "<｜begin▁of▁sentence｜>ab"]) {
    expect(endOf(await collect(engine.generate(prompt, settings({ maxTokens: 1 })))).promptTokens).toBe(3);
  }
});

test.each(["f32", "bf16"] as const)("products multiply in gemm_impl %s", async (gemmImpl) => {
  const backend = createReferenceBackend();
  const run = backend.run.bind(backend);
  const computes = new Set<number>();
  backend.run = (words) => {
    for (const { name, numbers } of decodeCalls(words)) if (name === "groupedMatmul") computes.add(numbers.compute!);
    run(words);
  };
  const { engine } = await open({ backend, gemmImpl });
  using _ = engine;
  await collect(engine.generate("ab", settings({ maxTokens: 2 })));
  expect([...computes]).toEqual([gemmImpl === "bf16" ? 1 : 0]);
});

function endOf(pieces: readonly Piece[]): GenerationEnd {
  expect(pieces.filter(({ end }) => end !== undefined)).toHaveLength(1);
  return pieces.at(-1)!.end!;
}

function textOf(pieces: readonly Piece[]): string {
  return pieces.map(({ text }) => text).join("");
}

describe.each(testBackends())("on the $label backend", ({ create }) => {
  test("greedy tokens are the likeliest of the whole text each time, across a cache block", async () => {
    const { engine, ids } = await open({ backend: create() });
    using _ = engine;
    const prompt = "The cache holds sixty-four tokens a block, and this is longer.";
    const pieces = await collect(engine.generate(prompt, settings({ temperature: 0, maxTokens: 12 })));
    expect(endOf(pieces).promptTokens).toBe(1 + prompt.length);
    using scope = Scope.root(createReferenceBackend());
    const model = randomModel(scope, config, 6);
    const text = [tokenizer.bosId, ...tokenizer.encode(prompt), ...ids];
    const batch = uploadPacked(scope, config, packDocuments([text]));
    const logits = valuesOf(model.logits(scope, batch.tokens, batch));
    for (const [i, id] of ids.entries()) {
      const row = logits.subarray((prompt.length + i) * config.vocabSize, (prompt.length + i + 1) * config.vocabSize);
      expect(row[id]!).toBeGreaterThan(Math.max(...row) - 1e-4);
    }
    expect(ids).toHaveLength(12);
  });
});

describe("what is streamed", () => {
  test.each([1, 2, 3])("is the text of the ids in whole characters, seed %i", async (seed) => {
    const { engine, ids } = await open();
    using _ = engine;
    const pieces = await collect(engine.generate("é", settings({ seed })));
    expect(endOf(pieces)).toMatchObject({ reason: "length", tokens: 40, promptTokens: 3 });
    expect(ids).toHaveLength(40);
    expect(textOf(pieces)).toBe(tokenizer.decode(ids));
    // Random bytes are rarely UTF-8: what cannot be is U+FFFD, and no half of a surrogate pair is ever shown.
    for (const { text } of pieces) expect(text).not.toMatch(/\p{Surrogate}/u);
  });

  test("waits for the last byte of a character, also when generation ends within one", async () => {
    // Whatever id is drawn, the decoder gets the next byte of an emoji.
    const bytes = [...new TextEncoder().encode("😀")].map((byte) => byte + FIRST_BYTE_ID);
    const { engine } = await open({ shown: (_, i) => bytes[i % 4]! });
    using _ = engine;
    const pieces = await collect(engine.generate("", settings({ maxTokens: 10 })));
    expect(pieces.map(({ text }) => text)).toEqual(["😀", "😀", "\uFFFD"]);
  });

  test("is the same for the same seed, and another for another", async () => {
    const { engine } = await open();
    using _ = engine;
    const generate = async (seed: number): Promise<string> =>
      textOf(await collect(engine.generate("a", settings({ seed }))));
    const first = await generate(4);
    expect(await generate(4)).toBe(first);
    expect(await generate(5)).not.toBe(first);
  });

  test("ends before a stop string, which is not shown", async () => {
    const { engine } = await open();
    using _ = engine;
    const free = textOf(await collect(engine.generate("abc", settings({ topK: 4 }))));
    const stop = free.slice(6, 9);
    const pieces = await collect(engine.generate("abc", settings({ topK: 4, stop: ["never in it", stop] })));
    expect(textOf(pieces)).toBe(free.slice(0, free.indexOf(stop)));
    expect(endOf(pieces).reason).toBe("stop");
  });
});

describe("generation ends", () => {
  test("at maxTokens, with the speed of all tokens but the first", async () => {
    const { engine } = await open();
    using _ = engine;
    const end = endOf(await collect(engine.generate("abc", settings({ maxTokens: 5 }))));
    // The clock of this engine moves half a second each time it is read.
    expect(end).toEqual({ reason: "length", promptTokens: 4, tokens: 5, tokensPerSec: 8 });
  });

  test("where the context is full", async () => {
    const { engine } = await open();
    using _ = engine;
    const end = endOf(await collect(engine.generate("x".repeat(CONTEXT - 10), settings({ maxTokens: 200 }))));
    expect(end).toMatchObject({ reason: "length", promptTokens: CONTEXT - 9, tokens: 9 });
  });

  test("at the end-of-sequence token, which is neither shown nor counted", async () => {
    const { engine: free, ids } = await open();
    const shown = textOf(await collect(free.generate("q", settings())));
    const eosId = ids[7]!;
    const first = ids.indexOf(eosId);
    free[Symbol.dispose]();
    const { engine, ids: before } = await open({ eosId });
    using _ = engine;
    const pieces = await collect(engine.generate("q", settings()));
    expect(endOf(pieces)).toMatchObject({ reason: "eos", tokens: first });
    expect(textOf(pieces)).toBe(tokenizer.decode(before));
    expect(shown.length).toBeGreaterThan(textOf(pieces).length);
  });

  test("when it is told to, with the text so far", async () => {
    const { engine, ids } = await open();
    using _ = engine;
    const stop = new AbortController();
    const pieces: Piece[] = [];
    for await (const piece of engine.generate("abc", settings(), stop.signal)) {
      pieces.push(piece);
      if (pieces.length === 3) stop.abort();
    }
    expect(endOf(pieces).reason).toBe("aborted");
    expect(ids.length).toBeLessThan(40);
    expect(textOf(pieces)).toBe(tokenizer.decode(ids));
    expect(endOf(await collect(engine.generate("abc", settings(), stop.signal)))).toMatchObject({
      reason: "aborted",
      tokens: 0,
    });
  });

  test("when the reader leaves, and its cache blocks are free again", async () => {
    const backend = createReferenceBackend();
    const { engine } = await open({ backend });
    using _ = engine;
    const long = "y".repeat(CONTEXT - 20);
    const leave = async (): Promise<number> => {
      for await (const piece of engine.generate(long, settings())) {
        expect(piece.end).toBeUndefined();
        break;
      }
      return backend.stats().liveBytes;
    };
    const bytes = await leave();
    expect([await leave(), await leave()]).toEqual([bytes, bytes]);
    expect(endOf(await collect(engine.generate(long, settings()))).tokens).toBe(19);
  });
});

test("an empty prompt is BOS alone", async () => {
  const { engine } = await open();
  using _ = engine;
  expect(endOf(await collect(engine.generate("", settings({ maxTokens: 3 }))))).toMatchObject({
    promptTokens: 1,
    tokens: 3,
  });
});

test("a prompt that fills the context is an error that says how long it may be", async () => {
  const { engine } = await open();
  using _ = engine;
  const generate = (length: number): Promise<Piece[]> => collect(engine.generate("z".repeat(length), settings()));
  await expect(generate(CONTEXT - 1)).rejects.toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: prompt: must have at most 94 tokens, since the context holds 96 with BOS and an answer, got 95; shorten the prompt]`,
  );
  expect(endOf(await generate(CONTEXT - 2)).tokens).toBe(1);
});

test("texts that are generated in turns, the second making the cache grow, are those generated alone", async () => {
  const prompts = ["one", "two, which is long enough to need a second block"] as const;
  const alone = async (prompt: string): Promise<string> => {
    const { engine } = await open();
    using _ = engine;
    return textOf(await collect(engine.generate(prompt, settings())));
  };
  const { engine } = await open();
  using _ = engine;
  const first = engine.generate(prompts[0], settings());
  const begun = [(await first.next()).value!, (await first.next()).value!];
  const second = await collect(engine.generate(prompts[1], settings()));
  const rest = await collect(first);
  expect(textOf([...begun, ...rest])).toBe(await alone(prompts[0]));
  expect(textOf(second)).toBe(await alone(prompts[1]));
});

test("memory grows with what a request needs, not with the longest context of the model", async () => {
  const bytesOf = async (contextTokens: number): Promise<number> => {
    const backend = createReferenceBackend();
    const { engine } = await open({ backend, contextTokens });
    using _ = engine;
    await collect(engine.generate("a", settings({ maxTokens: 4 })));
    return backend.stats().peakBytes;
  };
  expect(await bytesOf(163_840)).toBe(await bytesOf(CONTEXT));
});

test("an engine that cannot load its weights, or is closed, holds no memory", async () => {
  const backend = createReferenceBackend();
  const { engine } = await open({ backend });
  await collect(engine.generate("a", settings({ maxTokens: 2 })));
  engine[Symbol.dispose]();
  expect(backend.stats().liveBytes).toBe(0);
  const codec = { bosId: 0, eosId: 1, encode: () => [], createDecoder: () => tokenizer.createDecoder() };
  const openWeights = (scope: Scope): never => {
    scope.from([1, 2], [2]);
    throw new Error("no weights");
  };
  await expect(Engine.open({ backend, settings: MODEL, codec, openWeights, now: () => 0 })).rejects.toThrow(
    "no weights",
  );
  expect(backend.stats().liveBytes).toBe(0);
});
