import { describe, expect, test } from "vitest";
import { resolveConfig } from "../config/index.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import { advise, chosenAdvice, findScene, harmfulSettings, parseMetrics, repeatedShare, SCENES } from "./index.ts";
import { predictTraining } from "./prediction.ts";

const V2_LITE = {
  "hardware.device": "a100-80gb",
  "parallel.dp": 8,
  "parallel.ep": 8,
  "training.batch_size": 64,
  "training.micro_batch_size": 8,
};

const resolve = (changes: Readonly<Record<string, unknown>>) =>
  resolveConfig("deepseek-v2-lite", { ...V2_LITE, ...changes });

describe("advice against a lack of memory", () => {
  const report = advise({ symptom: "oom", resolve });

  test("predicts each saving as the planner does when it is applied", () => {
    expect(report.advice.length).toBeGreaterThan(4);
    for (const { changes, savedBytes, name } of report.advice) {
      const after = predictTraining(resolve(changes));
      expect(after.memoryBytes, name).toBe(report.now.memoryBytes - savedBytes);
      expect(savedBytes, name).toBeGreaterThan(0);
    }
  });

  test("puts what makes it fit first, then the best gain for its cost, and a new model behind what keeps it", () => {
    const fits = report.advice.map(({ predicted }) => predicted.memoryBytes <= predicted.limitBytes);
    expect(report.advice.map(({ overBytes }) => overBytes === 0)).toEqual(fits);
    expect(new Set(fits).size).toBe(2);
    expect(fits).toEqual(fits.toSorted((a, b) => Number(b) - Number(a)));
    for (const enough of [true, false]) {
      const scores = report.advice.filter((_, i) => fits[i] === enough).map(({ score }) => score);
      expect(scores).toEqual(scores.toSorted((a, b) => b - a));
    }
    const kinds = report.advice.map(({ kind }) => kind);
    expect(kinds.indexOf("new model")).toBeGreaterThan(kinds.indexOf("same numbers"));
  });

  test("marks a narrower model as a new one, since its parameters differ", () => {
    const narrower = report.advice.find(({ name }) => name === "a narrower model")!;
    expect(narrower.kind).toBe("new model");
    expect(narrower.predicted.parameters).toBeLessThan(report.now.parameters);
    for (const item of report.advice.filter(({ kind }) => kind === "same numbers")) {
      expect(item.predicted.parameters).toBe(report.now.parameters);
    }
  });

  test("keeps the sequences of a step when it halves the micro-batch", () => {
    const { changes } = report.advice.find(({ name }) => name === "smaller micro-batch")!;
    expect(changes).toEqual({ "training.micro_batch_size": 4 });
    expect(resolve(changes).training.batchSize).toBe(64);
  });

  test("takes one sequence a pass where the run sets no micro-batch, and says so", () => {
    const open = advise({ symptom: "slow", resolve: (changes) => resolveConfig("deepseek-v3", changes) });
    expect(open.job).toMatchObject({ devices: 1, microBatchSize: 1, isMicroBatchAssumed: true });
    expect(report.job).toEqual({ device: "a100-80gb", devices: 8, microBatchSize: 8, isMicroBatchAssumed: false });
    const accumulating = { "training.grad_accum_steps": 2 };
    const given = advise({
      symptom: "oom",
      resolve: (changes) => resolveConfig("nano", { ...accumulating, ...changes }),
    });
    expect(given.job).toMatchObject({ microBatchSize: 2, isMicroBatchAssumed: false });
  });

  test("says of a job that fits that the cause is elsewhere, and advises all the same", () => {
    const fitting = advise({ symptom: "oom", resolve: (changes) => resolveConfig("nano", changes) });
    expect(fitting.remark).toContain("other processes on the device, fragmentation");
    expect(fitting.advice.length).toBeGreaterThan(0);
    expect(report.remark).toBeNull();
  });

  test("names the recipe in which the model is computed", () => {
    const asked = (recipe: string) =>
      advise({
        symptom: "oom",
        resolve: (changes) =>
          resolveConfig("nano", { "hardware.device": "m4-max", "parallel.precision_recipe": recipe, ...changes }),
      }).steps.find(({ ask }) => ask.includes("float32"));
    expect(asked("fp32")).toEqual({ ask: expect.stringContaining("precision_recipe is fp32") as string, answer: true });
    expect(asked("bf16")).toEqual({
      ask: expect.stringContaining("precision_recipe is bf16") as string,
      answer: false,
    });
  });

  test("names what the rules of the configuration refuse", () => {
    const odd = advise({
      symptom: "oom",
      resolve: (changes) => resolve({ "parallel.dp": 6, "parallel.ep": 2, "training.batch_size": 48, ...changes }),
    });
    expect(odd.advice.map(({ name }) => name)).not.toContain("deal the experts to more ranks");
    const refused = odd.refused.find(({ name }) => name === "deal the experts to more ranks");
    expect(refused?.reason).toContain("ETP·EP divides TP·CP·DP");
  });
});

