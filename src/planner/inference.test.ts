import { describe, expect, it } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { batchCurve, largestBatch, parseSlo } from "./batch-curve.ts";
import { costOf, energyOf, revenueOf } from "./cost.ts";
import { device } from "./devices.ts";
import { BOUND, planInference } from "./inference.ts";
import { kvBytesPerToken } from "./kv-cache.ts";
import { modelShape, type ModelShape } from "./shape.ts";
import { weightFormat } from "./weight-formats.ts";

function shapeOf(name: string): ModelShape {
  return modelShape(resolveConfig(name).model);
}

const V3 = shapeOf("deepseek-v3");
const H800 = device("h800");

describe("the KV cache", () => {
  it("takes the published bytes per token in bf16", () => {
    expect(["deepseek-v2-lite", "deepseek-v2", "deepseek-v3"].map((name) => kvBytesPerToken(shapeOf(name)))).toEqual([
      31_104, 69_120, 70_272,
    ]);
  });

  it("halves in fp8, has a scale per token and layer in int8, and is 71 times larger when expanded", () => {
    expect(kvBytesPerToken(V3, "fp8")).toBe(35_136);
    expect(kvBytesPerToken(V3, "int8")).toBe(35_136 + 4 * 61);
    expect(kvBytesPerToken(V3, "bf16", true)).toBe(4_997_120);
  });
});

describe("the indexer of V3.2", () => {
  const V32 = shapeOf("deepseek-v3.2");
  const at = (settings: object) => planInference(V32, device("h200"), { devices: 8, batch: 8, ...settings });

  it("caches 132 bytes for a token and layer beside the latent, in whatever the latent is", () => {
    expect(kvBytesPerToken(V32)).toBe(70_272 + 61 * 132);
    expect(kvBytesPerToken(V32, "fp8")).toBe(35_136 + 61 * 132);
    expect(at({}).kvTokenBytes).toBe(kvBytesPerToken(V32));
  });

  it("leaves 2,048 latents to read and to attend to, and is itself read and computed over the whole context", () => {
    const context = 131_072;
    const { explain } = at({ context });
    expect(explain("read.cache").value).toBe(70_272 * 2048 + 61 * 132 * context);
    expect(explain("flops.core").value).toBe(61 * 2 * 128 * 1088 * 2048 + 61 * 2 * 64 * 128 * context);
    expect(at({ context: 1024 }).explain("read.cache").value).toBe(kvBytesPerToken(V32) * 1024);
  });

  it("makes long prompts cheap, and leaves short ones to masked attention", () => {
    const core = (prompt: number, cachedShare = 0): number => at({ prompt, cachedShare }).explain("prefill.core").value;
    const [whole, absorbed, index] = [61 * 2 * 128 * 320, 61 * 2 * 128 * 1088, 61 * 2 * 64 * 128];
    expect(core(4096)).toBe((whole + index) * 2048);
    // All of the first 2,048 positions, then 2,048 each.
    const keys = 2048 - 2048 ** 2 / (2 * 65_536);
    expect(core(65_536)).toBeCloseTo(absorbed * keys + index * 32_768, -3);
    expect(core(65_536, 0.5)).toBeCloseTo(absorbed * 2048 + index * 49_152, -3);
  });
});

describe("a prompt's dispatch", () => {
  it("goes to every expert within a node, else to each node of the groups that a token may choose from", () => {
    const copies = (devices: number): number =>
      planInference(V3, H800, { devices, batch: devices }).explain("prefill.copies").value;
    expect([8, 16, 32, 64, 128, 256].map(copies)).toEqual([8, 2, 4, 4, 8, 8]);
  });
});

describe("the expected work of a decode step", () => {
  it("counts the distinct experts of a layer", () => {
    const distinct = [1, 8, 32, 128, 512].map(
      (batch) => planInference(V3, device("h200"), { batch }).explain("moe.distinct").value,
    );
    expect(distinct.map(Math.round)).toEqual([8, 57, 163, 252, 256]);
  });

  it("reads of V3 in fp8 what one, eight and many sequences choose", () => {
    const read = (batch: number): number =>
      planInference(V3, device("h200"), { batch, context: 0 }).decode.readBytes / 1e9;
    expect([1, 8, 32, 128, 512].map((batch) => Math.round(read(batch) * 10) / 10)).toMatchInlineSnapshot(`
      [
        37.7,
        163.9,
        434.5,
        660.1,
        671.3,
      ]
    `);
  });

  it("yields 1 + p tokens with one draft", () => {
    const tokens = (drafts: number, acceptance: number): number =>
      planInference(V3, device("h200"), { drafts, acceptance }).explain("mtp.tokens").value;
    expect(tokens(0, 0.9)).toBe(1);
    expect(tokens(1, 0.85)).toBeCloseTo(1.85, 12);
    expect(tokens(2, 0.5)).toBeCloseTo(1.75, 12);
  });
});

