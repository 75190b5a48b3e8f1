import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ConfigError } from "../core/errors.ts";
import { adviseCommand } from "./advise.ts";
import { explainCommand } from "./explain.ts";

let folder = "";
let output = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-advise-"));
  output = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    output += String(text);
    return true;
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

const advise = (...words: string[]) => adviseCommand().exitOverride().parseAsync(words, { from: "user" });

test("advise begins with what it predicts for", async () => {
  await advise("deepseek-v3", "--slow");
  expect(output.split("\n")[0]).toBe(
    "predicted for 1 × h800, micro-batch 1 (assumed: training.micro_batch_size is not set):",
  );
});

test("advise against a lack of memory says of each change whether the job fits after it", async () => {
  await advise("deepseek-v3", "--oom");
  expect(output).toMatch(/saves [\d.]+ GB \([\d.]+ GiB\); still [\d.]+ GB \([\d.]+ GiB\) over/);
  output = "";
  await advise("nano", "--oom");
  expect(output).toContain("by the prediction it fits, so the cause is elsewhere");
  expect(output).toMatch(/saves [\d.]+ MB \([\d.]+ MiB\); then fits/);
});

test("advise does not print effects that are none", async () => {
  await advise("nano", "--repetition");
  await advise("nano", "--quality");
  expect(output).not.toMatch(/ 0\.0 (MiB|%)/);
  expect(output).toContain("the run takes 100.0 % more time");
});

test("a scene is written with its warning and with each of its settings", async () => {
  const path = join(folder, "run.yaml");
  await writeFile(path, "extends: nano\ngeneration: {repetition_penalty: 1}\n");
  await advise(path, "--scene", "structured-output", "--apply");
  expect(await readFile(path, "utf8")).toContain("temperature: 0.3");
  expect(output).toMatch(/generation\.temperature .* → 0\.3/);
  expect(output).toContain("generation.repetition_penalty 1, as it was");
  expect(output).toContain("warning: formats repeat their own marks");
});

test("advise as JSON has its keys in snake_case all the way down", async () => {
  await advise("nano", "--oom", "--json");
  const { job, advice } = JSON.parse(output) as {
    job: { is_micro_batch_assumed: boolean };
    advice: { saved_bytes: number; predicted: { memory_bytes: number } }[];
  };
  expect(job.is_micro_batch_assumed).toBe(true);
  expect(advice[0]!.predicted.memory_bytes).toBeGreaterThan(0);
  expect(output).not.toMatch(/"\w*[A-Z]\w*":/);
});

test("explain as JSON has its keys in snake_case all the way down", async () => {
  await explainCommand().parseAsync(["kv_lora_rank", "--json"], { from: "user" });
  const { moves, influence } = JSON.parse(output) as {
    moves: { kv_cache: string };
    influence: { trials: { costs: { kv_bytes_per_token: number } }[] };
  };
  expect(moves.kv_cache).toBeDefined();
  expect(influence.trials[0]!.costs.kv_bytes_per_token).toBeGreaterThan(0);
  await explainCommand().parseAsync(["--json"], { from: "user" });
  expect(output).toContain('"real_in"');
  expect(output).not.toMatch(/"\w*[A-Z]\w*":/);
});

test.each([
  [["--oom", "--metrics", "run.jsonl"], "--metrics: must stand with --slow or --quality, which read it"],
  [["--sample", "text.txt"], "--sample: must stand with --repetition, which read it"],
  [["--oom", "--scene", "creative"], "--scene: must not stand with a symptom"],
  [["--apply", "1"], "--apply: must stand with a symptom or a --scene"],
  [["--oom", "--slow"], "takes one symptom at a time"],
])("options of which one would be passed over are refused: %j", async (words, message) => {
  const refused = advise("nano", ...words);
  await expect(refused).rejects.toThrow(ConfigError);
  await expect(refused).rejects.toThrow(message);
});

test("advise --why explains the predicted effect of an advice, and the prediction of the run as it is", async () => {
  await advise("deepseek-v2-lite", "--oom", "--json");
  const { now, advice } = JSON.parse(output) as {
    now: { memory_bytes: number; step_sec: number };
    advice: { saved_bytes: number; step_sec_added: number }[];
  };
  const explained = async (number: number): Promise<{ name: string; value: number; inputs: { value: number }[] }[]> => {
    output = "";
    await advise("deepseek-v2-lite", "--oom", "--why", String(number), "--json");
    return (JSON.parse(output) as { effects: { name: string; value: number; inputs: { value: number }[] }[] }).effects;
  };
  const [memory, time] = await explained(1);
  expect([memory!.value, time!.value]).toEqual([-advice[0]!.saved_bytes, advice[0]!.step_sec_added]);
  expect(memory!.inputs[1]!.value).toBe(now.memory_bytes);
  const present = await explained(0);
  expect(present.map(({ name }) => name)).toEqual(["memory.total", "time.step", "memory.limit", "run.rate"]);
  expect(present.slice(0, 2).map(({ value }) => value)).toEqual([now.memory_bytes, now.step_sec]);
  await expect(explained(99)).rejects.toThrow(/--why: must be from 1 to \d+, got 99; see the list without --why/);
  await expect(advise("nano", "--why", "1")).rejects.toThrow(/--why: must stand with a symptom/);
});
