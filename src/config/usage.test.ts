import { describe, expect, test } from "vitest";
import {
  changedSettings,
  checkRuns,
  configHash,
  fromJson,
  idleSettings,
  isHashOf,
  pathOf,
  resolveConfig,
} from "./index.ts";
import { toJson, type ConfigInput, type Verb } from "./index.ts";

const idle = (overrides: ConfigInput, verb: Verb = "train"): string[] =>
  idleSettings(resolveConfig("tiny", overrides), verb).map(({ path, reason }) => `${path}: ${reason}`);

describe("a setting that changes nothing is named", () => {
  test.each<[ConfigInput, string]>([
    [{ max_batch_size: 4 }, "model.max_batch_size: fathom train does not use it"],
    [{ decay_steps: 4 }, "training.decay_steps: schedule is cosine; only wsd ends in a decay"],
    [{ milestones: [0.5, 0.7] }, "training.milestones: schedule is cosine; only piecewise has stairs"],
    [{ min_lr: 1e-5, schedule: "constant" }, "training.min_lr: schedule is constant, which does not end at min_lr"],
    [{ rope_factor: 1, beta_fast: 16 }, "model.beta_fast: YaRN is off with rope_factor 1"],
    [{ rope_factor: 1, mscale: 0.5, mscale_all_dim: 0.5 }, "model.mscale: YaRN is off with rope_factor 1"],
    [{ n_mtp_layers: 0, mtp_loss_weight: 0.1 }, "model.mtp_loss_weight: there are no MTP layers"],
    [{ quant_bits: 8 }, "quantization.bits: fathom train does not use it"],
    [{ kd_weight: 0.5 }, "distillation.kd_weight: fathom train does not use it"],
  ])("%j", (overrides, message) => {
    expect(idle(overrides)).toContain(message);
  });

  test("and no other is", () => {
    expect(idle({})).toEqual([]);
    expect(idle({ lr: 1e-3, schedule: "wsd", decay_steps: 4, "generation.temperature": 0.5, threads: 1 })).toEqual([]);
    expect(idle({ temperature: 0, top_k: 5 }, "generate")).toEqual([
      "generation.top_k: temperature is 0, which takes the likeliest token",
    ]);
  });

  test("when a run goes on, only what differs from it counts", () => {
    const saved = resolveConfig("tiny", { decay_steps: 4 });
    const resumed = fromJson(toJson(saved));
    expect(idleSettings(resumed, "train", saved)).toEqual([]);
    const changed = resolveConfig(JSON.parse(toJson(saved)) as ConfigInput, { decay_steps: 5 });
    expect(idleSettings(changed, "train", saved).map(({ path }) => path)).toEqual(["training.decay_steps"]);
  });
});

describe("a value that the engine does not carry out is refused", () => {
  const refusal = (overrides: ConfigInput, verb: "train" | "generate" = "train"): string => {
    try {
      checkRuns(resolveConfig("tiny", overrides), verb);
    } catch (error) {
      expect((error as Error).name).toBe("UnsupportedError");
      return (error as Error).message;
    }
    return "no error";
  };

  test.each<[ConfigInput, string]>([
    [{ optimizer: "Lion" }, 'training.optimizer: must be adamw in fathom train, got "lion"; set optimizer=adamw'],
    [{ dropout: 0.1 }, "training.dropout: must be 0 in fathom train, got 0.1; set dropout=0"],
    [{ tp: 2 }, "parallel.tp: must be 1 in fathom train, got 2; set tp=1"],
    [{ router: "mlp_noisy" }, 'model.router: must be gate in fathom train, got "mlp_noisy"; set router=gate'],
    [{ lora_r: 8 }, "adapter.lora_rank: must be 0 in fathom train, got 8; set lora_rank=0"],
    [
      { gradient_checkpointing: true },
      'parallel.recompute: must be none in fathom train, got "full"; set recompute=none',
    ],
  ])("%j", (overrides, message) => {
    expect(refusal(overrides)).toBe(message);
  });

  test("with another cure where it came with the model", () => {
    expect(() => checkRuns(resolveConfig("deepseek-v4-flash"), "train")).toThrow(
      /must be .* in fathom train, got .*; it follows from preset deepseek-v4-flash; take another model/,
    );
  });

  test("where it would matter, and nowhere else", () => {
    expect(refusal({})).toBe("no error");
    expect(refusal({ optimizer: "lion" }, "generate")).toBe("no error");
    expect(refusal({ min_p: 0.1 })).toBe("no error");
    expect(refusal({ min_p: 0.1 }, "generate")).toContain("generation.min_p: must be 0 in fathom generate, got 0.1");
  });
});

describe("the hash", () => {
  test("is that of the settings which differ from their defaults", () => {
    expect(changedSettings(resolveConfig({}))).toEqual([]);
    const config = resolveConfig({ lr: 1e-4, steps: 50, warmup_steps: 10, min_lr: 1e-5 });
    expect(changedSettings(config).map(pathOf)).toEqual(["training.steps", "training.lr", "training.warmup_steps"]);
    expect(configHash(resolveConfig({ lr: 1e-4, steps: 50, warmup_steps: 10 }))).toBe(configHash(config));
  });

  test("of a saved run stays when parameters are added to the list", () => {
    const config = resolveConfig("nano");
    const saved = JSON.parse(toJson(config)) as Record<string, Record<string, unknown>>;
    const older = { model: { ...saved.model }, training: { ...saved.training } };
    delete older.model.router;
    delete older.training.dropout;
    expect(configHash(resolveConfig(older))).toBe(configHash(config));
  });

  test("distinguishes accumulation from one large pass", () => {
    expect(configHash(resolveConfig("nano", { micro_batch_size: 2 }))).not.toBe(configHash(resolveConfig("nano")));
    expect(configHash(resolveConfig("nano", { micro_batch_size: 2 }))).toBe(
      configHash(resolveConfig("nano", { grad_accum_steps: 2 })),
    );
  });

  test("of the first runs, over the whole text of their file, is still known", () => {
    // The file and hash as such a run saved them, cut to what a test needs.
    const text = '{\n  "model": {\n    "dim": 64\n  }\n}\n';
    const config = fromJson(text);
    expect(isHashOf("0000000000000000", config, text)).toBe(false);
    expect(isHashOf(configHash(config), config, text)).toBe(true);
    expect(isHashOf(wholeTextHash(text), config, text)).toBe(true);
    expect(isHashOf(wholeTextHash(text), config, `${text} `)).toBe(false);
  });
});

/** FNV-1a, 64 bits, on its own. **Source:** Fowler, Noll, Vo; offset basis and prime as published. */
function wholeTextHash(text: string): string {
  let hash = 14695981039346656037n;
  for (const byte of Buffer.from(text)) hash = ((hash ^ BigInt(byte)) * 1099511628211n) % 2n ** 64n;
  return hash.toString(16).padStart(16, "0");
}

test("what follows from a rule is refused with the settings that the rule reads", () => {
  expect(() => checkRuns(resolveConfig("nano", { "parallel.dp": 2 }), "generate")).toThrow(
    "runtime.world_size: must be 1 in fathom generate, got 2; it follows from tp × pp × cp × dp; change these, so that world_size=1",
  );
});
