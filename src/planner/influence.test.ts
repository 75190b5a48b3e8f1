import { describe, expect, test } from "vitest";
import { findParameter, listParameters, resolveConfig, rowOf } from "../config/index.ts";
import { configuredJob, evaluatorOfConfig } from "./configured-evaluator.ts";
import { configuredLayout } from "./configured-layout.ts";
import { DEVICES } from "./devices.ts";
import { parameterInfluence, type Costs } from "./influence.ts";
import { SCHEDULES } from "./layout.ts";
import { PRECISION_RECIPES } from "./precision.ts";
import { layoutCosts } from "./training.ts";
import { flopsPerToken } from "./work.ts";

function influence(spelling: string, model = "deepseek-v3"): { now: Costs; half: Costs; double: Costs } {
  const { now, trials } = parameterInfluence(model, findParameter(spelling));
  const [half, double] = trials;
  if (!("costs" in now) || half === undefined || !("costs" in half) || double === undefined || !("costs" in double)) {
    throw new Error(JSON.stringify({ now, trials }));
  }
  return { now: now.costs, half: half.costs, double: double.costs };
}

describe("on DeepSeek-V3", () => {
  test("the costs as they are are the published ones", () => {
    const { now } = influence("qk_rope_head_dim");
    expect(now).toMatchObject({ total: 671_026_419_200, activated: 37_552_297_472, kvBytesPerToken: 70_272 });
    expect(now.flopsPerToken / 1e9).toBeCloseTo(260.65, 2);
  });

  test("half the rotary width takes 32 channels from 61 keys and 61 · 128 queries", () => {
    const { now, half } = influence("qk_rope_head_dim");
    expect(now.total - half.total).toBe(61 * 32 * (7168 + 128 * 1536));
    expect(now.kvBytesPerToken - half.kvBytesPerToken).toBe(61 * 32 * 2);
  });

  test("twice the experts are twice the routed weights and a wider gate, for no more work but the gate's", () => {
    const { now, double } = influence("n_routed_experts");
    expect(double.total - now.total).toBe(58 * 256 * (3 * 7168 * 2048 + 7168 + 1));
    expect(double.activated - now.activated).toBe(58 * 256 * (7168 + 1));
    expect(double.trainingBytes / now.trainingBytes).toBeGreaterThan(1.9);
  });

  test("a longer sequence costs memory and attention, never parameters", () => {
    const { now, double } = influence("seq_len");
    expect(double.total).toBe(now.total);
    expect(double.trainingBytes).toBeGreaterThan(now.trainingBytes);
    expect(double.flopsPerToken).toBeGreaterThan(now.flopsPerToken);
  });

  test("a value that is not legal says why", () => {
    const { trials } = parameterInfluence("deepseek-v3", findParameter("tp"));
    expect(trials[0]).toMatchObject({ value: 0, refused: expect.stringContaining("of at least 1") as string });
    const experts = parameterInfluence("deepseek-v3", findParameter("n_limited_groups"));
    expect(experts.trials).toHaveLength(2);
  });

  test("choices and switches are tried one by one", () => {
    const { now, trials } = parameterInfluence("deepseek-v3", findParameter("recompute"));
    const [none, selective, full] = [now, ...trials].map((trial) => ("costs" in trial ? trial.costs : undefined));
    expect(full!.trainingBytes).toBeLessThan(selective!.trainingBytes);
    expect(selective!.trainingBytes).toBeLessThan(none!.trainingBytes);
    expect(full!.flopsPerToken).toBeGreaterThan(none!.flopsPerToken);
  });
});

test("a rank of adapters costs memory and work, and less than training all weights", () => {
  const of = (preset: object) =>
    parameterInfluence({ preset: "deepseek-v2-lite", ...preset }, findParameter("lora_rank"));
  const [half, double] = of({ lora_rank: 16 }).trials;
  const [now, all] = [of({ lora_rank: 16 }).now, of({}).now];
  const costs = [half, now, double, all].map(
    (trial) => (trial !== undefined && "costs" in trial ? trial.costs : null)!,
  );
  for (const cost of ["trainingBytes", "flopsPerToken"] as const) {
    const [first, ...others] = costs.map((one) => one[cost]);
    expect([first!, ...others]).toEqual([first!, ...others].toSorted((a, b) => a - b));
    expect(new Set([first, ...others]).size).toBe(4);
  }
});

test("what a row says that parameters and cache do, they do", () => {
  const wrong = listParameters()
    .filter(
      (parameter) => parameter.section === "model" && /^[+−] linear/.test(rowOf(parameter).moves.parameters ?? ""),
    )
    .flatMap((parameter) => {
      const { now, trials } = parameterInfluence("deepseek-v3", parameter);
      const grows = rowOf(parameter).moves.parameters!.startsWith("+");
      return trials.flatMap((trial) => {
        if (!("costs" in trial) || !("costs" in now) || typeof trial.value !== "number") return [];
        const isMore = trial.costs.total > now.costs.total;
        return isMore === (trial.value > (now.value as number) === grows) ? [] : [`${parameter.name} = ${trial.value}`];
      });
    });
  // Settings of other kinds of attention do nothing in V3.
  expect(wrong.filter((text) => !/^(?:oGroups|indexHeadDim) /.test(text))).toEqual([]);
});

test("memory and work alone are what the whole evaluator says of the fullest of several stages", () => {
  const settings = { "parallel.pp": 4, "parallel.dp": 8, "parallel.ep": 8, "parallel.recompute": "selective" };
  const config = resolveConfig("deepseek-v3", { ...settings, "training.batch_size": 64 });
  const layout = configuredLayout(config);
  const job = configuredJob(config);
  const { memoryBytes } = evaluatorOfConfig(config).evaluate(layout);
  const work = flopsPerToken(job.shape, { seqLen: layout.seqLen, selectiveRecompute: true });
  expect(layoutCosts(job, layout)).toEqual({ memoryBytes, flopsPerToken: work.training + work.recompute });
  expect(memoryBytes).toBeGreaterThan(0);
});

describe("choices of rows are those of the planner", () => {
  const row = (spelling: string) => rowOf(findParameter(spelling));

  test("schedules, recipes and the default device", () => {
    expect(row("pipeline_schedule").choices).toEqual(SCHEDULES);
    expect(row("precision_recipe").choices).toEqual(PRECISION_RECIPES.map(({ name }) => name));
    expect(DEVICES.map(({ name }) => name)).toContain(row("hardware.device").default);
  });
});
