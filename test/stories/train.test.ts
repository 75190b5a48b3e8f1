/** Training from the command line: what it prints, that it repeats itself, and that nothing which ends it does harm. */

import { existsSync, readFileSync, readdirSync, watch } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Rng } from "../../src/core/rng.ts";
import { SavedRun } from "../../src/train/node.ts";
import { Workspace, eventsOf, mainScript, root, writeTexts, type Ended, type Running } from "../helpers/cli.ts";

const workspace = new Workspace();
const TEXTS = ["--data", "texts/**/*.txt", "texts/*.jsonl"];
const NEW = ["train", "--json", "--preset", "tiny", ...TEXTS];

beforeAll(() => writeTexts(workspace));
afterAll(() => workspace[Symbol.dispose]());

async function succeed(...args: string[]): Promise<Ended> {
  const ended = await workspace.run(...args);
  expect(ended.code, ended.stderr).toBe(0);
  return ended;
}

/** Step and loss, as printed. */
function lossesOf(stdout: string): [number, number][] {
  return eventsOf(stdout).flatMap(({ step, loss }) => (loss === undefined ? [] : [[step, loss] as [number, number]]));
}

/** The step of the newest checkpoint, which must be whole. */
async function savedStep(run: string): Promise<number> {
  return (await SavedRun.open(workspace.path(run))).state.step;
}

function newest(run: string): string {
  return workspace.path(run, readFileSync(workspace.path(run, "latest"), "utf8").trim());
}

/** Weights, moments and place of two runs' newest checkpoints are the same, byte for byte. */
function expectSameState(a: string, b: string): void {
  for (const file of ["model.safetensors", "trainer/optimizer.safetensors"]) {
    expect(readFileSync(join(newest(a), file)).equals(readFileSync(join(newest(b), file))), file).toBe(true);
  }
  const place = (run: string): unknown => {
    const { config: _, ...state } = JSON.parse(readFileSync(join(newest(run), "trainer/state.json"), "utf8"));
    return state;
  };
  expect(place(a)).toEqual(place(b));
}

test("--json prints every step, evaluation and checkpoint, and nothing else", async () => {
  const { stdout } = await succeed(...NEW, "--steps", "8", "--out", "printed");
  const events = eventsOf(stdout);
  expect(events.map((event) => JSON.stringify(event))).toEqual(stdout.trimEnd().split("\n"));
  const steps = events.filter(({ loss }) => loss !== undefined);
  expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  for (const { loss, tokens, tokens_per_sec } of steps) {
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(1.1 * Math.log(512));
    expect(tokens).toBe(4 * 64);
    expect(tokens_per_sec).toBeGreaterThan(0);
  }
  const evaluations = events.filter(({ val_loss }) => val_loss !== undefined);
  expect(evaluations.map(({ step }) => step)).toEqual([2, 4, 6, 8]);
  for (const { bits_per_byte, routing } of evaluations) {
    expect(bits_per_byte).toBeGreaterThan(0);
    expect(routing).toHaveLength(1);
    expect(routing![0]!.counts).toHaveLength(8);
  }
  expect(events.at(-1)).toEqual({ step: 8, checkpoint: "printed/step-00000008" });
});

test("ten steps at once equal five and five resumed", async () => {
  const straight = await succeed(...NEW, "--steps", "10", "--out", "straight");
  const first = await succeed(...NEW, "--steps", "5", "--schedule-steps", "10", "--out", "halves");
  const second = await succeed("train", "--json", "--resume", "halves", "--steps", "10");
  expect([...lossesOf(first.stdout), ...lossesOf(second.stdout)]).toEqual(lossesOf(straight.stdout));
  expectSameState("straight", "halves");
});

test.each(["f32", "bf16"])("one thread and two give the same bytes in %s", async (precision) => {
  const args = [...NEW, "--steps", "6", "--set", `precision=${precision}`];
  const runs = [];
  for (const threads of ["1", "2"]) {
    runs.push(await succeed(...args, "--threads", threads, "--out", `${precision}-${threads}`));
  }
  expect(lossesOf(runs[1]!.stdout)).toEqual(lossesOf(runs[0]!.stdout));
  expectSameState(`${precision}-1`, `${precision}-2`);
});

