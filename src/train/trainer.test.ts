/** Steps, evaluations and checkpoints of a small model on tokens in memory. */

import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createByteTokenizer } from "../../test/helpers/byte-tokenizer.ts";
import { collect } from "../../test/helpers/collect.ts";
import { diesAfter, fullAfter } from "../../test/helpers/failing-files.ts";
import { valuesOf } from "../../test/helpers/random-model.ts";
import { memoryStream } from "../../test/helpers/token-stream.ts";
import { resolveConfig, type ConfigInput, type ResolvedConfig } from "../config/index.ts";
import { FathomError, FormatError, IoError, NumericError } from "../core/errors.ts";
import { Rng } from "../core/rng.ts";
import type { TokenStream } from "../data/index.ts";
import type { FilePort } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { createReferenceBackend } from "../kernels/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { Trainer, trainLoop, type TrainEvent } from "./index.ts";
import { CheckpointFolder, SavedRun, type RunDescription } from "./node.ts";

const VOCABULARY = 24;

function configOf(settings: ConfigInput = {}): ResolvedConfig {
  const small = { vocab_size: VOCABULARY, dim: 16, inter_dim: 24, moe_inter_dim: 8, q_lora_rank: 8, kv_lora_rank: 8 };
  const training = { seq_len: 8, batch_size: 4, steps: 10, checkpoint_every: 5, warmup_steps: 2 };
  return resolveConfig("tiny", { ...small, ...training, ...settings });
}

/** Documents of 3 to 20 random tokens between BOS and EOS. */
function randomText(documents: number, seed: number): TokenStream {
  const rng = new Rng(seed, "trainer.test");
  const integer = (below: number): number => Math.floor(rng.uniform() * below);
  const content = (): number[] => Array.from({ length: 3 + integer(18) }, () => 2 + integer(VOCABULARY - 2));
  return memoryStream(Array.from({ length: documents }, () => [0, ...content(), 1]));
}

/** One sentence over and over. */
function repeatingText(): TokenStream {
  return memoryStream(Array.from({ length: 30 }, () => [0, 5, 9, 3, 14, 7, 20, 5, 2, 11, 1]));
}

function trainerOf(config: ResolvedConfig, train = randomText(30, 1)): Trainer {
  const tokenBytes = Array.from({ length: VOCABULARY }, (_, id) => Number(id > 1));
  return new Trainer({
    backend: createReferenceBackend(),
    config,
    train,
    validation: randomText(4, 2),
    tokenBytes,
    now: () => 0,
  });
}

async function takeSteps(trainer: Trainer, count: number): Promise<number[]> {
  const losses: number[] = [];
  for (let i = 0; i < count; i++) losses.push((await trainer.step()).loss);
  return losses;
}

/** Every tensor that training changes, by name. */
function tensorsOf(trainer: Trainer): [string, Tensor][] {
  const moments = trainer.optimizer.moments.flatMap(({ name, m, v }): [string, Tensor][] => [
    [`m.${name}`, m],
    [`v.${name}`, v],
  ]);
  return [...[...trainer.model.parameters].map(({ name, value }): [string, Tensor] => [name, value]), ...moments];
}

/** Their hashes: equal ones mean equal bits. */
function bitsOf(trainer: Trainer): Record<string, string> {
  const hash = (tensor: Tensor): string => createHash("sha256").update(tensor.readBytes()).digest("hex");
  return Object.fromEntries(tensorsOf(trainer).map(([name, tensor]) => [name, hash(tensor)]));
}

