import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { fitCommand } from "./plan-fit.ts";
import { planCommand } from "./plan.ts";
import { isPrinted } from "../../test/helpers/printed-number.ts";

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

/** Labels of numbers that stand in a sentence, with the number and its unit. */
const IN_SENTENCES = [
  ["may be planned", /may be planned: ([\d.]+) GB/, "GB"],
  ["efficiency", /efficiency +([\d.]+) % of the dense/, "%"],
  ["MFU", /MFU +([\d.]+) % of/, "%"],
  ["HFU", /HFU ([\d.]+) %/, "%"],
  ["FLOPs", /FLOPs +([\d.]+) GFLOP per token/, "GFLOP"],
  ["GFLOP per token", /FLOPs +([\d.]+) GFLOP per token/, "GFLOP"],
  ["rate", /rate +([\d.]+) tokens\/s\/device/, "tokens/s/device"],
  ["tokens a day", /([\d.]+) billion tokens a day/, "billion tokens"],
  ["device-hours", /10¹² tokens ([\d,]+) device-hours/, "device-hours"],
  ["$ a million tokens", /\(([\d.]+) \$ a million tokens\)/, "$"],
  ["whole run", /whole run .*: ([\d,]+) hours/, "hours"],
  ["days", /whole run .*\(([\d.]+) days\)/, "days"],
  ["$", /whole run .* device-hours, ([\d,]+) \$/, "$"],
  ["kWh", /whole run .* ([\d,]+) kWh/, "kWh"],
] as const;

/** Columns of the best layouts, and the units of what stands there. */
const IN_THE_LIST = [
  ["GB", "GB"],
  ["GiB", "GiB"],
  ["step s", "s"],
  ["bubble share", "%"],
  ["MFU", "%"],
  ["tokens/s/device", "tokens/s/device"],
] as const;

