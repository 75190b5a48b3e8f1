import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseDocument } from "yaml";
import { editRunFile, openRunFile, resolveConfig, type ConfigInput, type ResolvedConfig } from "./index.ts";

/** As published in an article about training DeepSeek models. */
const ARTICLE = `training:
  precision: bfloat16
  optimizer:
    type: Lion
    params: {lr: 3e-5, weight_decay: 0.01, beta1: 0.9, beta2: 0.99}
  gradient_clipping: 1.0
  batch_scheduler: {type: linear_warmup_cosine_decay, warmup_steps: 2000, total_steps: 100000}
  checkpoint: {interval: 1000, keep_last: 3}
`;

async function open(files: Record<string, string>, path = "run.yaml", overrides: ConfigInput = {}) {
  const port = {
    read: async (file: string) => files[file] ?? Promise.reject(new Error(`no ${file}`)),
    resolve: (_from: string, to: string) => to.replace("./", ""),
  };
  return (await openRunFile(path, port)).resolve({ overrides });
}

const openText = (text: string, path = "run.yaml"): Promise<ResolvedConfig> => open({ [path]: text }, path);

async function messageOf(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return "no error";
}

describe("an article's YAML", () => {
  test("is accepted as it stands, its spellings mapped", async () => {
    const { training } = await openText(ARTICLE);
    expect(training).toMatchObject({
      precision: "bf16",
      optimizer: "lion",
      lr: 3e-5,
      weightDecay: 0.01,
      beta1: 0.9,
      beta2: 0.99,
      gradClip: 1,
      schedule: "cosine",
      warmupSteps: 2000,
      steps: 100_000,
      scheduleSteps: 100_000,
      checkpointEvery: 1000,
      keepLast: 3,
    });
  });

  test("says the same as JSON", async () => {
    const json = JSON.stringify(parseDocument(ARTICLE).toJS());
    expect((await openText(json, "run.json")).training).toEqual((await openText(ARTICLE)).training);
  });
});

test("a quantisation configuration of Neural Compressor is accepted as it stands", async () => {
  const text = `quantization:
  approach: post_training_static_quant
  weight: {dtype: int8, scheme: sym, granularity: per_channel}
  activation: {dtype: uint8, scheme: asym, granularity: per_tensor}
`;
  expect((await openText(text)).quantization).toMatchObject({
    approach: "static",
    weightDtype: "int8",
    weightScheme: "sym",
    granularity: "per_channel",
    activationDtype: "uint8",
    activationScheme: "asym",
    activationGranularity: "per_tensor",
  });
});

describe("extending", () => {
  const FILES = {
    "run.yaml": "extends: ./base.yaml\nlr: 0.5\n",
    "base.yaml": "extends: nano\nlr: 0.25\nsteps: 7\n",
    "both.yaml": "extends: [tiny, ./more.yaml]\n",
    "more.yaml": "training: {steps: 3}\n",
  };

  test("lays files over presets and over each other", async () => {
    const config = await open(FILES);
    expect([config.training.lr, config.training.steps, config.model.dim]).toEqual([
      0.5,
      7,
      resolveConfig("nano").model.dim,
    ]);
    expect((await open(FILES, "both.yaml")).training.steps).toBe(3);
    expect((await open(FILES, "run.yaml", { lr: 0.75 })).training.lr).toBe(0.75);
  });

  test("in a circle, and a preset under a file that names its own, are refused", async () => {
    expect(await messageOf(() => open({ "run.yaml": "extends: b.yaml", "b.yaml": "extends: run.yaml" }))).toBe(
      'ConfigError: extends: must not come back to a file, got "run.yaml → b.yaml → run.yaml"; take one extends out',
    );
    const run = await openRunFile("run.yaml", { read: async () => "preset: nano", resolve: (_, to) => to });
    expect(run.namesPreset).toBe(true);
    expect(() => run.resolve({ base: "tiny" })).toThrow("must not be given where run.yaml names its own");
  });

  test("wants names", async () => {
    expect(await messageOf(() => openText("extends: 3"))).toBe(
      "ConfigError: run.yaml:1:1 extends: must be a preset, a file, or a list of them, got 3",
    );
  });
});

