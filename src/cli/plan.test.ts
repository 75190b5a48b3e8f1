import { describe, expect, test, vi } from "vitest";
import { planCommand } from "./plan.ts";

/** What `fathom plan` prints on stdout, and its exit code. */
async function plan(...words: string[]): Promise<{ text: string; code: number }> {
  const out = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const before = process.exitCode;
  try {
    await planCommand().exitOverride().parseAsync(words, { from: "user" });
    return { text: out.mock.calls.map(([text]) => String(text)).join(""), code: Number(process.exitCode ?? 0) };
  } finally {
    out.mockRestore();
    process.exitCode = before;
  }
}

const V3 = ["deepseek-v3", "--gpus", "2048xH800", "--precision", "fp8"];

describe("fathom plan", () => {
  test("accounts for every layout of the grid and gives the best ten", async () => {
    const { text, code } = await plan(...V3, "--json");
    const { counts, best } = JSON.parse(text) as {
      counts: { grid: number; illegal: Record<string, number> } & Record<string, number>;
      best: { fits: boolean; step_sec: number; mfu: number }[];
    };
    const illegal = Object.values(counts.illegal).reduce((a, b) => a + b, 0);
    const { cut_by_memory = 0, cut_by_time = 0, too_large = 0, slower = 0 } = counts as Record<string, number>;
    expect(illegal + cut_by_memory + cut_by_time + too_large + slower + best.length).toBe(counts.grid);
    expect([counts.grid, best.length, code]).toEqual([1_728_000, 10, 0]);
    expect(best.every(({ fits }) => fits)).toBe(true);
    expect(best.map(({ step_sec }) => step_sec)).toEqual(
      best.map(({ step_sec }) => step_sec).toSorted((a, b) => a - b),
    );
  });

  test("prints memory in GB and GiB, the margin, and why the rest falls", async () => {
    const { text } = await plan(...V3, "--tp", "1", "--pp", "16", "--ep", "64");
    expect(text).toMatch(/0\.85 of 85\.90 GB \(80\.00 GiB\) may be planned: 73\.01 GB \(68\.00 GiB\)/);
    expect(text).toMatch(/cut: slower than the last of the best/);
    expect(text).toMatch(/MFU +\d+\.\d % of 989 TFLOP\/s, dense, causal/);
  });

  test("evaluates a layout as given; the degrees say how many devices", async () => {
    const words = ["--tp", "8", "--pp", "4", "--dp", "16", "--global-batch", "512", "--seq", "4096"];
    const { text } = await plan("deepseek-llm-67b", "--gpus", "H100", ...words, "--json");
    const { devices, best } = JSON.parse(text) as { devices: number; best: { layout: Record<string, number> }[] };
    expect(devices).toBe(512);
    expect(best[0]!.layout).toMatchObject({ tp: 8, pp: 4, dp: 16, cp: 1 });
  });

  test("tells the nearest device, the identity that fails, and the rule of a recipe", async () => {
    await expect(plan("deepseek-v3", "--gpus", "8xH8000")).rejects.toThrow(/did you mean h800\?/);
    await expect(plan(...V3, "--tp", "7")).rejects.toThrow(/identity "world": TP·CP·DP·PP = world/);
    await expect(plan(...V3, "--ep", "3")).rejects.toThrow(/identity "expert-world"/);
    await expect(plan("deepseek-v3", "--gpus", "8xA100", "--precision", "fp8")).rejects.toThrow(/must have fp8/);
    await expect(plan("deepseek-v4", "--gpus", "8xA100")).rejects.toThrow(/did you mean/i);
  });

  test("explains a number down to its inputs", async () => {
    const { text } = await plan(...V3, "--why", "memory.activations");
    expect(text).toMatch(/^memory\.activations = \d+ bytes/);
    expect(text).toMatch(/moe\.act\.q = \d+ bytes/);
    expect(text).toMatch(/= activation_bytes \* \(?moe\.heads \* \(moe\.nope \+ moe\.rope\)\)? \* tokens \/ tp/);
  });

  test("explains the rates that it prints", async () => {
    const layout = [
      "--tp",
      "1",
      "--pp",
      "16",
      "--ep",
      "64",
      "--zero",
      "1",
      "--micro-batch",
      "1",
      "--recompute",
      "full",
    ];
    const { text: report } = await plan(...V3, ...layout);
    const { text } = await plan(...V3, ...layout, "--why", "run.mfu");
    const share = Number(/^run\.mfu = ([\d.]+)/.exec(text)![1]);
    expect(report).toContain(`MFU         ${(share * 100).toFixed(1)} %`);
    expect(text).toMatch(/flops\.training = 2606\d+ FLOP per token/);
  });

  test("ends with code 3 when nothing fits, and says what is nearest", async () => {
    const { text, code } = await plan("deepseek-v3", "--gpus", "8xH800");
    expect(code).toBe(3);
    expect(text).toMatch(/nothing fits; the nearest layout needs \d/);
  });

  test("a ledger lists the tensors of a rank", async () => {
    const { text } = await plan(...V3, "--pp", "16", "--ep", "64", "--ledger", "--stage", "1");
    expect(text).toMatch(/layers\.\d+\.ffn\.experts\.w1 +moments/);
    await expect(plan(...V3, "--pp", "16", "--ledger", "--stage", "16")).rejects.toThrow(/below PP \(16\)/);
  });
});

describe("fathom plan fit", () => {
  test("gives the largest batch and sequence of QLoRA in 24 GiB", async () => {
    const { text, code } = await plan(
      ...["fit", "deepseek-v2-lite", "--mem", "24GiB", "--lora-rank", "16", "--frozen", "nf4", "--json"],
    );
    const { largest } = JSON.parse(text) as {
      largest: { micro_batch_size: number; seq_len: number; recompute: string };
    };
    expect(code).toBe(0);
    expect(largest.micro_batch_size * largest.seq_len).toBeGreaterThan(4096);
    expect(largest.recompute).toBe("full");
  });

  test("ends with code 3 when nothing fits, and needs --vram with --ram", async () => {
    expect((await plan("fit", "deepseek-v3", "--mem", "24GiB")).code).toBe(3);
    await expect(plan("fit", "deepseek-v3", "--vram", "24GiB")).rejects.toThrow(/must be given together/);
  });
});

test("fathom plan compare puts two models side by side", async () => {
  const { text, code } = await plan(
    ...["compare", "deepseek-v2", "deepseek-llm-67b", "--gpus", "256xH800", "--global-batch", "1024", "--seq", "4096"],
  );
  expect(code).toBe(0);
  expect(text).toMatch(/deepseek-v2 +deepseek-llm-67b/);
  expect(text).toMatch(/GFLOP\/token +155\.31 +418\.64/);
});
