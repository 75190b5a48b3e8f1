import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { planExportCommand } from "./plan-export.ts";
import { planCommand } from "./plan.ts";
import { isPrinted } from "../../test/helpers/printed-number.ts";

let folder: string;
let printed: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "fathom-export-"));
  printed = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    printed.push(String(text));
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

async function run(...words: string[]): Promise<string> {
  const out = join(folder, "launch");
  await planExportCommand().parseAsync([...words, "--out", out], { from: "user" });
  return out;
}

const MEGATRON = [
  "deepseek-v2-lite",
  "--engine",
  "megatron",
  "--gpus",
  "16xH100",
  "--set",
  "batch_size=512",
  "--ep",
  "8",
];

test("the fastest layout that fits and that the engine takes is written as a folder", async () => {
  const out = await run(...MEGATRON, "--cluster", "slurm", "--json");
  expect(readdirSync(out)).toEqual([".fathom-export.json", "PLAN.md", "config.json", "job.sbatch", "launch.sh"]);
  expect(readFileSync(join(out, "launch.sh"), "utf8")).toContain("--expert-model-parallel-size 8");
  expect(JSON.parse(printed.join(""))).toEqual({
    folder: out,
    files: ["launch.sh", "config.json", "job.sbatch", "PLAN.md"],
  });
});

test.each([
  ["torchtitan", ["deepseek-v3", "--gpus", "512xH800", "--set", "batch_size=8192"], "fathom_plan.py"],
  ["deepspeed", ["deepseek-v2-lite", "--gpus", "32xH100", "--set", "batch_size=512"], "ds_config.json"],
  ["automodel", ["deepseek-v2-lite", "--gpus", "32xH100", "--set", "batch_size=512"], "automodel.yaml"],
  ["vllm", ["deepseek-v3", "--gpus", "8xH200"], "launch.sh"],
  ["sglang", ["deepseek-v3", "--gpus", "32xH800", "--kv", "fp8"], "launch.sh"],
  ["llama.cpp", ["deepseek-v3", "--gpus", "1xRTX-4090", "--ram", "512GiB"], "launch.sh"],
  ["deepseek-demo", ["deepseek-v3", "--gpus", "8xH200", "--batch", "8"], "demo-config.json"],
])("%s needs no more than a model and devices", async (engine, words, file) => {
  const out = await run(...words, "--engine", engine);
  expect(readdirSync(out)).toEqual(expect.arrayContaining([file, "config.json", "PLAN.md", "launch.sh"]));
});

/** The rows of PLAN.md's prediction, and the command that explains them. */
function predictionOf(out: string): { rows: { value: string; name: string }[]; command: string[] } {
  const page = readFileSync(join(out, "PLAN.md"), "utf8");
  const rows = [...page.matchAll(/^\| .+ \| (.+) \| `(.+)` \|$/gm)].map(([, value, name]) => ({
    value: value!,
    name: name!,
  }));
  const [, line] = /^fathom plan (.+) --why NAME$/m.exec(page)!;
  return { rows, command: line!.split(" ") };
}

async function explained(command: readonly string[], name: string): Promise<number> {
  printed = [];
  await planCommand().parseAsync([...command, "--json", "--why", name], { from: "user" });
  return (JSON.parse(printed.join("")) as { value: number }).value;
}

test.each([
  ["megatron", [...MEGATRON, "--precision", "bf16-bf16-moments", "--seq", "2048", "--set", "n_layers=24"], 12],
  ["automodel", ["deepseek-v3", "--gpus", "1024xH100", "--pp", "4", "--vp", "2", "--ep", "64"], 12],
  ["sglang", ["deepseek-v3", "--gpus", "32xH200", "--kv", "fp8", "--batch", "96", "--set", "n_layers=32"], 14],
  ["llama.cpp", ["deepseek-v3", "--gpus", "1xRTX-4090", "--ram", "512GiB", "--context", "2048"], 7],
])("the command in PLAN.md of %s explains every number of the prediction", async (engine, words, least) => {
  const { rows, command } = predictionOf(await run(...words, "--engine", engine));
  expect(rows.length).toBeGreaterThanOrEqual(least);
  for (const { value: text, name } of rows) {
    const value = await explained(command, name);
    const [, number, unit] = /^([\d.,]+) (GiB|MiB|bytes|days|hours|ms|s|%|tokens\/s|of)(?![\w/])/.exec(text) ?? [];
    // The efficiency stands in words, with what it rests on.
    if (number === undefined) expect(name).toBe("compute_share");
    else expect(isPrinted(number, unit!, value), `${name}: ${text}, ${value}`).toBe(true);
  }
});