describe("errors say where they are", () => {
  const BOMB = `a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n`;
  test.each([
    [
      "training:\n\tlr: 1",
      'FormatError: run.yaml:2:1: must be YAML (Tabs are not allowed as indentation), got "\\tlr: 1"; indent with spaces',
    ],
    [
      "lr: 1\nlr: 2",
      'FormatError: run.yaml:2:1: must be YAML (Map keys must be unique), got "lr: 2"; write each setting once',
    ],
    [BOMB, "FormatError: run.yaml:1:7: must not use anchors and aliases; write the value out, or use extends"],
    [
      "lr: !!js/function 'f'",
      "FormatError: run.yaml:1:5: must not use tags, got \"lr: !!js/function 'f'\"; write the plain value",
    ],
    [
      "lr: 1\n---\nlr: 2",
      'FormatError: run.yaml:2:1: must be one document, got "---"; one file for each, with extends',
    ],
    ["- 1", 'FormatError: run.yaml: must hold settings by name, got "a list"; for example training:'],
    [
      "lr: [",
      'FormatError: run.yaml:1:6: must be YAML (Flow sequence in block collection must be sufficiently indented and end with a ]), got "lr: ["; correct it there',
    ],
    [
      "training:\n  lr: fast",
      'ConfigError: run.yaml:2:3 training.lr: must be a number above 0 and of at most 1, got "fast"; the default is 0.001',
    ],
    [
      "training:\n  lr: .nan",
      "ConfigError: run.yaml:2:3 training.lr: must be a number above 0 and of at most 1, got NaN; the default is 0.001",
    ],
    ["hiden_size: 3", "ConfigError: run.yaml:1:1 hiden_size: must be a known parameter; did you mean hidden_size?"],
    [
      "dim: 64\nhidden_size: 32",
      "ConfigError: run.yaml:2:1 hidden_size: must agree with dim (64), got 32; give one of them",
    ],
    [
      "model:\n  # half\n  n_dense_layers: 99",
      "ConfigError: run.yaml:3:3 model.n_dense_layers: must be at most n_layers (27), got 99; lower n_dense_layers or raise n_layers",
    ],
  ])("%j", async (text, message) => {
    expect(await messageOf(() => openText(text))).toBe(message);
  });

  test("in a file that is extended, too", async () => {
    const files = { "run.yaml": "extends: b.yaml\nsteps: 5\n", "b.yaml": "training:\n  lr: -1\n" };
    expect(await messageOf(() => open(files))).toContain("ConfigError: b.yaml:2:3 training.lr: must be");
  });

  test("JSON is held to JSON", async () => {
    expect(await messageOf(() => openText('{"lr": 1,}', "run.json"))).toContain(
      "FormatError: run.json: must be JSON (",
    );
    expect(await messageOf(() => openText('{"lr": 1, "lr": 2}', "run.json"))).toBe(
      'FormatError: run.json:1:11: must be JSON (Map keys must be unique), got "{\\"lr\\": 1, \\"lr\\": 2}"; write each setting once',
    );
  });

  test("hostile sizes and depths end in an error, soon", async () => {
    expect(await messageOf(() => openText("#".repeat(2 ** 20 + 1)))).toContain("must have at most 1048576 characters");
    expect(await messageOf(() => openText("[".repeat(100_000)))).toMatch(
      /^FormatError: run\.yaml:1:\d+: must not nest so deep, got "\[{40}…"; settings nest two levels deep$/,
    );
  });
});