/** What stands in the first row under a head. */
function bestColumn(text: string, head: string): string {
  const [, heads, row] = /^ +(TP .*)\n1 +(.*)$/m.exec(text)!;
  const cells = row!.split(/ {2,}/);
  return cells[heads!.split(/ {2,}/).indexOf(head)]!.replace(" %", "");
}

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
    await expect(plan("deepseek-v3", "--gpus", "2048")).rejects.toThrow(/--gpus: must be COUNTxNAME, got "2048"/);
    await expect(plan("deepseek-v3", "--gpus", "8xH8000")).rejects.toThrow(/did you mean h800\?/);
    await expect(plan(...V3, "--tp", "7")).rejects.toThrow(/identity "world": TP·CP·DP·PP = world: TP·CP·PP/);
    await expect(plan(...V3, "--ep", "3")).rejects.toThrow(/identity "expert-world"/);
    await expect(plan("deepseek-v3", "--gpus", "8xA100", "--precision", "fp8")).rejects.toThrow(/must have fp8/);
    await expect(plan("deepseek-v4", "--gpus", "8xA100")).rejects.toThrow(/did you mean/i);
    await expect(plan(...V3, "--vp", "2", "--schedule", "dualpipe")).rejects.toThrow(
      /--vp: must be 1 with --schedule dualpipe, got 2/,
    );
    await expect(plan("serve", "bert-base", "--gpus", "8x4090")).rejects.toThrow(/must be a decoder/);
  });

  test("explains a number down to its inputs", async () => {
    const { text } = await plan(...V3, "--why", "memory.activations");
    expect(text).toMatch(/^memory\.activations = \d+ bytes/);
    expect(text).toMatch(/moe\.act\.q = \d+ bytes/);
    expect(text).toMatch(/= activation_bytes \* \(?moe\.heads \* \(moe\.nope \+ moe\.rope\)\)? \* tokens \/ tp/);
  });

  test("explains every number under the words beside which it stands", async () => {
    const words = [..."--tp 1 --pp 16 --cp 1 --ep 64 --zero 1 --micro-batch 1 --recompute full".split(" ")];
    const { text } = await plan(...V3, ...words, "--top", "1", "--tokens", "14.8T");
    const lines = [...text.matchAll(/^ {2}([a-z][a-z ]*?) +([\d.]+) ([GM]B|s)\b/gm)];
    const shown = lines.map(([, label, number, unit]) => [label!, number!, unit!] as const);
    expect(shown.length).toBeGreaterThan(8);
    expect(new Set(shown.map(([label]) => label)).size).toBe(shown.length);
    for (const [label, pattern, unit] of IN_SENTENCES) shown.push([label, pattern.exec(text)![1]!, unit]);
    for (const [label, unit] of IN_THE_LIST) shown.push([label, bestColumn(text, label), unit]);
    for (const [label, number, unit] of shown) {
      const why = (await plan(...V3, ...words, "--top", "1", "--tokens", "14.8T", "--json", "--why", label)).text;
      const { name, value } = JSON.parse(why) as { name: string; value: number };
      expect(isPrinted(number, unit, value), `${label}: ${number} ${unit}, ${name} = ${value}`).toBe(true);
    }
  });

  test("compares two models number by number, each with its derivation", async () => {
    const words = ["compare", "deepseek-v2-lite", "deepseek-v2", "--gpus", "64xH100", "--why", "mfu", "--json"];
    const { plans } = JSON.parse((await plan(...words)).text) as {
      plans: { model: string; why: { name: string; inputs: unknown[] } }[];
    };
    expect(plans.map(({ model, why }) => [model, why.name])).toEqual([
      ["deepseek-v2-lite", "run.mfu"],
      ["deepseek-v2", "run.mfu"],
    ]);
    expect(plans.every(({ why }) => why.inputs.length === 3)).toBe(true);
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

  test.each([
    ["cost", "bill.cost", "bill.hours * price"],
    ["device-hours", "run.device_hours", "1e12 / run.device_rate / 3600"],
    ["energy", "bill.energy", "bill.joules / 3.6e6"],
    ["tokens per day", "run.tokens_per_day", "86400 * run.rate"],
    ["MFU", "run.mfu", "flops.training * run.device_rate / peak.bf16"],
    ["step time", "time.step", "time.work + time.bubble + time.data_parallel + time.optimizer"],
  ])("explains %s by the name that people give it", async (name, row, formula) => {
    const { text } = await plan(...V3, "--pp", "16", "--ep", "64", "--zero", "1", "--top", "1", "--why", name);
    const [first, second] = text.split("\n");
    expect(first!.startsWith(`${row} = `)).toBe(true);
    expect(second).toContain(`  = ${formula}`);
  });

  test("explains the cost that it prints, for the tokens of the run, down to the time of a step", async () => {
    const layout = ["--pp", "16", "--ep", "64", "--zero", "1", "--top", "1"];
    const { text: report } = await plan(...V3, ...layout, "--tokens", "14.8T");
    const { text } = await plan(...V3, ...layout, "--tokens", "14.8T", "--why", "cost");
    const cost = Number(/^bill\.cost = ([\d.]+) \$/.exec(text)![1]);
    const whole = /whole run .* device-hours, ([\d,]+) \$/.exec(report)![1]!;
    expect(Math.abs(Number(whole.replaceAll(",", "")) - cost)).toBeLessThan(1);
    expect(text).toMatch(/bill\.seconds = [\d.]+ s .*\n +=(?= bill\.tokens \/ run\.rate)/);
    expect(text).toContain("time.step = ");
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

  test("a derivation and a ledger are not asked for at once", async () => {
    await expect(plan(...V3, "--ledger", "--why", "memory.weights")).rejects.toThrow(/must not stand with --ledger/);
  });
});

describe("what DeepSeek did", () => {
  const LAYOUT = [...["--tp", "1", "--pp", "16", "--ep", "64", "--zero", "1", "--cp", "1"], "--recompute", "selective"];

  test("the layout of V3 fits, with what its recipe keeps, and is as fast as reported", async () => {
    const words = [...V3, ...LAYOUT, "--schedule", "dualpipe", "--engine", "deepseek", "--tokens", "14.8T", "--json"];
    const { best } = JSON.parse((await plan(...words)).text) as {
      best: { fits: boolean; memory_bytes: number; tokens_per_sec_per_device: number; bill: Record<string, number> }[];
    };
    expect(best[0]!.fits).toBe(true);
    expect(best[0]!.tokens_per_sec_per_device).toBeCloseTo(1543, -1);
    expect(best[0]!.bill["tokens"]).toBe(14.8e12);
    expect(best[0]!.bill["device_hours"]! / (14.8e12 / best[0]!.tokens_per_sec_per_device / 3600)).toBeCloseTo(1, 9);
  });

  test("a search on its engine does not take context parallelism for free", async () => {
    const { best } = JSON.parse((await plan(...V3, "--engine", "deepseek", "--json")).text) as {
      best: { layout: { cp: number } }[];
    };
    expect(best[0]!.layout.cp).toBe(1);
  });

  test("money has its unit, and a run of given tokens its hours, energy and cost", async () => {
    const { text } = await plan(...V3, ...LAYOUT, "--tokens", "14.8T", "--price", "3");
    expect(text).toMatch(/ \$ at 3\.00 \$ a device-hour, an assumed price \(--price changes it\)/);
    expect(text).toMatch(/whole run +14800\.0 billion tokens: [\d,]+ hours \([\d.]+ days\), .* \$ .* kWh/);
    await expect(plan(...V3, "--tokens", "lots")).rejects.toThrow(
      /--tokens: must be a number of tokens.*for example 14\.8T/,
    );
  });
});

describe("assumptions and notes", () => {
  test("every assumed number is printed with meaning and source", async () => {
    const { assumptions } = JSON.parse((await plan("assumptions", "--json")).text) as {
      assumptions: Record<string, unknown>[];
    };
    for (const row of assumptions) {
      expect(row).toEqual({
        name: expect.any(String),
        value: expect.any(Number),
        meaning: expect.stringMatching(/\w/),
        source: expect.stringMatching(/\w/),
      });
    }
    const { text } = await plan("assumptions");
    expect(text).toMatch(/memoryMargin +0\.85 +share of a memory that may be planned/);
  });

  test("a published run is taken for its engine only, and an unknown engine names the nearest", async () => {
    const words = ["deepseek-v2-lite", "--gpus", "8xH100"];
    expect((await plan(...words)).text).toMatch(/assumed on no published run/);
    expect((await plan(...words, "--engine", "automodel")).text).toMatch(/calibrated on automodel/);
    await expect(plan(...words, "--engine", "megatronn")).rejects.toThrow(/--engine: .*did you mean megatron\?/);
  });

  test("devices without bf16, sparse attention and V4 are told", async () => {
    const { text } = await plan("deepseek-v2-lite", "--gpus", "64xV100");
    expect(text).toMatch(/dense fp16 peak/);
    expect(text).toMatch(/note +.* has no bf16: products are planned at its fp16 peak/);
    expect((await plan("deepseek-v3.2", "--gpus", "2048xH800")).text).toMatch(
      /note +attention is planned as dense, with the indexer's own work: .* 2048 keys/,
    );
    await expect(plan("deepseek-v4-flash", "--gpus", "8xH800")).rejects.toThrow(
      /compressed sparse attention .*cannot be planned yet/,
    );
  });

  test("degrees that do not divide the devices, and a default batch, are told as such", async () => {
    await expect(plan("nano", "--gpus", "8xH100", "--tp", "3")).rejects.toThrow(
      /TP·CP·PP \(3·1·1\) does not divide 8 devices, got "TP3 .* DP\? /,
    );
    await expect(plan("deepseek-v3", "--gpus", "7xH100")).rejects.toThrow(
      /--global-batch: the default, 15360 sequences, .*give one, for example --global-batch 15365/,
    );
  });

  test("a run file gives model, batch, parallel settings and devices; options go before them", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fathom-plan-"));
    try {
      const path = join(folder, "lite.yaml");
      writeFileSync(
        path,
        "preset: deepseek-v2-lite\ntraining: {batch_size: 64}\nparallel: {ep: 4, dp: 8}\nhardware: {device: h800, devices: 8}\n",
      );
      const read = async (...words: string[]) =>
        JSON.parse((await plan(path, ...words, "--json")).text) as {
          model: string;
          device: string;
          devices: number;
          global_batch_size: number;
          best: { layout: { ep: number } }[];
        };
      expect(await read()).toMatchObject({ model: "lite", device: "h800", devices: 8, global_batch_size: 64 });
      expect((await read()).best.every(({ layout }) => layout.ep === 4)).toBe(true);
      expect((await read("--ep", "8")).best[0]!.layout.ep).toBe(8);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("an option that is given at its default goes before the run file, too", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fathom-plan-"));
    try {
      const path = join(folder, "nano.yaml");
      const settings = "parallel: {precision_recipe: fp8}\nhardware: {device: h800, memory_margin: 0.5}\n";
      writeFileSync(path, `preset: nano\n${settings}`);
      const read = async (...words: string[]) => JSON.parse((await plan(path, ...words, "--json")).text) as object;
      expect(await read()).toMatchObject({ precision: "fp8", margin: 0.5, device: "h800" });
      const given = ["--precision", "bf16", "--margin", "0.85", "--gpus", "1xH100"];
      expect(await read(...given)).toMatchObject({ precision: "bf16", margin: 0.85, device: "h100" });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("parallel settings of --set pin the layout of a preset; what plan does not use is warned of", async () => {
    const warned = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      const set = ["--set", "parallel.tp=8", "--set", "training.lr=1e-3", "--set", "batch_size=512"];
      const { text } = await plan("deepseek-v2-lite", "--gpus", "16xH100", ...set, "--json");
      const { best, global_batch_size } = JSON.parse(text) as {
        best: { layout: { tp: number } }[];
        global_batch_size: number;
      };
      expect(best.length).toBeGreaterThan(0);
      expect(best.every(({ layout }) => layout.tp === 8)).toBe(true);
      expect(global_batch_size).toBe(512);
      expect(warned.mock.calls.map(([line]) => line)).toEqual([
        "warning: --set training.lr changes nothing: fathom plan does not use it\n",
      ]);
    } finally {
      warned.mockRestore();
    }
  });
});

describe("fathom plan fit", () => {
  test("explains the memory of the answer that it found", async () => {
    const lora = ["fit", "deepseek-v2-lite", "--mem", "24GiB", "--lora-rank", "16", "--frozen", "nf4", "--json"];
    const { largest } = JSON.parse((await plan(...lora)).text) as { largest: { memory_bytes: number } };
    const why = JSON.parse((await plan(...lora, "--why", "memory.total")).text) as { name: string; value: number };
    expect(why).toMatchObject({ name: "memory.total", value: largest.memory_bytes });
  });

  test("has no bill to explain", async () => {
    for (const name of ["cost", "days", "bill.cost", "10¹² tokens"]) {
      await expect(plan("fit", "nano", "--why", name)).rejects.toThrow(
        new ConfigError("--why", "must be a number of the plan", name).message,
      );
    }
  });

  test("on one machine takes name and margin of a run file, and options before them", async () => {
    const folder = mkdtempSync(join(tmpdir(), "fathom-plan-"));
    try {
      const path = join(folder, "local.yaml");
      writeFileSync(path, "preset: deepseek-v2-lite\nhardware: {memory_margin: 0.5}\n");
      const read = async (...words: string[]) =>
        JSON.parse((await plan("fit", path, "--vram", "24GiB", "--ram", "64GiB", ...words, "--json")).text) as object;
      expect(await read()).toMatchObject({ model: "local", margin: 0.5 });
      expect(await read("--margin", "0.85")).toMatchObject({ model: "local", margin: 0.85 });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

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

test.each([
  [["nano", "--stage", "0"], "--stage: acts only with --ledger"],
  [["nano", "--lora-targets", "attn.wo"], "--lora-targets: acts only with --lora-rank"],
  [["compare", "nano", "tiny", "--frozen", "nf4"], "--frozen: acts only with --lora-rank"],
  [["fit", "nano", "--quant", "Q4_K_M"], "--quant: acts only with --vram"],
  [["fit", "nano", "--context", "8192"], "--context: acts only with --vram"],
  [["fit", "nano", "--ram-bandwidth", "80"], "--ram-bandwidth: acts only with --vram"],
  [["fit", "nano", "--no-imatrix"], "--no-imatrix: acts only with --vram"],
  [
    ["fit", "nano", "--vram", "8GiB", "--ram", "8GiB", "--tp", "2"],
    "--tp: acts only without --vram; it is for training",
  ],
  [["serve", "nano", "--gpus", "1xH100", "--acceptance", "0.9"], "--acceptance: acts only with --drafts"],
])("an option without what it acts with is refused: plan %j", async (words, message) => {
  await expect(plan(...words)).rejects.toThrow(message);
});

test("fathom plan fit has no option for the batch that it finds", async () => {
  const fit = fitCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  const words = ["nano", "--micro-batch", "2"];
  await expect(fit.parseAsync(words, { from: "user" })).rejects.toThrow("unknown option '--micro-batch'");
});

test("fathom plan compare puts two models side by side", async () => {
  const { text, code } = await plan(
    ...["compare", "deepseek-v2", "deepseek-llm-67b", "--gpus", "256xH800", "--global-batch", "1024", "--seq", "4096"],
  );
  expect(code).toBe(0);
  expect(text).toMatch(/deepseek-v2 +deepseek-llm-67b/);
  expect(text).toMatch(/GFLOP\/token +155\.31 +418\.64/);
});