/** Ends a run by a signal after its third step, and goes on with it. */
async function expectCleanEnd(running: Running, signal: NodeJS.Signals, run: string): Promise<void> {
  await running.until((stdout) => lossesOf(stdout).length >= 3);
  running.child.kill(signal);
  const { code, stdout, stderr } = await running.ended;
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("stopping after this step; the run will be saved");
  const last = lossesOf(stdout).at(-1)![0];
  expect(eventsOf(stdout).at(-1)).toEqual({ step: last, checkpoint: expect.stringContaining(run) });
  expect(await savedStep(run)).toBe(last);
  const resumed = await succeed("train", "--json", "--resume", run, "--steps", String(last + 2));
  expect(lossesOf(resumed.stdout).map(([step]) => step)).toEqual([last + 1, last + 2]);
}

test.each(["SIGINT", "SIGTERM"] as const)("%s ends a run at the next step, saved, with code 0", async (signal) => {
  await expectCleanEnd(workspace.start(...NEW, "--steps", "100000", "--out", signal), signal, signal);
});

test.each(["SIGINT", "SIGTERM"] as const)("%s to the start script waits for the run behind it", async (signal) => {
  const args = [mainScript, ...NEW, "--steps", "100000", "--out", `parent-${signal}`];
  const script = `
    import { runForeground } from ${JSON.stringify(join(root, "scripts", "child.mjs"))};
    process.exitCode = await runForeground(process.execPath, ${JSON.stringify(args)}, process.cwd());`;
  const parent = workspace.spawn(process.execPath, ["--input-type=module", "-e", script]);
  await expectCleanEnd(parent, signal, `parent-${signal}`);
});

test("SIGINT in the middle of an evaluation ends it at once, and the step before it is saved", async () => {
  // Half of 2 MB held out: an evaluation of some seconds.
  const text = readFileSync(workspace.path("texts/first.txt"), "utf8").repeat(25);
  workspace.write("long/text.txt", text);
  const args = ["--data", "long", "--set", "val_fraction=0.5", "--set", "eval_every=1", "--out", "evaluated"];
  const running = workspace.start("train", "--json", "--preset", "tiny", ...args);
  await running.until((stdout) => lossesOf(stdout).length > 0);
  running.child.kill("SIGINT");
  const { code, stdout, stderr } = await running.ended;
  expect(code, stderr).toBe(0);
  expect(eventsOf(stdout).map((event) => event.val_loss ?? event.checkpoint ?? event.step)).toEqual([
    1,
    "evaluated/step-00000001",
  ]);
});

test("a run folder takes one process at a time, and a killed one leaves it free", async () => {
  const first = workspace.start(...NEW, "--steps", "100000", "--set", "checkpoint_every=1", "--out", "shared");
  await first.until((stdout) => eventsOf(stdout).some(({ checkpoint }) => checkpoint !== undefined));
  const second = await workspace.run("train", "--json", "--resume", "shared", "--steps", "100000");
  expect(second.code).toBe(1);
  expect(second.stdout).toBe("");
  expect(second.stderr).toContain(
    `error: shared: must be trained by one process at a time, got "process ${first.child.pid} on `,
  );
  first.child.kill("SIGKILL");
  await first.ended;
  const left = readdirSync(workspace.path("shared")).filter((name) => name.startsWith("lock."));
  expect(left).toHaveLength(1);
  const last = await savedStep("shared");
  await succeed("train", "--json", "--resume", "shared", "--steps", String(last + 1));
  expect(await savedStep("shared")).toBe(last + 1);
  expect(readdirSync(workspace.path("shared")).filter((name) => !/^(latest|step-\d+)$/.test(name))).toEqual([]);
});