describe("editing", () => {
  const COMMENTED = `# a run of ours
extends: nano   # the small one

training:
  lr: 3e-5      # low, on purpose
  steps: 100
  # stairs
  milestones:
    - 0.8
    - 0.9

# the model
model: {dim: 256, n_layers: 4}  # flow
`;

  test("changes one value and no other character", async () => {
    expect(await editRunFile(COMMENTED, "run.yaml", "learning_rate", 1e-4)).toBe(COMMENTED.replace("3e-5", "0.0001"));
    expect(await editRunFile(COMMENTED, "run.yaml", "hidden_size", 512)).toBe(COMMENTED.replace("256", "512"));
    expect(await editRunFile(COMMENTED, "run.yaml", "extends", "tiny")).toBe(COMMENTED.replace("nano", "tiny"));
    expect(await editRunFile(COMMENTED, "run.yaml", "milestones", [0.6, 0.7])).toBe(
      COMMENTED.replace("- 0.8\n    - 0.9", "[ 0.6, 0.7 ]"),
    );
  });

  test("adds to the section that is there, or a section", async () => {
    expect(await editRunFile(COMMENTED, "run.yaml", "training.seed", 3)).toBe(
      COMMENTED.replace("    - 0.9\n", "    - 0.9\n  seed: 3\n"),
    );
    expect(await editRunFile(COMMENTED, "run.yaml", "num_heads", 8)).toBe(
      COMMENTED.replace("n_layers: 4}", "n_layers: 4, n_heads: 8}"),
    );
    expect(await editRunFile("", "run.yaml", "lr", 0.1)).toBe("training:\n  lr: 0.1\n");
    expect(await editRunFile("lr: # later", "run.yaml", "lr", 0.1)).toBe("lr: 0.1 # later");
    expect(await editRunFile('{\n    "lr": 1\n}\n', "run.json", "steps", 5)).toBe(
      '{\n    "lr": 1,\n    "training": {\n        "steps": 5\n    }\n}\n',
    );
    expect(await editRunFile('{"lr": 1.0}', "run.json", "lr", 0.5)).toBe('{"lr": 0.5}');
  });

  test("what was set is what is read, and every comment is still there", async () => {
    const value = fc.oneof(
      fc.record({ key: fc.constant("training.steps"), value: fc.integer({ min: 1, max: 1e6 }) }),
      fc.record({
        key: fc.constant("generation.stop"),
        value: fc.array(fc.string({ minLength: 1 }), { maxLength: 3 }),
      }),
      fc.record({
        key: fc.constant("data.separator"),
        value: fc.string({ minLength: 1 }).filter((s) => s.trim() !== ""),
      }),
      fc.record({ key: fc.constant("hardware.memory_margin"), value: fc.double({ min: 0.01, max: 1, noNaN: true }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(value, { minLength: 1, maxLength: 4 }), fc.boolean(), async (edits, json) => {
        const file = json ? "run.json" : "run.yaml";
        let text = json ? '{"extends": "nano"}' : COMMENTED;
        for (const edit of edits) text = await editRunFile(text, file, edit.key, edit.value);
        const last = new Map(edits.map((edit) => [edit.key, edit.value]));
        const config = (await openText(text, file)) as unknown as Record<string, Record<string, unknown>>;
        const read: Record<string, unknown> = {
          "training.steps": config.training!.steps,
          "generation.stop": config.generation!.stop,
          "data.separator": config.data!.separator,
          "hardware.memory_margin": config.hardware!.memoryMargin,
        };
        for (const [key, expected] of last) expect(read[key]).toEqual(expected);
        if (!json) for (const comment of COMMENTED.match(/#.*$/gm)!) expect(text).toContain(comment);
      }),
    );
  });
});

test("a mixture is read by name, and an empty section is none", async () => {
  const config = await openText("data:\n  mixture: {code: 0.3, prose: 0.7}\ntraining:\n");
  expect(config.data.mixture).toEqual({ code: 0.3, prose: 0.7 });
  expect(await messageOf(() => openText("data:\n  mixture: {code: -1}"))).toContain(
    "data.mixture.code: must be a number above 0, got -1",
  );
});
