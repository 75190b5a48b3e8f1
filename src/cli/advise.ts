/** `fathom advise`: what to change first when a run does not fit, is slow, learns badly or repeats itself. */

import { Command } from "commander";
import {
  diffConfigs,
  findParameter,
  pathOf,
  presetNames,
  resolveConfig,
  settingOf,
  type ResolvedConfig,
  type Value,
} from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { readText } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import {
  advise,
  chosenAdvice,
  explainAdvice,
  findScene,
  harmfulSettings,
  parseMetrics,
  SCENES,
  SYMPTOMS,
} from "../tune/index.ts";
import type { Advice, AdviseInput, Report, Scene, Symptom } from "../tune/index.ts";
import { assignments, collect, integer } from "./options.ts";
import { duration, print, printJson, size, snake } from "./output.ts";
import { printQuantity } from "./plan-report.ts";
import { editOnDisk, readRunFile } from "./run-files.ts";

interface AdviseOptions extends Partial<Record<Symptom, boolean>> {
  readonly metrics?: string;
  readonly sample?: string;
  readonly script?: string;
  readonly scene?: string;
  readonly apply?: number | true;
  readonly set?: string[];
  readonly why?: number;
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
    .option(
      "--why <number>",
      "print where the prediction of this advice comes from; 0 for that of the run as it is",
      integer("--why", 0),
    )
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
  checkTogether(options);
  const script = options.script === undefined ? "" : await readText(nodeFiles, options.script);
  const harmful = harmfulSettings(resolve({}), script);
  if (options.scene !== undefined) {
    const scene = findScene(options.scene);
    const { settings: changes, warning } = scene;
    if (options.apply !== undefined) return apply({ name, options, resolve, changes, warning });
    return options.json === true ? printJson(snake({ scene, harmful })) : printScene(scene);
  }
  const symptom = chosenSymptom(options);
  if (symptom === undefined) {
    if (options.json === true) return printJson({ harmful });
    return printHarmful(harmful, true);
  }
  const input: AdviseInput = {
    symptom,
    resolve,
    ...(options.metrics === undefined
      ? {}
      : { metrics: parseMetrics(await readText(nodeFiles, options.metrics), options.metrics) }),
    ...(options.sample === undefined ? {} : { sample: await readText(nodeFiles, options.sample) }),
  };
  if (options.why !== undefined) {
    const effects = explainAdvice(input, options.why);
    return options.json === true ? printJson({ effects }) : effects.forEach(printQuantity);
  }
  const report = advise(input);
  if (options.apply !== undefined) {
    const { changes } = chosenAdvice(report, options.apply === true ? 1 : options.apply);
    return apply({ name, options, resolve, changes });
  }
  if (options.json === true) return printJson(snake({ ...report, harmful }));
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

/** The symptoms that read a file of observations. */
const READ_BY = { metrics: ["slow", "quality"], sample: ["repetition"] } as const satisfies Record<
  string,
  readonly Symptom[]
>;

/** @throws ConfigError for options of which one would be passed over. */
function checkTogether(options: AdviseOptions): void {
  const symptom = chosenSymptom(options);
  if (options.scene !== undefined && symptom !== undefined) {
    throw new ConfigError("--scene", "must not stand with a symptom", `--${symptom}`, "ask for one after the other");
  }
  for (const [option, readers] of Object.entries(READ_BY)) {
    if (options[option as keyof typeof READ_BY] === undefined) continue;
    if (readers.some((reader) => reader === symptom)) continue;
    const wanted = readers.map((reader) => `--${reader}`).join(" or ");
    throw new ConfigError(`--${option}`, `must stand with ${wanted}, which read it`, symptom && `--${symptom}`);
  }
  if (options.why !== undefined && options.apply !== undefined) {
    throw new ConfigError("--why", "must not stand with --apply", options.why, "ask for one after the other");
  }
  if (options.why !== undefined && symptom === undefined) {
    throw new ConfigError("--why", "must stand with a symptom, whose advice it explains", options.why, "add --oom");
  }
  if (options.apply !== undefined && options.scene === undefined && symptom === undefined) {
    throw new ConfigError("--apply", "must stand with a symptom or a --scene, whose settings it writes");
  }
}

interface Application {
  readonly name: string;
  readonly options: AdviseOptions;
  readonly resolve: (changes: Readonly<Record<string, Value>>) => ResolvedConfig;
  readonly changes: Readonly<Record<string, Value>>;
  readonly warning?: string | undefined;
}

/** Edits the run file; every setting that was written is printed, and what follows from it. */
async function apply({ name, options, resolve, changes, warning }: Application): Promise<void> {
  if (presetNames().includes(name)) {
    throw new ConfigError("--apply", "needs a run file to write to", name, `begin one: extends: ${name}`);
  }
  const before = resolve({});
  const differences = diffConfigs(before, resolve(changes));
  const unchanged = Object.keys(changes)
    .map((path) => ({ path, parameter: findParameter(path) }))
    .filter(({ path }) => !differences.some((difference) => difference.path === path))
    .map(({ path, parameter }) => ({ path, value: settingOf(before, parameter) }));
  await editOnDisk(name, changes);
  if (options.json === true) {
    return printJson({ file: name, changes: differences, unchanged, ...(warning === undefined ? {} : { warning }) });
  }
  for (const { path, before: old, after } of differences) {
    const origin = path in changes ? "" : " (follows)";
    print(`${name}: ${path} ${JSON.stringify(old)} → ${JSON.stringify(after)}${origin}`);
  }
  for (const { path, value } of unchanged) print(`${name}: ${path} ${JSON.stringify(value)}, as it was`);
  if (warning !== undefined) print(`warning: ${warning}`);
}

function printScene({ name, settings, source, warning }: Scene): void {
  print(`${name} (${source})`);
  for (const [path, value] of Object.entries(settings)) print(`  ${path} = ${JSON.stringify(value)}`);
  if (warning !== undefined) print(`warning: ${warning}`);
}

function printReport({ symptom, job, now, remark, steps, advice, refused }: Report): void {
  const room = now.memoryBytes <= now.limitBytes ? "fits" : "does not fit";
  print(`predicted for ${jobText(job)}:`);
  print(`  ${size(now.memoryBytes)} on the fullest device of ${size(now.limitBytes)} usable: ${room}`);
  print(`  ${stepTime(now.stepSec)} a step, ${Math.round(now.tokensPerSec).toLocaleString("en")} tokens/s`);
  if (remark !== null) print(remark);
  for (const { ask, answer } of steps) print(`${answer ? "yes" : "no "}  ${ask}`);
  print("");
  advice.forEach((item, i) => printAdvice(item, i + 1, now, symptom));
  if (advice.length === 0) print("nothing that this tree knows would help");
  for (const { name, reason } of refused) print(`not here: ${name}: ${reason}`);
  if (advice.some(({ changes }) => Object.keys(changes).length > 0)) print("where a number comes from: --why N");
  print("apply one at a time: fathom advise FILE … --apply N, then look again");
}

function jobText({ device, devices, microBatchSize, isMicroBatchAssumed }: Report["job"]): string {
  const assumed = isMicroBatchAssumed ? " (assumed: training.micro_batch_size is not set)" : "";
  return `${devices} × ${device}, micro-batch ${microBatchSize}${assumed}`;
}

function stepTime(seconds: number): string {
  if (seconds < 1) return `${(1000 * seconds).toFixed(1)} ms`;
  return seconds < 60 ? `${seconds.toFixed(2)} s` : duration(seconds);
}

function printAdvice(item: Advice, number: number, now: Report["now"], symptom: Symptom): void {
  print(`${number}. ${item.name} (${item.kind})`);
  const changes = Object.entries(item.changes).map(([path, value]) => `${path}=${JSON.stringify(value)}`);
  if (changes.length > 0) {
    print(`   ${changes.join(" ")}`);
    const effects = effectsOf(item, now, symptom);
    if (effects.length > 0) print(`   ${effects.join("; ")}`);
    if (item.kind === "new model") print("   makes a new model: it is trained from the start");
  }
  print(`   ${item.why} [${item.source}]`);
}

/** What the planner predicts of a change, without what stays. */
function effectsOf(item: Advice, now: Report["now"], symptom: Symptom): string[] {
  const { savedBytes, stepSecAdded, runSecAdded, overBytes } = item;
  const step = changeText(stepSecAdded / now.stepSec);
  const run = changeText(runSecAdded / now.runSec);
  const fits = overBytes > 0 ? `still ${size(overBytes)} over` : "then fits";
  return [
    savedBytes > 0 ? `saves ${size(savedBytes)}` : "",
    savedBytes < 0 ? `takes ${size(-savedBytes)} more` : "",
    symptom === "oom" || symptom === "slow" ? fits : "",
    step === "" ? "" : `a step takes ${step} time`,
    step === "" && run !== "" ? `the run takes ${run} time` : "",
  ].filter((text) => text !== "");
}

/** `6.5 % less`; empty for what rounds to nothing. */
function changeText(share: number): string {
  const percent = Math.abs(100 * share).toFixed(1);
  return percent === "0.0" ? "" : `${percent} % ${share > 0 ? "more" : "less"}`;
}

function printHarmful(harmful: readonly { name: string; warning: string }[], isAll: boolean): void {
  for (const { name, warning } of harmful) print(`harmful: ${name}: ${warning}`);
  if (isAll && harmful.length === 0) {
    print("nothing harmful found; give a symptom: --oom, --slow, --quality or --repetition, or a --scene");
  }
}