describe("a step", () => {
  test("is the same for 4 micro-batches of 1 window as for 1 of 4", async () => {
    using whole = trainerOf(configOf({ micro_batch_size: 4, seq_balance_alpha: 0.1 }));
    using pieces = trainerOf(configOf({ micro_batch_size: 1, seq_balance_alpha: 0.1 }));
    for (let step = 1; step <= 3; step++) {
      const [a, b] = [await whole.step(), await pieces.step()];
      for (const key of ["loss", "mtpLoss", "balanceLoss", "gradNorm"] as const) {
        expect(Math.abs(a[key] - b[key]), `${key} of step ${step}`).toBeLessThan(1e-6);
      }
      expect([b.tokens, b.targets, b.bytes]).toEqual([a.tokens, a.targets, a.bytes]);
      expect(b.balanceLoss).toBeGreaterThan(0.1);
    }
    const expected = new Map(tensorsOf(whole));
    for (const [name, tensor] of tensorsOf(pieces)) {
      const truth = valuesOf(expected.get(name)!);
      const error = Math.max(...valuesOf(tensor).map((value, i) => Math.abs(value - truth[i]!)));
      expect(error, name).toBeLessThan(1e-6);
    }
  });

  test("lowers the loss of a repeating text far below that of guessing", async () => {
    using trainer = trainerOf(configOf({ lr: 0.02, steps: 60 }), repeatingText());
    const losses = await takeSteps(trainer, 60);
    expect(losses[0]).toBeGreaterThan(0.9 * Math.log(VOCABULARY));
    expect(losses.at(-1)).toBeLessThan(0.3);
  });

  test("leaves no memory behind", async () => {
    using trainer = trainerOf(configOf({ micro_batch_size: 2 }));
    await trainer.step();
    const { liveBytes, peakBytes } = trainer.backend.stats();
    const peaks = new Set<number>();
    for (let i = 0; i < 30; i++) {
      trainer.backend.resetPeak();
      await trainer.step();
      expect(trainer.backend.stats().liveBytes).toBe(liveBytes);
      peaks.add(trainer.backend.stats().peakBytes);
    }
    await trainer.evaluate();
    expect(trainer.backend.stats().liveBytes).toBe(liveBytes);
    // Index tensors follow the number of documents in a batch; nothing else changes from step to step.
    expect(Math.max(...peaks) - Math.min(...peaks)).toBeLessThan(1024);
    expect(Math.max(...peaks)).toBeLessThan(peakBytes + 1024);
  });

  test("gives all memory back in the end", async () => {
    const trainer = trainerOf(configOf());
    await trainer.step();
    trainer[Symbol.dispose]();
    expect(trainer.backend.stats().liveBytes).toBe(0);
  });

  test.each([
    ["embed", "step 3: loss"],
    ["layers.2.shared_head.norm", "step 3: mtp loss"],
  ])("that meets a NaN in %s stops, names step and tensor, and changes nothing", async (name, where) => {
    using trainer = trainerOf(configOf());
    await takeSteps(trainer, 2);
    const { value } = trainer.model.parameters.get(name);
    value.write(new Float32Array(value.size).fill(NaN));
    const [before, state] = [bitsOf(trainer), trainer.state];
    const error = await trainer.step().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NumericError);
    expect(error).toMatchObject({ step: 3, where });
    expect(bitsOf(trainer)).toEqual(before);
    expect(trainer.state).toEqual(state);
  });

  test("names the gradient that is not finite", async () => {
    using trainer = trainerOf(configOf());
    // The logits stay finite, but their squared gradient overflows f32.
    const { value } = trainer.model.parameters.get("norm");
    value.write(new Float32Array(value.size).fill(1e25));
    await expect(trainer.step()).rejects.toThrowErrorMatchingInlineSnapshot(
      `[NumericError: step 1: gradient of embed: must be finite, got Infinity; start again with a lower lr or a longer warm-up; the last checkpoint is as it was]`,
    );
  });
});

describe("router biases", () => {
  test("fall by the speed where an expert has more than the mean, and rise where it has less", async () => {
    using trainer = trainerOf(configOf({ router_bias_speed: 0.25 }));
    const names = [1, 2].map((layer) => `layers.${layer}.ffn.gate.bias`);
    await trainer.step();
    for (const name of names) {
      const bias = valuesOf(trainer.model.parameters.get(name).value);
      expect(bias.every((value) => [0, 0.25, -0.25].includes(value))).toBe(true);
      expect(bias).toContain(0.25);
      expect(bias).toContain(-0.25);
    }
  });

  test("move the load towards balance, also without any learning", async () => {
    // A learning rate this small moves nothing but the biases.
    using trainer = trainerOf(
      configOf({ router_bias_speed: 0.01, lr: 1e-12, init_std: 0.3, steps: 60, n_mtp_layers: 0 }),
    );
    const before = await trainer.evaluate();
    await takeSteps(trainer, 60);
    const after = await trainer.evaluate();
    expect(before.routing[0]!.maxLoad).toBeGreaterThan(1.5);
    expect(after.routing[0]!.maxLoad).toBeLessThan(1 + 0.6 * (before.routing[0]!.maxLoad - 1));
    expect(after.routing[0]!.entropy).toBeGreaterThan(before.routing[0]!.entropy);
    expect(after.routing[0]!.deadExperts).toBe(0);
  });

  test("stay at 0 with speed 0", async () => {
    using trainer = trainerOf(configOf({ router_bias_speed: 0 }));
    await trainer.step();
    expect(valuesOf(trainer.model.parameters.get("layers.1.ffn.gate.bias").value).every((b) => b === 0)).toBe(true);
  });
});

