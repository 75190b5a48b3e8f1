import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  describeParameter,
  findParameter,
  listParameters,
  pathOf,
  presetNames,
  resolveConfig,
  rowOf,
  settingOf,
  spellingsOf,
  toSnakeCase,
  type ConfigInput,
} from "./index.ts";
import { isRule, LAYERS, SECTIONS, type Row, type Value } from "./row.ts";
import { checkValue } from "./values.ts";

const ROWS = listParameters().map((parameter) => ({ path: pathOf(parameter), parameter, row: rowOf(parameter) }));
const NUMERIC = ROWS.filter(({ row }) => row.type === "integer" || row.type === "number");

/** Parameters that two sections share by meaning; every spelling of them needs its section. */
const SHARED = new Set(["seed"]);

function messageOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect((error as Error).name).toBe("ConfigError");
    return (error as Error).message;
  }
  return "no error";
}

describe("every row", () => {
  test.each(ROWS)("$path is whole", ({ row }) => {
    expect(LAYERS).toContain(row.layer);
    expect(row.meaning).toMatch(/^[A-Z0-9].*\.$/);
    expect(row.why).not.toBe("");
    expect(row.source).not.toBe("");
    expect(row.choices === undefined).toBe(row.type !== "choice");
    for (const how of [row.moves.parameters, row.moves.kvCache, row.moves.memory]) expect(how ?? "+").not.toBe("");
    if (row.truth !== undefined) expect(row.truth).toMatch(/\.$/);
  });

  test.each(ROWS)("$path has a default that it accepts itself", ({ path, parameter, row }) => {
    const value = isRule(row.default) ? settingOf(resolveConfig({}), parameter) : row.default;
    expect(checkValue(path, row, value)).toEqual(value);
    for (const able of row.runs ?? []) expect(checkValue(path, row, able)).toEqual(able);
    for (const foreign of Object.values(row.values ?? {})) expect(checkValue(path, row, foreign)).toEqual(foreign);
  });

  test("all five layers have parameters, and all sections", () => {
    expect(new Set(ROWS.map(({ row }) => row.layer))).toEqual(new Set(LAYERS));
    expect(new Set(ROWS.map(({ parameter }) => parameter.section))).toEqual(new Set(SECTIONS));
  });
});

describe("spellings", () => {
  test("each leads to one parameter without its section", () => {
    const clashes = ROWS.filter(({ parameter }) => !SHARED.has(parameter.name)).flatMap(({ parameter, path }) =>
      spellingsOf(parameter)
        .filter((spelling) => messageOf(() => expect(findParameter(spelling)).toEqual(parameter)) !== "no error")
        .map((spelling) => `${path}: ${spelling}`),
    );
    expect(clashes).toEqual([]);
  });

  test.each([
    ["hidden_size", "model.dim"],
    ["model_dim", "model.dim"],
    ["embed_dim", "model.dim"],
    ["ff_dim", "model.inter_dim"],
    ["num_layers", "model.n_layers"],
    ["attention_window", "model.window_size"],
    ["moe_top_k", "model.n_activated_experts"],
    ["expert_capacity", "model.expert_capacity"],
    ["visual_encoder_weight", "model.image_gate"],
    ["quant_bits", "quantization.bits"],
    ["per_device_train_batch_size", "training.micro_batch_size"],
    ["per_device_eval_batch_size", "training.eval_batch_size"],
    ["gradient_accumulation_steps", "training.grad_accum_steps"],
    ["gradient_checkpointing", "parallel.recompute"],
    ["tensor_parallel", "parallel.tp"],
    ["--pipeline-model-parallel-size", "parallel.pp"],
    ["hidden_dropout", "training.dropout"],
    ["max_length", "data.max_length"],
    ["domain_weights", "data.mixture"],
    ["target_modules", "adapter.lora_targets"],
    ["compression_ratio", "adapter.compression_ratio"],
    ["learning_rate", "training.lr"],
    ["optimizer.params.lr", "training.lr"],
    ["batch_scheduler.total_steps", "training.steps"],
  ])("%s means %s", (spelling, path) => {
    expect(pathOf(findParameter(spelling))).toBe(path);
  });

  test("names that set nothing anywhere say what is true instead", () => {
    expect(messageOf(() => findParameter("text_encoder_weight"))).toMatchInlineSnapshot(
      `"text_encoder_weight: must be a known parameter; no DeepSeek model weighs encoders; image_gate scales the embeddings of images"`,
    );
    expect(messageOf(() => findParameter("CUDA_LAUNCH_BLOCKING"))).toContain("leave it out");
  });
});

describe("every numeric row refuses", () => {
  const refused = (row: Row, value: unknown): string => messageOf(() => checkValue("here", row, value));

  test.each(NUMERIC)("$path: a text, a list, NaN, infinity, and values out of range", ({ row }) => {
    for (const value of ["12", [1], {}, true, Number.NaN, Infinity, -Infinity]) {
      if (typeof value === "boolean" && Object.hasOwn(row.values ?? {}, String(value))) continue;
      const message = refused(row, value);
      expect(message).toMatch(/^here: must be a (?:whole )?number.*, got .*; the default is /);
    }
    if (row.min !== undefined) expect(refused(row, row.min - 1)).toContain(`of at least ${row.min}`);
    if (row.max !== undefined) expect(refused(row, row.max * 2 + 1)).toContain(`of at most ${row.max}`);
    if (row.above !== undefined) expect(refused(row, row.above)).toContain(`above ${row.above}`);
    if (row.type === "integer") {
      expect(refused(row, (row.min ?? 0) + 0.5)).toContain("whole number");
      expect(refused(row, 2 ** 60)).not.toBe("no error");
    }
  });

  test.each(NUMERIC)("$path has a smallest legal value", ({ row }) => {
    expect(row.min !== undefined || row.above !== undefined).toBe(true);
  });
});