describe("advice against slowness", () => {
  test("of a job that does not fit begins with its memory", () => {
    const { now, remark } = advise({ symptom: "slow", resolve: (changes) => resolveConfig("deepseek-v3", changes) });
    expect(now.memoryBytes).toBeGreaterThan(now.limitBytes);
    expect(remark).toMatch(/does not fit: begin with --oom/);
  });

  test("only gives what the planner predicts to be faster and to fit", () => {
    const report = advise({
      symptom: "slow",
      resolve: (changes) =>
        resolve({
          "training.micro_batch_size": 1,
          "parallel.zero": 3,
          "parallel.recompute": "full",
          "parallel.ep": 8,
          ...changes,
        }),
    });
    expect(report.advice.length).toBeGreaterThan(0);
    for (const { stepSecAdded, predicted } of report.advice) {
      expect(stepSecAdded).toBeLessThan(0);
      expect(predicted.memoryBytes).toBeLessThanOrEqual(predicted.limitBytes);
    }
  });

  test("looks beyond the planner when the run is far below the prediction", () => {
    const metrics = parseMetrics('{"step":1,"loss":3,"tokens_per_sec":10}\n', "run.jsonl");
    const report = advise({ symptom: "slow", resolve, metrics });
    expect(report.steps[0]).toEqual({ ask: expect.stringContaining("60 %") as string, answer: true });
    expect(report.advice.map(({ name }) => name)).toContain("look for what the planner does not know");
  });

  test("does not ask for the speed of a run that was not measured", () => {
    const metrics = parseMetrics('{"step":1,"loss":3}\n', "run.jsonl");
    expect(metrics.tokensPerSec).toBeUndefined();
    for (const measured of [{ metrics }, {}]) {
      const { steps, advice } = advise({ symptom: "slow", resolve, ...measured });
      expect(steps.map(({ ask }) => ask)).not.toContainEqual(expect.stringContaining("60 %"));
      expect(advice.map(({ name }) => name)).not.toContain("look for what the planner does not know");
    }
  });
});

describe("advice on quality", () => {
  const adviceFor = (lines: readonly object[]): string[] =>
    advise({
      symptom: "quality",
      resolve: (changes) => resolveConfig("nano", changes),
      metrics: parseMetrics(lines.map((line) => JSON.stringify(line)).join("\n"), "run.jsonl"),
    }).advice.map(({ name }) => name);
  const losses = (from: number, to: number) =>
    Array.from({ length: 20 }, (_, step) => ({ step, loss: from + ((to - from) * step) / 19, tokens_per_sec: 1000 }));

  test("lowers the learning rate of a run whose loss rose", () => {
    expect(adviceFor(losses(5, 6))).toContain("lower learning rate");
  });

  test("does not train longer what is learned by heart", () => {
    const names = adviceFor([...losses(5, 2), { val_loss: 3 }, { val_loss: 3.5 }]);
    expect(names).toContain("stop earlier, or more text");
    expect(names).not.toContain("train longer");
  });

  test("trains longer what still learns", () => {
    expect(adviceFor([...losses(5, 3), { val_loss: 3.2 }, { val_loss: 3.1 }])).toContain("train longer");
  });

  test("passes over questions whose answer was not measured", () => {
    const report = advise({
      symptom: "quality",
      resolve: (changes) => resolveConfig("nano", changes),
      metrics: parseMetrics('{"loss":3}\n{"loss":2}\n', "run.jsonl"),
    });
    expect(report.steps).toEqual([
      { ask: "are there metrics of a run?", answer: true },
      { ask: "did the loss rise over the run?", answer: false },
    ]);
    expect(report.advice.map(({ name }) => name)).toContain("train longer");
  });

  test("balances experts of which one takes most", () => {
    const uneven = { val_loss: 3, routing: [{ max_load: 1.2 }, { max_load: 3.5 }] };
    expect(adviceFor([...losses(5, 3), uneven])).toContain("balance the experts");
  });
});

