/** `fathom advise`: what to change first when a run does not fit, is slow, learns badly or repeats itself. */

import { Command } from "commander";
import {
  diffConfigs,
  findParameter,
  pathOf,
  presetNames,
  resolveConfig,
  type ResolvedConfig,
  type Value,
} from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { advise, chosenAdvice, findScene, harmfulSettings, parseMetrics, SCENES, SYMPTOMS } from "../tune/index.ts";
import type { Advice, Report, Scene, Symptom } from "../tune/index.ts";
import { assignments, collect, integer } from "./options.ts";
import { bytes, duration, print, printJson } from "./output.ts";
import { editOnDisk, readRunFile } from "./run-files.ts";

interface AdviseOptions extends Partial<Record<Symptom, boolean>> {
  readonly metrics?: string;
  readonly sample?: string;
  readonly script?: string;
  readonly scene?: string;
  readonly apply?: number | true;
  readonly set?: string[];
  readonly json?: boolean;
}

export function adviseCommand(): Command {
  return new Command("advise")
    .description("what to change first, with what the planner predicts of it")
    .argument("[config]", "a run file or a preset", "nano")
    .option("--oom", "training does not fit into memory")
    .option("--slow", "training is slow")
    .option("--quality", "the model is bad")
    .option("--repetition", "the model repeats itself")
    .option("--metrics <file>", "what fathom train --json printed")
    .option("--sample <file>", "text that the model wrote")
    .option("--script <file>", "a launch or training script to look through for harmful advice")
    .option("--scene <name>", `settings for a scene: ${SCENES.map(({ name }) => name).join(", ")}`)
    .option("--apply [number]", "write this advice, or the scene, into the run file", integer("--apply", 1))
    .option("--set <key=value>", "another setting; may be given several times", collect)
    .option("--json", "one JSON document on stdout")
    .action(run);
}

async function run(name: string, options: AdviseOptions): Promise<void> {
  // By path, so that a change takes the place of a setting in whatever spelling it was given.
  const overrides = Object.fromEntries(
    Object.entries(assignments(options.set ?? [])).map(([key, value]) => [pathOf(findParameter(key)), value]),
  );
  const config = await openBase(name);
  const resolve = (changes: Readonly<Record<string, Value>>): ResolvedConfig => config({ ...overrides, ...changes });
  const script = options.script === undefined ? "" : await readText(nodeFiles, options.script);
  const harmful = harmfulSettings(resolve({}), script);
  if (options.scene !== undefined) {
    const scene = findScene(options.scene);
    await printOrApply({ name, options, resolve, changes: scene.settings, show: () => printScene(scene) });
    if (options.json === true) printJson({ scene, harmful });
    return;
  }
  const symptom = chosenSymptom(options);
  if (symptom === undefined) {
    if (options.json === true) return printJson({ harmful });
    return printHarmful(harmful, true);
  }
  const report = advise({
    symptom,
    resolve,
    ...(options.metrics === undefined
      ? {}
      : { metrics: parseMetrics(await readText(nodeFiles, options.metrics), options.metrics) }),
    ...(options.sample === undefined ? {} : { sample: await readText(nodeFiles, options.sample) }),
  });
  if (options.apply !== undefined) {
    const { changes } = chosenAdvice(report, options.apply === true ? 1 : options.apply);
    return printOrApply({ name, options, resolve, changes, show: () => undefined });
  }
  if (options.json === true) return printJson({ ...report, harmful });
  printReport(report);
  printHarmful(harmful, false);
}

async function openBase(name: string): Promise<(changes: Record<string, unknown>) => ResolvedConfig> {
  if (presetNames().includes(name)) return (changes) => resolveConfig(name, changes);
  const file = await readRunFile(name);
  return (overrides) => file.resolve({ overrides });
}

function chosenSymptom(options: AdviseOptions): Symptom | undefined {
  const given = SYMPTOMS.filter((symptom) => options[symptom] === true);
  if (given.length <= 1) return given[0];
  throw new ConfigError("advise", "takes one symptom at a time", given.map((symptom) => `--${symptom}`).join(" "));
}

interface Application {
  readonly name: string;
  readonly options: AdviseOptions;
  readonly resolve: (changes: Readonly<Record<string, Value>>) => ResolvedConfig;
  readonly changes: Readonly<Record<string, Value>>;
  readonly show: () => void;
}

/** With --apply the run file is edited and the difference printed; without, only shown. */
async function printOrApply({ name, options, resolve, changes, show }: Application): Promise<void> {
  if (options.apply === undefined) return options.json === true ? undefined : show();
  if (presetNames().includes(name)) {
    throw new ConfigError("--apply", "needs a run file to write to", name, `begin one: extends: ${name}`);
  }
  const differences = diffConfigs(resolve({}), resolve(changes));
  await editOnDisk(name, changes);
  if (options.json === true) return printJson({ file: name, changes: differences });
  for (const { path, before, after } of differences) {
    print(`${name}: ${path} ${JSON.stringify(before)} → ${JSON.stringify(after)}`);
  }
}

function printScene({ name, settings, source, warning }: Scene): void {
  print(`${name} (${source})`);
  for (const [path, value] of Object.entries(settings)) print(`  ${path} = ${JSON.stringify(value)}`);
  if (warning !== undefined) print(`warning: ${warning}`);
}

function printReport({ now, steps, advice, refused }: Report): void {
  const room = now.memoryBytes <= now.limitBytes ? "fits" : "does not fit";
  print(`predicted: ${bytes(now.memoryBytes)} on the fullest device of ${bytes(now.limitBytes)} usable: ${room}`);
  print(
    `           ${now.stepSec < 1 ? `${(1000 * now.stepSec).toFixed(1)} ms` : duration(now.stepSec)} a step, ${Math.round(now.tokensPerSec).toLocaleString("en")} tokens/s`,
  );
  for (const { ask, answer } of steps) print(`${answer ? "yes" : "no "}  ${ask}`);
  print("");
  advice.forEach((item, i) => printAdvice(item, i + 1, now.stepSec));
  if (advice.length === 0) print("nothing that this tree knows would help");
  for (const { name, reason } of refused) print(`not here: ${name}: ${reason}`);
  print("apply one at a time: fathom advise FILE … --apply N, then look again");
}

function printAdvice(item: Advice, number: number, stepSec: number): void {
  print(`${number}. ${item.name} (${item.kind})`);
  const changes = Object.entries(item.changes).map(([path, value]) => `${path}=${JSON.stringify(value)}`);
  if (changes.length > 0) {
    const memory = item.savedBytes >= 0 ? `saves ${bytes(item.savedBytes)}` : `takes ${bytes(-item.savedBytes)} more`;
    const time = (100 * item.stepSecAdded) / stepSec;
    print(`   ${changes.join(" ")}`);
    print(`   ${memory}; a step takes ${time >= 0 ? "+" : "−"}${Math.abs(time).toFixed(1)} % of the time`);
    if (item.kind === "new model") print("   makes a new model: it is trained from the start");
  }
  print(`   ${item.why} [${item.source}]`);
}

function printHarmful(harmful: readonly { name: string; warning: string }[], isAll: boolean): void {
  for (const { name, warning } of harmful) print(`harmful: ${name}: ${warning}`);
  if (isAll && harmful.length === 0) {
    print("nothing harmful found; give a symptom: --oom, --slow, --quality or --repetition, or a --scene");
  }
}