describe("set and printed", () => {
  const legal = (row: Row): fc.Arbitrary<Value> => {
    const max = row.max ?? 1e9;
    switch (row.type) {
      case "integer":
        return fc.integer({ min: row.min ?? 0, max: Math.min(max, 2 ** 31) });
      case "number":
        return fc.double({ min: row.min ?? row.above!, max, noNaN: true }).filter((x) => x > (row.above ?? -Infinity));
      case "boolean":
        return fc.boolean();
      case "choice":
        return fc.constantFrom(...row.choices!);
      case "text":
        return fc.string({ minLength: 1 }).filter((text) => text.trim() !== "");
      case "numbers":
        return fc.array(legal({ ...row, type: "number" }) as fc.Arbitrary<number>, { maxLength: 4 });
      case "texts":
        return fc.array(fc.string({ minLength: 1 }), { maxLength: 4 });
      case "weights":
        return fc.dictionary(fc.stringMatching(/^[a-z]+$/), fc.double({ min: 0.001, max: 1, noNaN: true }));
      default:
        return row.type satisfies never;
    }
  };

  test("a legal value passes its row unchanged, in JSON too", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...ROWS).chain(({ row, path }) => legal(row).map((value) => ({ row, path, value }))),
        ({ row, path, value }) => {
          expect(checkValue(path, row, value)).toEqual(value);
          expect(checkValue(path, row, JSON.parse(JSON.stringify(value)))).toEqual(JSON.parse(JSON.stringify(value)));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("settings that fit together come out under every spelling", () => {
    const names = new Set(["temperature", "threads", "keepLast", "memoryMargin", "loraRank", "valFraction"]);
    fc.assert(
      fc.property(
        fc.constantFrom(...ROWS.filter(({ parameter }) => names.has(parameter.name))).chain(({ parameter, row }) =>
          fc.record({
            parameter: fc.constant(parameter),
            spelling: fc.constantFrom(...spellingsOf(parameter)),
            value: legal(row),
          }),
        ),
        ({ parameter, spelling, value }) => {
          const config = resolveConfig("tiny", { [`${parameter.section}.${spelling}`]: value });
          expect(settingOf(config, parameter)).toEqual(value);
          expect(config.why[pathOf(parameter)]).toBe(`given as ${parameter.section}.${spelling}`);
        },
      ),
    );
  });

  test("snake_case and camelCase are one name", () => {
    for (const { parameter } of ROWS) {
      expect(findParameter(`${parameter.section}.${parameter.name}`)).toEqual(parameter);
      expect(toSnakeCase(parameter.name)).toMatch(/^[a-z][a-z0-9_]*$/);
    }
  });
});

describe("batches", () => {
  test("three of batch, micro-batch, accumulation and replicas give the fourth", () => {
    const training = (overrides: ConfigInput) => resolveConfig("tiny", overrides).training;
    expect(training({ batch_size: 32, gradient_accumulation_steps: 4 })).toMatchObject({ microBatchSize: 8 });
    expect(training({ batch_size: 32, per_device_train_batch_size: 2, dp: 4 })).toMatchObject({ gradAccumSteps: 4 });
    expect(training({ batch_size: 32, dp: 4 })).toMatchObject({ microBatchSize: 8, gradAccumSteps: 1 });
  });

  test.each([
    [
      { batch_size: 32, per_device_train_batch_size: 4, gradient_accumulation_steps: 4 },
      "batch_size: must be micro_batch_size × grad_accum_steps × dp (4 × 4 × 1), got 32; set batch_size=16, or leave one of the others out",
    ],
    [{ batch_size: 10, dp: 4 }, "batch_size: must be a multiple of dp (4), got 10; for example batch_size=12"],
    [
      { batch_size: 10, gradient_accumulation_steps: 4 },
      "gradient_accumulation_steps: must divide batch_size / dp (10), got 4; batch_size = micro_batch_size × grad_accum_steps × dp",
    ],
    [
      { warmup_ratio: 0.5, warmup_steps: 2 },
      "warmup_ratio: must agree with warmup_steps (2 of 20), got 0.5; give one of them",
    ],
    [{ tp: 2, devices: 4 }, "devices: must be the 2 ranks of the layout, got 4; leave one of the two out"],
    [{ rank: 1 }, "rank: must be below world_size (1), got 1; ranks count from 0"],
  ])("%j is refused", (overrides, message) => {
    expect(messageOf(() => resolveConfig("tiny", overrides))).toBe(message);
  });

  test("warm-up may be a share of the schedule", () => {
    expect(resolveConfig("tiny", { steps: 1000, warmup_ratio: 0.1 }).training.warmupSteps).toBe(100);
  });
});

test("an explained parameter has in each preset the value that the preset resolves to", () => {
  const configs = presetNames().map((name) => [name, resolveConfig(name)] as const);
  for (const { parameter } of ROWS) {
    const expected = Object.fromEntries(configs.map(([name, config]) => [name, settingOf(config, parameter)]));
    expect(describeParameter(parameter).presets).toEqual(expected);
  }
});