describe("advice against repetition", () => {
  const looping = "to be or not to be ".repeat(20);
  const names = (sample: string, settings: Record<string, unknown>): string[] =>
    advise({
      symptom: "repetition",
      sample,
      resolve: (changes) => resolveConfig("nano", { ...settings, ...changes }),
    }).advice.map(({ name }) => name);

  test("warms a cold sampler that loops", () => {
    expect(repeatedShare(looping)).toBeGreaterThan(0.9);
    expect(names(looping, { "generation.temperature": 0.2 })).toContain("higher temperature");
  });

  test("without a sample does not say that it is a loop", () => {
    const { steps, advice } = advise({ symptom: "repetition", resolve: (changes) => resolveConfig("nano", changes) });
    expect(steps).toEqual([{ ask: "is there a sample of its text?", answer: false }]);
    expect(advice.length).toBeGreaterThan(1);
  });

  test("brings a penalty of 1.2 down, also where nothing loops", () => {
    expect(names("each word of this stands once only", { "generation.repetition_penalty": 1.2 })).toEqual([
      "a mild repetition penalty",
    ]);
  });
});

describe("advice", () => {
  test("is applied one at a time, and only where there is something to set", () => {
    const report = advise({ symptom: "quality", resolve: (changes) => resolveConfig("nano", changes) });
    expect(() => chosenAdvice(report, 99)).toThrow(ConfigError);
    expect(() => chosenAdvice({ ...report, advice: [] }, 1)).toThrow(
      "--apply: must name advice, of which there is none here, got 1; --why 0 explains the prediction of the run as it is",
    );
    const byHand = report.advice.findIndex(({ changes }) => Object.keys(changes).length === 0) + 1;
    expect(() => chosenAdvice(report, byHand)).toThrow(/by hand/);
  });

  test("of a metrics file without a loss is refused", () => {
    expect(() => parseMetrics('{"step":1}\n', "run.jsonl")).toThrowErrorMatchingInlineSnapshot(
      `[FormatError: run.jsonl: must hold the lines of fathom train --json, got "1 without a loss"]`,
    );
    expect(() => parseMetrics("step 1\n", "run.jsonl")).toThrowErrorMatchingInlineSnapshot(
      `[FormatError: run.jsonl: line 1 must be JSON, got "step 1"]`,
    );
  });
});

test.each([
  ["null", /line 2 must be a JSON object, got "null"/],
  ["[1]", /line 2 must be a JSON object/],
  ['{"loss":"low"}', /line 2 must have a number as loss, got "low"/],
  ['{"tokens_per_sec":null}', /line 2 must have a number as tokens_per_sec, got null/],
  ['{"val_loss":3,"routing":[null]}', /line 2 must have a list with a max_load for each layer as routing/],
])("a line of metrics that is %s is refused with its number", (line, message) => {
  const read = () => parseMetrics(`{"loss":3}\n${line}\n`, "run.jsonl");
  expect(read).toThrow(FormatError);
  expect(read).toThrow(message);
});

describe("scenes", () => {
  test("are legal settings with a source", () => {
    for (const { settings, source } of SCENES) {
      expect(() => resolveConfig("nano", settings)).not.toThrow();
      expect(source).not.toBe("");
    }
  });

  test("warn where articles contradict each other", () => {
    expect(findScene("high-quality").warning).toContain("1.2");
    expect(() => findScene("high-qualty")).toThrow(/did you mean high-quality/);
  });
});

describe("harmful advice", () => {
  const harms = (settings: Record<string, unknown>, script = ""): string[] =>
    harmfulSettings(resolveConfig("nano", settings), script).map(({ name }) => name);

  test("is found in scripts", () => {
    expect(harms({}, "export CUDA_LAUNCH_BLOCKING=1\n")).toEqual(["CUDA_LAUNCH_BLOCKING"]);
    expect(harms({}, 'os.environ["CUDA_LAUNCH_BLOCKING"] = "1"\n')).toEqual(["CUDA_LAUNCH_BLOCKING"]);
    const wrong = "scaler = GradScaler()\nclip_grad_norm_(p, 1.0)\nscaler.unscale_(opt)\n";
    expect(harms({}, wrong)).toEqual(["clipping scaled gradients"]);
    expect(harms({}, "scaler = GradScaler()\nscaler.unscale_(opt)\nclip_grad_norm_(p, 1.0)\n")).toEqual([]);
  });

  test("is found in settings", () => {
    expect(harms({})).toEqual([]);
    expect(harms({ "parallel.precision_recipe": "fp16", "training.loss_scale": 0 })).toContain(
      "fp16 without loss scale",
    );
    expect(harms({ repetition_penalty: 1.2 })).toContain("strong repetition penalty");
    expect(harms({ "parallel.tp": 16, "parallel.dp": 1 })).toContain("tensor parallelism across nodes");
    expect(harms({ "hardware.devices": 8 })).toContain("idle devices");
  });
});
