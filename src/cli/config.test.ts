import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { configCommand } from "./config.ts";
import { explainCommand } from "./explain.ts";
import { flagSettings, newRun } from "./train.ts";
import { readRunFile } from "./run-files.ts";

const RUN = `# ours
extends: tiny
training:
  learning_rate: 3e-3  # peak
`;

let folder = "";
let output = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fathom-config-"));
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

async function file(text: string, name = "run.yaml"): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

const config = (...words: string[]) => configCommand().exitOverride().parseAsync(words, { from: "user" });
const explain = (...words: string[]) => explainCommand().exitOverride().parseAsync(words, { from: "user" });

test("config set changes a file and keeps its comments", async () => {
  const path = await file(RUN);
  await config("set", path, "lr=1e-3", "steps=7");
  expect(await readFile(path, "utf8")).toBe(RUN.replace("3e-3", "0.001").replace("# peak\n", "# peak\n  steps: 7\n"));
});

test("config set leaves the file as it was when the result would not be legal", async () => {
  const path = await file(RUN);
  await expect(config("set", path, "steps=7", "lr=-1")).rejects.toThrow(`${path}:4:3 training.learning_rate: must be`);
  await expect(config("set", path, "stepps=7")).rejects.toThrow("did you mean steps?");
  expect(await readFile(path, "utf8")).toBe(RUN);
});

test("config check reads a pipe once, to its end", async () => {
  const pipe = join(folder, "pipe");
  execFileSync("sh", ["-c", 'mkfifo "$0"', pipe]);
  const written = writeFile(pipe, RUN);
  await config("check", pipe);
  await written;
  expect(output).toContain("every setting is known and legal");
  expect(output).not.toContain("the file is empty");
});

test("config check says what a file is, what acts and what can run", async () => {
  const path = await file(`${RUN}  decay_steps: 3\n  optimizer: Lion\n`);
  await config("check", path, "--json");
  expect(JSON.parse(output)).toEqual({
    file: path,
    hash: expect.stringMatching(/^[0-9a-f]{16}$/) as string,
    train: 'training.optimizer: must be adamw in fathom train, got "lion"; set optimizer=adamw',
    generate: null,
    unused: [
      {
        path: "training.decay_steps",
        value: 3,
        reason: "schedule is cosine; only wsd ends in a decay",
      },
    ],
    not_checked: [expect.stringContaining("memory") as string, expect.stringContaining("data") as string],
  });
});

test("config check names every wrong setting at once", async () => {
  const path = await file("extends: tiny\ntraining:\n  lr: -1\n  stepps: 3\nmodel:\n  dim: wide\n");
  await expect(config("check", path)).rejects.toThrow(`${path}: must have no wrong setting, got 3`);
  expect(output).toContain(`${path}:3:3 training.lr: must be a number`);
  expect(output).toContain(`${path}:4:3 training.stepps: must be a known parameter; did you mean steps?`);
  expect(output).toContain(`${path}:6:3 model.dim: must be a whole number`);
});

test("config check refuses a device that is in no table, notes an empty file and says what it leaves out", async () => {
  await expect(config("check", await file("hardware: {device: h880}\n"))).rejects.toThrow("did you mean h800?");
  await config("check", await file(""));
  expect(output).toContain("note: the file is empty");
  expect(output).toContain("not checked: memory and speed: see fathom plan");
});

test("config show lists what the file gives, also where it is the default", async () => {
  await config("show", await file(`${RUN}  beta1: 0.9\n`));
  expect(output).toMatch(/training\.beta1 +0\.9 +given as training\.beta1 \(the default\)/);
  expect(output).toMatch(/training\.lr +0\.003 +given as training\.learning_rate\n/);
});

test("a name that is neither a file nor a preset suggests presets", async () => {
  await expect(config("show", "nosuch")).rejects.toThrow(
    'must be a run file or a preset, got "nosuch"; choose one of nano',
  );
  await expect(config("show", "deepseekv3")).rejects.toThrow("did you mean deepseek-v3?");
  await expect(config("show", "DeepSeek-V3")).rejects.toThrow("did you mean deepseek-v3?");
  await expect(config("show", "deepseek-v4")).rejects.toThrow("did you mean deepseek-v4-flash or deepseek-v4-pro?");
});

