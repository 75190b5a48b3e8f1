/** Measuring models from the command line. */

import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../../src/config/index.ts";
import { Workspace } from "../helpers/cli.ts";
import { writeRandomFolder } from "../helpers/random-checkpoint.ts";

const at = new Workspace();
const TEXT = "Who rides so late through night and wind? ".repeat(40).slice(0, 1000);

beforeAll(async () => {
  const model = (vocabSize: number) =>
    resolveConfig({ preset: "tiny", model: { vocabSize, maxSeqLen: 128, dtype: "f32" } }).model;
  await writeRandomFolder(at.path("a"), model(259), 1);
  await writeRandomFolder(at.path("b"), model(259), 2);
  await writeRandomFolder(at.path("wide"), model(320), 1);
  at.write("text.txt", TEXT);
  at.write("two.jsonl", `${JSON.stringify({ text: TEXT })}\n${JSON.stringify({ text: TEXT })}\n`);
  at.write("empty.txt", "");
  at.write("long.txt", TEXT.repeat(3000));
});
afterAll(() => at[Symbol.dispose]());

async function json(...args: string[]): Promise<Record<string, number>> {
  const { code, stdout, stderr } = await at.run("eval", ...args, "--json");
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Record<string, number>;
}

const SLIDING = ["--context", "64", "--stride", "32"];

describe("fathom eval perplexity", () => {
  test("scores every token of a text once, and prints the means with their errors", async () => {
    const args = ["perplexity", "--model", "a", "--data", "text.txt", ...SLIDING];
    const result = await json(...args);
    expect(result).toMatchObject({ tokens: 1000, bytes: 1000, windows: 31, context: 64, stride: 32, stopped: false });
    const { nats_per_token: nats = 0, bits_per_byte: bits = 0, perplexity = 0, perplexity_error: error = 0 } = result;
    expect(bits).toBeCloseTo(nats / Math.LN2, 10);
    expect(perplexity).toBeCloseTo(Math.exp(nats), 8);
    const { stdout } = await at.run("eval", ...args);
    expect(stdout.split("\n")).toEqual([
      `perplexity ${perplexity.toFixed(4)} ± ${error.toFixed(4)}`,
      expect.stringMatching(/^[\d.]+ ± [\d.]+ nats per token$/),
      expect.stringMatching(/^[\d.]+ ± [\d.]+ bits per byte$/),
      "1000 tokens (1000 bytes) in 31 windows of at most 64, 32 apart",
      "",
    ]);
  });

  test("begins every document anew", async () => {
    const one = await json("perplexity", "--model", "a", "--data", "text.txt", ...SLIDING);
    const two = await json("perplexity", "--model", "a", "--data", "two.jsonl", ...SLIDING);
    expect(two["tokens"]).toBe(2000);
    expect(two["nats_per_token"]).toBeCloseTo(one["nats_per_token"]!, 12);
  });

  test("takes the chunks of llama.cpp", async () => {
    const chunks = ["--chunks", "llama.cpp", "--context", "64"];
    const result = await json("perplexity", "--model", "a", "--data", "text.txt", ...chunks);
    expect(result).toMatchObject({ windows: 15, tokens: 15 * 31, context: 64, chunks: "llama.cpp" });
  });

  test("ends at Ctrl-C with what it has", async () => {
    const running = at.start("eval", "perplexity", "--model", "a", "--data", "long.txt", ...SLIDING, "--json");
    await once(running.child.stderr!, "data");
    running.child.kill("SIGINT");
    const { code, stdout, stderr } = await running.ended;
    const result = JSON.parse(stdout) as { tokens: number; stopped: boolean };
    expect([code, result.stopped]).toEqual([130, true]);
    expect(stderr).toContain(`stopped: this is of the first ${result.tokens} scored tokens`);
    expect(result.tokens).toBeLessThan(3_000_000);
  });
});

describe("fathom eval kld", () => {
  test("compares a folder with a GGUF file of the same weights", async () => {
    expect((await at.run("convert", at.path("a"), at.path("a.gguf"), "--dtype", "f32")).code).toBe(0);
    const { mean = 1, top_1_agreement } = await json("kld", "a", "a.gguf", "--data", "text.txt", ...SLIDING);
    expect([mean < 1e-6, top_1_agreement]).toEqual([true, 1]);
  });

  test("finds no divergence of a model from itself, and some from another", async () => {
    const same = await json("kld", "a", "a", "--data", "text.txt", ...SLIDING);
    expect(same).toMatchObject({ tokens: 1000, mean: 0, percentile_99: 0, max: 0, top_1_agreement: 1 });
    const other = await json("kld", "a", "b", "--data", "text.txt", ...SLIDING);
    const { mean = 0, percentile_50 = 0, percentile_90 = 0, percentile_99 = 0, max = 0 } = other;
    expect(mean).toBeGreaterThan(0.01);
    expect([percentile_50, percentile_90, percentile_99, max].toSorted((a, b) => a - b)).toEqual([
      percentile_50,
      percentile_90,
      percentile_99,
      max,
    ]);
    expect(other["top_1_agreement"]).toBeLessThan(0.5);
  });
});

test("what cannot be measured is refused with one line and an exit code", async () => {
  const refusal = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await at.run("eval", ...args);
    return `${code} ${stderr.replaceAll(at.folder, "")}`;
  };
  expect([
    await refusal("perplexity", "--model", "a", "--data", "empty.txt"),
    await refusal("perplexity", "--model", "a", "--data", "text.txt", "--context", "129"),
    await refusal("perplexity", "--model", "a", "--data", "nothing.txt"),
    await refusal("kld", "a", "wide", "--data", "text.txt"),
  ]).toMatchInlineSnapshot(`
    [
      "1 error: --data: must hold at least 2 tokens to score, got 0; give longer text
    ",
      "1 error: --context: must be a whole number from 4 to 128, the context of the model, got 129
    ",
      "1 error: data: must match at least one file, got "nothing.txt"; check the path, which starts at 
    ",
      "1 error: model B: must have as many rows in its head as A (259), got 320; give two models of one vocabulary
    ",
    ]
  `);
});