describe("an evaluation", () => {
  test("scores every token that has a predecessor in its document, and counts its choices of experts", async () => {
    using trainer = trainerOf(configOf());
    const validation = randomText(4, 2);
    const { length } = validation;
    const documents = validation.documentStarts(0, length).length;
    const report = await trainer.evaluate();
    expect(report.tokens).toBe(length - documents);
    // Of the targets, one EOS in each document has no bytes.
    const bytes = length - 2 * documents;
    expect(report.bitsPerByte).toBeCloseTo((report.valLoss * report.tokens) / Math.LN2 / bytes, 6);
    expect(report.routing).toHaveLength(1);
    const choices = report.routing[0]!.counts.reduce((a, b) => a + b, 0);
    expect(choices).toBe((length - 1) * trainer.config.model.nActivatedExperts);
  });

  test("gives way before every batch, and ends as soon as its signal is aborted, disturbing nothing", async () => {
    using plain = trainerOf(configOf({ micro_batch_size: 1 }));
    using stopped = trainerOf(configOf({ micro_batch_size: 1 }));
    const { liveBytes } = stopped.backend.stats();
    const stop = new AbortController();
    let turns = 0;
    const count = (): void => {
      if (++turns === 3) stop.abort();
      else setImmediate(count);
    };
    setImmediate(count);
    await expect(stopped.evaluate(stop.signal)).rejects.toThrow("aborted");
    expect(turns).toBe(3);
    expect(stopped.backend.stats().liveBytes).toBe(liveBytes);
    expect(await stopped.evaluate()).toEqual(await plain.evaluate());
    expect(await stopped.step()).toEqual(await plain.step());
  });

  test("disturbs no later step", async () => {
    using plain = trainerOf(configOf());
    using evaluated = trainerOf(configOf());
    for (let i = 0; i < 3; i++) {
      const expected = await plain.step();
      expect(await evaluated.step()).toEqual(expected);
      await evaluated.evaluate();
    }
    expect(bitsOf(evaluated)).toEqual(bitsOf(plain));
  });
});

test("a sequence longer than the text is an error that says how long it may be", () => {
  expect(() =>
    trainerOf(configOf({ seq_len: 64 }), memoryStream([[0, 5, 6, 7, 1]])),
  ).toThrowErrorMatchingInlineSnapshot(
    `[ConfigError: seq_len: must be at most 3, since the training text has 5 tokens, got 64; lower seq_len or give more text]`,
  );
});

describe("the loop", () => {
  test("evaluates and saves when it should, the last time at the end", async () => {
    using trainer = trainerOf(configOf({ eval_every: 3, checkpoint_every: 2 }));
    const saved: number[] = [];
    const save = async (step: number): Promise<string> => `checkpoint ${saved.push(step)}`;
    const events = await collect(trainLoop({ trainer, steps: 5, save }));
    const short = events.map(
      (event) => `${event.kind} ${event.kind === "checkpoint" ? event.step : event.report.step}`,
    );
    expect(short).toEqual([
      "step 1",
      "step 2",
      "checkpoint 2",
      "step 3",
      "evaluation 3",
      "step 4",
      "checkpoint 4",
      "step 5",
      "evaluation 5",
      "checkpoint 5",
    ]);
    expect(saved).toEqual([2, 4, 5]);
  });

  test("ends an evaluation at once when it is told to, and saves", async () => {
    using trainer = trainerOf(configOf({ eval_every: 2 }));
    const stop = new AbortController();
    const events: TrainEvent[] = [];
    for await (const event of trainLoop({ trainer, steps: 10, save: async () => "there", signal: stop.signal })) {
      events.push(event);
      // Heard in the turn that the evaluation gives way before its first batch.
      if (event.kind === "step" && event.report.step === 2) setImmediate(() => stop.abort());
    }
    expect(events.map(({ kind }) => kind)).toEqual(["step", "step", "checkpoint"]);
  });

  test("ends at the next step boundary when it is told to, and saves there", async () => {
    using trainer = trainerOf(configOf({ eval_every: 10 }));
    const stop = new AbortController();
    const events: TrainEvent[] = [];
    for await (const event of trainLoop({ trainer, steps: 10, save: async () => "there", signal: stop.signal })) {
      events.push(event);
      if (event.kind === "step" && event.report.step === 3) stop.abort();
    }
    expect(events.map(({ kind }) => kind)).toEqual(["step", "step", "step", "checkpoint"]);
    expect(events.at(-1)).toEqual({ kind: "checkpoint", path: "there", step: 3 });
  });
});