test("batch, sequence, replicas, schedule and MTP are taken as given", async () => {
  const degrees = [...["--tp", "1", "--pp", "16", "--ep", "64", "--cp", "1", "--dp", "128"], "--recompute", "full"];
  const batch = [...["--global-batch", "3840", "--seq", "8192", "--schedule", "1f1b"], "--no-mtp"];
  const out = await run("deepseek-v3", "--engine", "megatron", "--gpus", "2048xH800", ...degrees, ...batch);
  const launch = readFileSync(join(out, "launch.sh"), "utf8");
  expect(launch).toContain("--global-batch-size 3840");
  expect(launch).toContain("--seq-length 8192");
  expect(launch).not.toContain("--mtp-num-layers");
  const page = readFileSync(join(out, "PLAN.md"), "utf8");
  expect(page).toMatch(/PP16 VP1 CP1 EP64 ETP1 DP128/);
  expect(page).toMatch(/\| Steps \| \d+, the setting training\.steps; change it with --set steps=N/);
  expect(page).not.toMatch(/\b1 nodes/);
  expect(launch).not.toMatch(/\d0{8,}\d/);
});

test("an unchanged earlier export is replaced; anything else in the folder is left alone", async () => {
  const out = await run(...MEGATRON, "--cluster", "slurm");
  await run(...MEGATRON);
  expect(readdirSync(out)).not.toContain("job.sbatch");

  writeFileSync(join(out, "launch.sh"), "echo mine\n");
  await expect(run(...MEGATRON)).rejects.toThrow(
    /launch\.sh: must be as the earlier export wrote it, got "a changed file"; choose another --out/,
  );
  expect(readFileSync(join(out, "launch.sh"), "utf8")).toBe("echo mine\n");

  writeFileSync(join(out, "notes.txt"), "mine\n");
  rmSync(join(out, "launch.sh"));
  await expect(run(...MEGATRON)).rejects.toThrow(/notes\.txt: must be absent, empty or an earlier export/);
  rmSync(join(out, ".fathom-export.json"));
  await expect(run(...MEGATRON)).rejects.toThrow(/must be absent, empty or an earlier export, got "a folder with/);
});

test.each([
  ["an unknown engine", [...MEGATRON, "--engine", "megatronn"], /engine: must be one of .* did you mean megatron\?/],
  ["an unknown device", [...MEGATRON, "--gpus", "16xH1000"], /H1000/],
  ["nodes that are not whole", [...MEGATRON, "--gpus", "12xH100"], /must fill whole nodes of 8 devices, got 12/],
  ["what no layout can be", [...MEGATRON, "--tp", "3"], /some layout must be legal; these identities fail/],
  [
    "what does not fit",
    ["deepseek-v3", "--engine", "megatron", "--gpus", "8xH100", "--set", "batch_size=512"],
    /needs \d+ bytes \([\d.]+ GiB\) of \d+ bytes \([\d.]+ GiB\) available; /,
  ],
  ["a size without unit", [...MEGATRON, "--ram", "256"], /--ram: must be a size above 0 with its unit, got "256"/],
])("%s is refused and nothing is written", async (_, words, message) => {
  await expect(run(...words)).rejects.toThrow(message);
  expect(readdirSync(folder)).toEqual([]);
});

test("a run file gives model, devices, layout and training; options go before it", async () => {
  const file = join(folder, "lite.yaml");
  const layout = "parallel: {tp: 2, ep: 4, dp: 8}\nhardware: {device: h100, devices: 16}\n";
  writeFileSync(file, `preset: deepseek-v2-lite\ntraining: {batch_size: 512, lr: 0.0003}\n${layout}`);
  const out = await run(file, "--engine", "megatron");
  const script = readFileSync(join(out, "launch.sh"), "utf8");
  expect(script).toContain("--tensor-model-parallel-size 2");
  expect(script).toContain("--expert-model-parallel-size 4");
  expect(script).toContain("--global-batch-size 512");
  expect(script).toContain("--lr 0.0003");
  await run(file, "--engine", "megatron", "--ep", "8");
  expect(readFileSync(join(out, "launch.sh"), "utf8")).toContain("--expert-model-parallel-size 8");
});