describe("an inference plan", () => {
  it("has a ledger that sums to its total, with the published size of the fp8 weights in it", () => {
    const plan = planInference(V3, device("h200"), { devices: 8, batch: 64, context: 4096 });
    const sum = plan.memory.reduce((total, { bytes }) => total + bytes, 0);
    expect(plan.totalBytes).toBe(sum);
    const experts = plan.memory.find(({ name }) => name === "weights.experts");
    expect(experts!.bytes * 8).toBeCloseTo(653_908_770_816 * (1 + 4 / 16384), -3);
  });

  it("explains every number down to its inputs", () => {
    const { explain } = planInference(V3, device("h200"));
    const step = explain("decode.step");
    expect(step.inputs.map(({ name }) => name)).toContain("decode.memory");
    expect(explain("kv.cache").formula).toBe("kv.token * sequences * context");
  });

  it("bounds one sequence on eight H200 at a thousand tokens per second", () => {
    const settings = { devices: 8, tp: 8, batch: 1, context: 0 };
    const bound = planInference(V3, device("h200"), { ...settings, ...BOUND }).decode;
    expect(1 / bound.memorySeconds).toMatchInlineSnapshot(`980.272892329703`);
    expect(planInference(V3, device("h200"), settings).decode.memorySeconds).toBeCloseTo(bound.memorySeconds / 0.8, 9);
  });

  it("is slower with more sequences, faster in bytes with an fp8 cache, and larger with an expanded one", () => {
    const at = (settings: object) =>
      planInference(V3, H800, { devices: 144, batch: 144 * 88, context: 4989, ...settings });
    expect(at({ batch: 144 * 100 }).decode.stepSeconds).toBeGreaterThan(at({}).decode.stepSeconds);
    expect(at({ kv: "fp8" }).decode.readBytes).toBeLessThan(at({}).decode.readBytes);
    expect(at({ expandedKv: true }).kvTokenBytes).toBe(at({}).kvTokenBytes * (4_997_120 / 70_272));
  });

  it("answers sooner the more of a prompt is cached, and counts cached tokens in the rate of prompts", () => {
    const at = (cachedShare: number, chunk = 8192) => {
      const settings = { devices: 8, tp: 8, prompt: 4096, chunk, cachedShare };
      const { prefill, explain } = planInference(V3, device("h200"), settings);
      const { ttftSeconds, tokensPerSecPerDevice } = prefill;
      expect(tokensPerSecPerDevice).toBeCloseTo(4096 / (8 * ttftSeconds), 9);
      const [todo, pass, core] = ["prefill.todo", "chunk", "prefill.core"].map((name) => explain(name).value);
      return { ttft: ttftSeconds, todo, pass, core, passSeconds: explain("prefill.pass").value };
    };
    const [none, half, most] = [0, 0.5, 0.875].map((cached) => at(cached));
    expect([none, half, most].map((plan) => plan!.todo)).toEqual([4096, 2048, 512]);
    expect(half!.ttft).toBeLessThan(none!.ttft);
    expect(most!.ttft).toBeLessThan(half!.ttft);
    expect(half!.core! / none!.core!).toBeCloseTo(1.5, 9);
    const passes = at(0.5, 512);
    expect(passes).toMatchObject({ pass: 512, ttft: 4 * passes.passSeconds });
  });

  it("plans sparse attention for an empty prompt and for one that is cached whole", () => {
    const sparse = shapeOf("deepseek-v3.2");
    const keys = (settings: object): number => {
      const { prefill, names, explain } = planInference(sparse, device("h200"), { devices: 8, tp: 8, ...settings });
      expect(prefill.ttftSeconds).toBeGreaterThan(0);
      expect(names.filter((name) => !Number.isFinite(explain(name).value))).toEqual([]);
      return explain("prefill.keys").value;
    };
    expect(keys({ context: 0 })).toBe(0);
    expect(keys({ context: 4096, cachedShare: 1 })).toBe(2048);
    expect(keys({ context: 1024, cachedShare: 0.5 })).toBe(768);
    const cache = planInference(sparse, device("h200")).explain("kv.cache");
    expect(cache.meaning).toBe("cached latents, or keys and values, and keys of the indexer");
  });

  it("keeps and reads an MTP layer in tensor-parallel parts, and refuses drafts of a model without one", () => {
    const at = (tp: number, drafts: number) => planInference(V3, device("h200"), { devices: 8, tp, batch: 8, drafts });
    const { explain, memory } = at(8, 1);
    const [dense, elements] = ["mtp.dense", "mtp.elements"].map((name) => explain(name).value);
    const [each, expert] = ["dense.bytes", "moe.bytes"].map((name) => explain(name).value);
    const { bytes } = memory.find(({ name }) => name === "weights.mtp")!;
    expect(bytes).toBeCloseTo((dense! * each! + elements! * expert!) / 8, 3);
    const read = (tp: number): number => at(tp, 1).explain("read.drafts").value;
    expect(read(8)).toBeLessThan(read(1));
    expect(() => planInference(shapeOf("deepseek-v2"), H800, { drafts: 1 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: drafts: must be 0 for a model without MTP layers, got 1; choose 0, or a model with them]`,
    );
  });

  it("gains from MTP where memory is the limit, not its full 1 + p", () => {
    const at = (drafts: number) =>
      planInference(V3, device("h200"), { devices: 8, tp: 8, batch: 1, drafts, acceptance: 0.85 }).decode.tpotSeconds;
    const gain = at(0) / at(1);
    expect(gain).toBeGreaterThan(1);
    expect(gain).toBeLessThan(1.85);
  });

  it("refuses what cannot be dealt out", () => {
    expect(() => planInference(V3, H800, { devices: 8, tp: 3, batch: 8 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: tp: must divide the devices (8), got 3; choose a divisor]`,
    );
    expect(() => planInference(V3, H800, { devices: 8, batch: 1 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: batch: must be at least one sequence for each data-parallel rank (8), got 1; raise the batch or tp]`,
    );
    expect(() => planInference(V3, device("4090"), { devices: 16, batch: 16 })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: rtx-4090.network: must be known for more than 8 devices, got 16; add network_gb_per_s to a row of your own, or use fewer devices]`,
    );
    expect(() => planInference(V3, device("a100"), { weights: "fp8" })).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: a100.peaks: must have fp8, got "bf16, fp16, int8"; choose one of these precisions]`,
    );
    expect(() => weightFormat("fp9")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: weights: must be one of bf16, fp8, int8, int4, fp8-mxfp4-experts, mxfp4, nvfp4, got "fp9"; did you mean fp8?]`,
    );
  });
});