test("config set blames itself for a pair without a value", async () => {
  const path = await file(RUN);
  await expect(config("set", path, "training.lr")).rejects.toThrow(
    `config set ${path}: must be key=value, got "training.lr"`,
  );
});

test.each([
  ["HiddenSizee", "did you mean hidden_size?"],
  ["qk rope", "did you mean qk_rope_head_dim?"],
  ["warmup", "did you mean warmup_steps or warmup_ratio?"],
  ["clip", "grad_clip"],
  ["", "parameter: must be a name"],
])("explain suggests what %j may mean", async (spelling, expected) => {
  await expect(explain(spelling)).rejects.toThrow(expected);
});

test("explain tries legal values only and rounds to whole percents from a hundred on", async () => {
  await explain("tp", "--model", "tiny", "--json");
  const { influence } = JSON.parse(output) as { influence: { trials: { value: number }[] } };
  expect(influence.trials.map(({ value }) => value)).toEqual([2]);
  output = "";
  await explain("HiddenSize");
  expect(output).toContain("training FLOPs/token");
  expect(output).not.toMatch(/e\+\d/);
});

test("config check refuses a layout that breaks an identity of the planner", async () => {
  const path = await file(
    "extends: deepseek-v3\nparallel: {ep: 3, dp: 3}\ntraining: {batch_size: 3, micro_batch_size: 1}\n",
  );
  await expect(config("check", path)).rejects.toThrow(
    'identity "experts": EP divides the routed experts (3 against 256)',
  );
});

test("config diff names each setting with both values", async () => {
  const path = await file(RUN);
  await config("diff", "tiny", path, "--json");
  expect(JSON.parse(output)).toMatchObject({ changes: [] });
  output = "";
  await config("diff", path, await file("extends: ./run.yaml\nlr: 1e-3\n", "other.yaml"), "--json");
  expect(JSON.parse(output)).toMatchObject({
    changes: [
      { path: "training.lr", before: 0.003, after: 0.001 },
      { path: "training.min_lr", before: expect.closeTo(0.0003, 12) as number, after: 0.0001 },
    ],
  });
});

test("config show prints what differs from the defaults, with the reason", async () => {
  await config("show", await file(RUN), "--set", "steps=9");
  expect(output).toContain("given as training.learning_rate");
  expect(output).toMatch(/training\.steps +9 +given as steps/);
  expect(output).toMatch(/model\.dim +32 +preset tiny/);
  expect(output).not.toContain("training.beta1");
});

test("a run file trains, and flags win over it", async () => {
  const run = await readRunFile(await file(RUN));
  const base = (overrides: Record<string, unknown>) => run.resolve({ overrides });
  const data = { kind: "corpus", name: "sotu" } as const;
  const job = newRun({ base, data, out: join(folder, "run"), json: false }, flagSettings({ steps: 3 }));
  expect(job.config.training).toMatchObject({ lr: 3e-3, steps: 3 });
  const lion = flagSettings({ set: ["optimizer=Lion"] });
  expect(() => newRun({ base, data, out: join(folder, "run"), json: false }, lion)).toThrow("must be adamw");
});

test("explain prints a parameter under any of its names, and its influence", async () => {
  await explain("--hidden-size", "--json");
  const { path, presets, influence } = JSON.parse(output) as {
    path: string;
    presets: Record<string, number>;
    influence: { model: string; now: { value: number; costs: { total: number } }; trials: { value: number }[] };
  };
  expect(path).toBe("model.dim");
  expect(presets["deepseek-v3"]).toBe(7168);
  expect(influence.model).toBe("deepseek-v3");
  expect(influence.now).toMatchObject({ value: 7168, costs: { total: 671_026_419_200 } });
  expect(influence.trials.map(({ value }) => value)).toEqual([3584, 14336]);
});

test("explain lists all parameters by layer", async () => {
  await explain("--json");
  const layers = JSON.parse(output) as Record<string, { name: string; section: string }[]>;
  expect(Object.keys(layers)).toEqual(["base architecture", "compute", "training control", "inference", "hardware"]);
  expect(layers.hardware!.some(({ name }) => name === "tp")).toBe(true);
});

test("explain says what articles get wrong, and refuses what is no parameter", async () => {
  await explain("dropout", "--model", "tiny");
  expect(output).toContain("truth      It is no field of ModelArgs");
  expect(output).toContain("training and generation here run 0 only");
  await expect(explain("hiden_size")).rejects.toThrow("did you mean hidden_size?");
});
