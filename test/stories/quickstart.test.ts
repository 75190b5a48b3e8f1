/** `npm start` as a newcomer runs it, once: text is fetched, nano is trained, and what is learnt is real. */

import { accessSync, constants, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cacheDir } from "../../src/cli/options.ts";
import { createSplit, findCorpus } from "../../src/data/index.ts";
import { openCorpus } from "../../src/data/node.ts";
import { SavedRun } from "../../src/train/node.ts";
import { ngramBitsPerByte } from "../baselines/byte-ngram.ts";
import { Workspace, eventsOf, mainScript, root, type Ended, type TrainEvent } from "../helpers/cli.ts";

const MINUTES = 60_000;

const workspace = new Workspace();
const out = mkdtempSync(join(tmpdir(), "fathom-quickstart-"));
let start: Ended;
let steps: TrainEvent[];
let evaluations: TrainEvent[];

beforeAll(async () => {
  const script = join(root, "scripts", "start.mjs");
  // The user's own cache, so that the corpus is fetched once on a machine and not once in every test.
  const running = workspace.spawn(process.execPath, [script, "--json", "--out", out], {
    env: { FATHOM_CACHE: cacheDir() },
  });
  start = await running.ended;
  const events = eventsOf(start.stdout);
  steps = events.filter(({ loss }) => loss !== undefined);
  evaluations = events.filter(({ val_loss }) => val_loss !== undefined);
}, 20 * MINUTES);

afterAll(() => {
  workspace[Symbol.dispose]();
  rmSync(out, { recursive: true, force: true });
});

describe("npm start", () => {
  test("ends well", () => {
    expect(start.code, start.stderr).toBe(0);
  });

  test("takes at least 500 steps, each printed", () => {
    expect(steps.length).toBeGreaterThanOrEqual(500);
    expect(steps.map(({ step }) => step)).toEqual(steps.map((_, i) => i + 1));
    for (const { loss, tokens, tokens_per_sec } of steps) {
      expect(loss).toBeGreaterThan(0);
      expect(tokens).toBeGreaterThan(0);
      expect(tokens_per_sec).toBeGreaterThan(0);
    }
  });

  test("writes a sample, says its bits per byte, and names the next commands", () => {
    const { sample } = eventsOf(start.stdout).at(-1)!;
    expect(sample).toContain("Fellow-Citizens of the Senate and House of Representatives:");
    expect(sample!.length).toBeGreaterThan(200);
    // What is meant for people goes where --json leaves room for it.
    const text = start.stderr.split("\n");
    expect(start.stderr).toContain(sample!);
    const verdict = text.findIndex((line) => /^bits per byte \d\.\d{3}$/.test(line));
    expect(text[verdict]).toBe(`bits per byte ${evaluations.at(-1)!.bits_per_byte!.toFixed(3)}`);
    expect(text.slice(verdict + 1).join("\n")).toContain(`npx fathom generate --model ${out}`);
  });

  test("leaves a Hugging Face model folder", () => {
    const folder = join(out, readFileSync(join(out, "latest"), "utf8").trim());
    const files = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(files));
    expect(JSON.parse(readFileSync(join(folder, "config.json"), "utf8"))).toMatchObject({ model_type: "deepseek_v3" });
  });

  test("leaves a model that answers from the command line", async () => {
    const call = [
      "generate",
      "--model",
      out,
      "--prompt",
      "The Congress",
      "--max-tokens",
      "20",
      "--seed",
      "3",
      "--json",
    ];
    const { code, stdout, stderr } = await workspace.spawn(process.execPath, [mainScript, ...call]).ended;
    expect(code, stderr).toBe(0);
    const answer = JSON.parse(stdout) as { text: string; tokens: number; tokens_per_sec: number };
    expect(answer.text).not.toBe("");
    expect(answer.tokens).toBeLessThanOrEqual(20);
    expect(answer.tokens_per_sec).toBeGreaterThan(0);
  });

  test("has built everything, so that a second build builds nothing", async () => {
    const stamps = join(root, ".fathom", "setup");
    const times = (): [string, number][] =>
      readdirSync(stamps).map((name): [string, number] => [name, statSync(join(stamps, name)).mtimeMs]);
    const before = times();
    expect(before.length).toBeGreaterThan(0);
    const { code, stderr } = await workspace.spawn(process.execPath, [join(root, "scripts", "build.mjs")]).ended;
    expect(code, stderr).toBe(0);
    expect(stderr).toBe("");
    expect(times()).toEqual(before);
  });

  test("has built a program that npx may run", () => {
    expect(() => accessSync(mainScript, constants.X_OK)).not.toThrow();
  });
});

describe("learning is real:", () => {
  test("bits per byte fall at each of four evaluations", () => {
    const course = evaluations.map(({ bits_per_byte }) => bits_per_byte!);
    expect(course).toHaveLength(4);
    expect(evaluations.at(-1)!.step).toBe(steps.length);
    expect(course).toEqual(course.toSorted((a, b) => b - a));
    expect(new Set(course).size).toBe(4);
  });

  test("bits per byte end below those of a byte 5-gram model of the same text", { timeout: 5 * MINUTES }, async () => {
    const { config } = await SavedRun.open(out);
    const isHeldOut = createSplit(config.training.valFraction);
    const source = await openCorpus(findCorpus("sotu"), { cacheDir: cacheDir() });
    const [training, heldOut]: [Uint8Array[], Uint8Array[]] = [[], []];
    let number = 0;
    for await (const text of source.documents()) (isHeldOut(number++) ? heldOut : training).push(Buffer.from(text));
    const baseline = ngramBitsPerByte(training, heldOut, 5);
    expect(baseline).toBeGreaterThan(1);
    expect(evaluations.at(-1)!.bits_per_byte).toBeLessThan(baseline);
  });

  test("from the second evaluation on every expert is used, none with twice its share", () => {
    for (const { step, routing } of evaluations.slice(1)) {
      expect(routing!.length, `step ${step}`).toBeGreaterThan(0);
      for (const [mixture, { counts }] of routing!.entries()) {
        const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
        expect(Math.min(...counts), `step ${step}, mixture ${mixture}`).toBeGreaterThan(0);
        expect(Math.max(...counts) / mean, `step ${step}, mixture ${mixture}`).toBeLessThan(2);
      }
    }
  });
});