describe("the batch curve", () => {
  const settings = { devices: 16, tp: 1, context: 2048 };

  it("grows until the memory is full, with no fewer tokens and no less latency at each step", () => {
    const curve = batchCurve(V3, device("h200"), settings);
    expect(curve.slice(0, -1).every(({ fits }) => fits)).toBe(true);
    for (const [i, { plan }] of curve.slice(1).entries()) {
      expect(plan.decode.tokensPerSec).toBeGreaterThanOrEqual(curve[i]!.plan.decode.tokensPerSec);
      expect(plan.decode.tpotSeconds).toBeGreaterThanOrEqual(curve[i]!.plan.decode.tpotSeconds);
    }
  });

  it("ends at the largest batch that keeps a promise, or says that none does", () => {
    const slo = parseSlo("ttft=5s,tpot=50ms");
    expect(slo).toEqual({ ttftSeconds: 5, tpotSeconds: 0.05 });
    const best = largestBatch(V3, device("h200"), { ...settings, slo });
    expect(best?.keepsSlo).toBe(true);
    const next = planInference(V3, device("h200"), { ...settings, batch: best!.batch + 16 });
    const memory = device("h200").memoryBytes * 0.85;
    expect(next.decode.tpotSeconds > 0.05 || next.totalBytes > memory).toBe(true);
    expect(largestBatch(V3, device("h200"), { ...settings, slo: { tpotSeconds: 1e-4 } })).toBeUndefined();
    expect(() => parseSlo("tpot=fast")).toThrowErrorMatchingInlineSnapshot(
      `[ConfigError: --slo: must be ttft=TIME,tpot=TIME or one of them, each time with its unit (ms or s), got "tpot=fast"; for example ttft=2s,tpot=50ms]`,
    );
  });
});

describe("money and energy", () => {
  it("reproduce the bill of a day that DeepSeek published", () => {
    const day = { devices: 226.75 * 8, seconds: 86_400, tokens: 776e9 };
    expect(costOf(day, 2).cost).toBeCloseTo(87_072, 6);
    const revenue = revenueOf([
      { millions: 608e3 * 0.437, price: 0.55 },
      { millions: 608e3 * 0.563, price: 0.14 },
      { millions: 168e3, price: 2.19 },
    ]);
    expect(Math.abs(revenue / 562_027 - 1)).toBeLessThan(0.005);
  });

  it("turn board power into kilowatt-hours and joules per token", () => {
    const hour = { devices: 8, seconds: 3600, tokens: 1e6 };
    expect(energyOf(hour, H800, { pue: 1.2 })).toEqual({
      kwh: 5.6 * 1.2,
      joulesPerToken: (8 * 3600 * 700 * 1.2) / 1e6,
    });
    expect(energyOf(hour, device("tpu-v5p"))).toBeUndefined();
  });
});