describe("a checkpoint", () => {
  const tokenizer = createByteTokenizer();
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "fathom-trainer-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  function runOf(config: ResolvedConfig): RunDescription {
    return { config, data: { kind: "files", patterns: ["*.txt"], cwd: "/texts" }, dataset: "d1", tokenizer };
  }

  async function save(trainer: Trainer, port: FilePort = nodeFiles, keepLast = 2): Promise<string> {
    return new CheckpointFolder(folder, keepLast, port).save(trainer, runOf(trainer.config as ResolvedConfig));
  }

  /** A new trainer that stands where the newest checkpoint was saved. */
  async function resume(path = folder): Promise<Trainer> {
    const saved = await SavedRun.open(path);
    const trainer = trainerOf(saved.config);
    try {
      await saved.restore(trainer);
      return trainer;
    } catch (error) {
      trainer[Symbol.dispose]();
      throw error;
    }
  }

  /** The message of the error that a promise ends with, without the temporary folder's name. */
  async function failure(promise: Promise<unknown>): Promise<string> {
    const error = await promise.then(
      () => new Error("no error"),
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(FathomError);
    return String(error)
      .replaceAll(folder, "RUN")
      .replaceAll(/tmp-[0-9a-f]{8}/g, "tmp-ID");
  }

  test("lets ten steps equal five and five bit for bit", async () => {
    const config = configOf({ micro_batch_size: 2 });
    using straight = trainerOf(config);
    const losses = await takeSteps(straight, 10);
    {
      using first = trainerOf(config);
      expect(await takeSteps(first, 5)).toEqual(losses.slice(0, 5));
      await save(first);
    }
    using second = await resume();
    expect(second.state.step).toBe(5);
    expect(await takeSteps(second, 5)).toEqual(losses.slice(5));
    expect(bitsOf(second)).toEqual(bitsOf(straight));
    expect(second.state).toEqual(straight.state);
    expect(await second.evaluate()).toEqual(await straight.evaluate());
  });

  test("is a model folder with the run's configuration, tokenizer and data", async () => {
    using trainer = trainerOf(configOf());
    await trainer.step();
    const path = await save(trainer);
    expect(path).toBe(join(folder, "step-00000001"));
    expect(await readFile(join(folder, "latest"), "utf8")).toBe("step-00000001\n");
    expect((await readdir(path, { recursive: true })).toSorted()).toEqual([
      "config.json",
      "fathom.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
      "trainer",
      "trainer/optimizer.safetensors",
      "trainer/state.json",
    ]);
    const saved = await SavedRun.open(path);
    expect(saved.data).toEqual({ kind: "files", patterns: ["*.txt"], cwd: "/texts" });
    expect((await saved.tokenizer()).toJson()).toBe(tokenizer.toJson());
    saved.checkData("d1");
  });

  test("is not written over a good one when a weight has left the numbers", async () => {
    using trainer = trainerOf(configOf());
    await trainer.step();
    await save(trainer);
    await trainer.step();
    const { value } = trainer.model.parameters.get("layers.1.attn.wo");
    value.write(Float32Array.from(valuesOf(value)).fill(Infinity, 3, 4));
    expect(await failure(save(trainer))).toMatchInlineSnapshot(
      `"NumericError: step 2: layers.1.attn.wo: must be finite, got Infinity; start again with a lower lr or a longer warm-up; the last checkpoint is as it was"`,
    );
    expect(await readdir(folder)).toEqual(["latest", "step-00000001"]);
    expect((await SavedRun.open(folder)).state.step).toBe(1);
  });

  test("beyond the last ones is deleted", async () => {
    using trainer = trainerOf(configOf());
    for (let i = 0; i < 4; i++) {
      await trainer.step();
      await save(trainer);
    }
    expect(await readdir(folder)).toEqual(["latest", "step-00000003", "step-00000004"]);
  });

  test("that a full disk cuts short leaves the one before and `latest` as they were", async () => {
    using trainer = trainerOf(configOf());
    await takeSteps(trainer, 2);
    const measured = fullAfter(nodeFiles, Infinity);
    await save(trainer, measured);
    const before = bitsOf(trainer);
    await takeSteps(trainer, 2);
    const total = measured.written;
    using resumed = trainerOf(configOf());
    for (const room of [0, 1, 3000, total * 0.3, total * 0.6, total * 0.95, total - 1].map(Math.floor)) {
      await expect(save(trainer, fullAfter(nodeFiles, room)), `${room} bytes`).rejects.toThrow(IoError);
      expect(await readFile(join(folder, "latest"), "utf8")).toBe("step-00000002\n");
      await (await SavedRun.open(folder)).restore(resumed);
      expect(bitsOf(resumed), `${room} bytes`).toEqual(before);
    }
    const text = await failure(save(trainer, fullAfter(nodeFiles, total / 2)));
    expect(text).toMatchInlineSnapshot(
      `"IoError: RUN/step-00000004.tmp-ID/trainer/optimizer.safetensors.tmp: must be writable, got "ENOSPC"; free some disk space"`,
    );
    await save(trainer);
    expect(await readdir(folder)).toEqual(["latest", "step-00000002", "step-00000004"]);
  });

  test("is the one before or the new one whole, at whatever point the process dies", async () => {
    using trainer = trainerOf(configOf());
    using resumed = trainerOf(configOf());
    await takeSteps(trainer, 2);
    await save(trainer, nodeFiles, 1);
    const before = bitsOf(trainer);
    await takeSteps(trainer, 2);
    const after = bitsOf(trainer);
    const whole = diesAfter(nodeFiles, Infinity);
    const origin = `${folder}-origin`;
    await cp(folder, origin, { recursive: true });
    try {
      await save(trainer, whole, 1);
      let news = 0;
      // Most calls write tensors; what matters most is at the end, where names change.
      const middle = [0.2, 0.5, 0.8].map((share) => Math.floor(share * whole.calls));
      const last = Array.from({ length: 12 }, (_, i) => whole.calls - 12 + i);
      for (const calls of [0, 1, 2, 3, ...middle, ...last]) {
        await rm(folder, { recursive: true });
        await cp(origin, folder, { recursive: true });
        await expect(save(trainer, diesAfter(nodeFiles, calls), 1)).rejects.toThrow("killed");
        await (await SavedRun.open(folder)).restore(resumed);
        const isNew = resumed.state.step === 4;
        news += Number(isNew);
        expect(bitsOf(resumed), `after ${calls} calls`).toEqual(isNew ? after : before);
        await save(trainer, nodeFiles, 1);
        expect(await readdir(folder)).toEqual(["latest", "step-00000004"]);
      }
      expect(news).toBeGreaterThan(0);
    } finally {
      await rm(origin, { recursive: true });
    }
  });

  describe("that is damaged is refused", () => {
    let path: string;
    beforeEach(async () => {
      using trainer = trainerOf(configOf());
      await trainer.step();
      path = await save(trainer);
    });

    async function cut(file: string, bytes: number): Promise<void> {
      await truncate(join(path, file), (await readFile(join(path, file))).length - bytes);
    }

    test.each(["model.safetensors", "trainer/optimizer.safetensors"])("with %s cut short", async (file) => {
      await cut(file, 1);
      await expect(resume()).rejects.toThrow(FormatError);
      await cut(file, 5000);
      await expect(resume()).rejects.toThrow(FormatError);
      await writeFile(join(path, file), "");
      await expect(resume()).rejects.toThrow(FormatError);
    });

    test("with the moments of another model", async () => {
      const other = await mkdtemp(join(tmpdir(), "fathom-trainer-"));
      try {
        using trainer = trainerOf(configOf({ dim: 8 }));
        const foreign = await new CheckpointFolder(other, 1).save(trainer, runOf(trainer.config as ResolvedConfig));
        await cp(join(foreign, "trainer/optimizer.safetensors"), join(path, "trainer/optimizer.safetensors"));
        expect(await failure(resume())).toMatchInlineSnapshot(
          `"FormatError: RUN/step-00000001/trainer/optimizer.safetensors: must hold m.embed as F32 [24, 16], got "F32 [24, 8]""`,
        );
        await cp(join(foreign, "model.safetensors"), join(path, "model.safetensors"));
        expect(await failure(resume())).toMatchInlineSnapshot(
          `"FormatError: RUN/step-00000001: model.embed_tokens.weight must have shape [24, 16], got [24, 8]; check that config.json belongs to these weights"`,
        );
      } finally {
        await rm(other, { recursive: true });
      }
    });

    test("with a state that is another program's, no JSON, or missing", async () => {
      const file = join(path, "trainer/state.json");
      await writeFile(file, '{"epoch": 3}');
      expect(await failure(SavedRun.open(folder))).toMatchInlineSnapshot(
        `"FormatError: RUN/step-00000001/trainer/state.json: must be a trainer state of version 1, got "another file""`,
      );
      await writeFile(file, '{"version": 1');
      // The rest is the engine's own message.
      expect((await failure(SavedRun.open(folder))).replace(/got ".*"/, "got MESSAGE")).toMatchInlineSnapshot(
        `"FormatError: RUN/step-00000001/trainer/state.json: must be JSON, got MESSAGE; resume from an earlier checkpoint"`,
      );
      await writeFile(file, "null");
      expect(await failure(SavedRun.open(folder))).toMatchInlineSnapshot(
        `"FormatError: RUN/step-00000001/trainer/state.json: must be a trainer state of version 1, got "another file""`,
      );
      await rm(file);
      expect(await failure(SavedRun.open(folder))).toMatchInlineSnapshot(
        `"FormatError: RUN/step-00000001: must hold trainer/state.json; only a folder that fathom train wrote can be resumed"`,
      );
    });

    test("with a configuration that someone changed", async () => {
      const file = join(path, "fathom.json");
      await writeFile(file, (await readFile(file, "utf8")).replace('"seed": 0', '"seed": 1'));
      expect((await failure(SavedRun.open(folder))).replace(/"[0-9a-f]{16}"/, '"HASH"')).toMatchInlineSnapshot(
        `"FormatError: RUN/step-00000001/fathom.json: must be the configuration that the run was saved with, got "HASH"; restore the file; settings change on the command line"`,
      );
    });
  });

  test("goes on only with the settings and the text that it began with", async () => {
    using trainer = trainerOf(configOf());
    await save(trainer);
    const saved = await SavedRun.open(folder);
    saved.checkConfig(
      configOf({ steps: 99, schedule_steps: 10, warmup_steps: 2, threads: 2, keep_last: 7, eval_every: 1 }),
    );
    expect(() => saved.checkConfig(configOf({ lr: 0.5 }))).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: training.lr: must stay 0.003 when a run is resumed, got 0.5; only training.steps, training.eval_every, training.checkpoint_every, training.keep_last, runtime.threads may change]`,
    );
    expect(() => saved.checkConfig(configOf({ n_heads: 4 }))).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: model.n_heads: must stay 2 when a run is resumed, got 4; only training.steps, training.eval_every, training.checkpoint_every, training.keep_last, runtime.threads may change]`,
    );
    expect(() => saved.checkData("d2")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: data: must be the text that the run began with (d1), got "d2"; restore the text files, or start a new run]`,
    );
  });

  test("says in Hugging Face's files what it is: f32 weights, and how text is drawn", async () => {
    const read = async (path: string, name: string): Promise<unknown> =>
      JSON.parse(await readFile(join(path, name), "utf8"));
    using drawn = trainerOf(configOf({ dtype: "bf16", temperature: 0.5, top_p: 0.9 }));
    const first = await save(drawn);
    expect(await read(first, "config.json")).toMatchObject({ torch_dtype: "float32" });
    expect(await read(first, "generation_config.json")).toEqual({
      bos_token_id: 0,
      eos_token_id: 1,
      max_new_tokens: 200,
      repetition_penalty: 1,
      do_sample: true,
      temperature: 0.5,
      top_k: 0,
      top_p: 0.9,
    });
    using greedy = trainerOf(configOf({ temperature: 0 }));
    const second = await save(greedy);
    expect(await read(second, "generation_config.json")).toMatchObject({ do_sample: false });
    expect(await read(second, "generation_config.json")).not.toHaveProperty("temperature");
  });

  test("that `latest` names and that is gone is a FormatError", async () => {
    await writeFile(join(folder, "latest"), "step-00000009\n");
    expect(await failure(SavedRun.open(folder))).toMatchInlineSnapshot(
      `"FormatError: RUN/latest: must name a checkpoint beside it, got "step-00000009"; write into it the name of a checkpoint that is there"`,
    );
  });

  test("is not found in an empty folder", async () => {
    expect(await failure(SavedRun.open(folder))).toMatchInlineSnapshot(
      `"IoError: RUN: must be a run folder, a model folder with config.json or a .gguf file; train one with fathom train, or check the path"`,
    );
  });
});