test("SIGTERM in the middle of a save lets it finish, and leaves nothing half done", async () => {
  const run = workspace.path("mid-save");
  await succeed(...NEW, "--steps", "1", "--schedule-steps", "100000", "--out", "mid-save");
  const running = workspace.start(
    ...["train", "--json", "--resume", "mid-save", "--steps", "100000"],
    ...["--set", "checkpoint_every=1"],
  );
  let signalledDuringSave = false;
  const watcher = watch(run, (_, name) => {
    if (signalledDuringSave || !name?.startsWith("step-") || !name.includes(".tmp-")) return;
    signalledDuringSave = existsSync(join(run, name)) && running.child.kill("SIGTERM");
  });
  const { code, stdout, stderr } = await running.ended;
  watcher.close();
  expect(code, stderr).toBe(0);
  expect(signalledDuringSave).toBe(true);
  expect(readdirSync(run).filter((name) => name.includes(".tmp-"))).toEqual([]);
  const last = lossesOf(stdout).at(-1)![0];
  expect(await savedStep("mid-save")).toBe(last);
  await succeed("train", "--json", "--resume", "mid-save", "--steps", String(last + 1));
});

test(
  "twenty kill -9 at random moments lose at most the steps since the last checkpoint, and change no bit",
  { timeout: 300_000 },
  async () => {
    const EVERY = 3;
    const settings = ["--steps", "150", "--set", `checkpoint_every=${EVERY}`, "--set", "eval_every=150"];
    const undisturbed = await succeed(...NEW, ...settings, "--out", "undisturbed");
    const losses = new Map(lossesOf(undisturbed.stdout));
    const rng = new Rng(9, "kills");
    let saved = 0;
    for (let kill = 1; kill <= 20; kill++) {
      const isNew = !existsSync(workspace.path("killed", "latest"));
      const args = isNew ? [...NEW, ...settings, "--out", "killed"] : ["train", "--json", "--resume", "killed"];
      const running = workspace.start(...args);
      const steps = Math.floor(rng.uniform() * 6);
      await running.until((stdout) => lossesOf(stdout).length >= steps);
      await sleep(rng.uniform() * (steps === 0 ? 500 : 40));
      running.child.kill("SIGKILL");
      const { code, stdout } = await running.ended;
      expect(code, `kill ${kill}`).toBe("SIGKILL");
      const seen = lossesOf(stdout);
      for (const [step, loss] of seen) expect(loss, `loss of step ${step} after ${kill} kills`).toBe(losses.get(step));
      const last = seen.at(-1)?.[0] ?? saved;
      if (seen.length > 0) expect(seen[0]![0], `kill ${kill}`).toBe(saved + 1);
      // A step is printed before its checkpoint is written, and nothing follows before that is done.
      const least = Math.max(saved, EVERY * Math.floor((last - 1) / EVERY));
      if (least === 0 && !existsSync(workspace.path("killed", "latest"))) continue;
      saved = await savedStep("killed");
      expect(saved, `kill ${kill}`).toBeGreaterThanOrEqual(least);
    }
    expect(saved).toBeLessThan(150);
    await succeed("train", "--json", "--resume", "killed");
    expectSameState("killed", "undisturbed");
    expect(readdirSync(workspace.path("killed")).toSorted()).toEqual(
      readdirSync(workspace.path("undisturbed")).toSorted(),
    );
  },
);

test("an answer repeats itself with its seed, and differs with another", async () => {
  await succeed(...NEW, "--steps", "5", "--out", "speaks");
  const answers: string[] = [];
  for (const seed of ["1", "1", "2"]) {
    const call = ["generate", "--model", "speaks", "--prompt", "BA", "--max-tokens", "24", "--temperature", "1"];
    const { stdout } = await succeed(...call, "--seed", seed, "--json");
    const answer = JSON.parse(stdout) as { text: string; tokens: number; tokens_per_sec: number };
    expect(answer.tokens).toBeLessThanOrEqual(24);
    expect(answer.tokens_per_sec).toBeGreaterThan(0);
    answers.push(answer.text);
  }
  expect(answers[1]).toBe(answers[0]);
  expect(answers[2]).not.toBe(answers[0]);
});
