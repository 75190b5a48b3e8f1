/** `fathom config`: run files and presets shown, checked, compared and edited. */

import { Command } from "commander";
import {
  changedSettings,
  checkRuns,
  configHash,
  diffConfigs,
  idleSettings,
  listParameters,
  pathOf,
  presetNames,
  printConfig,
  resolveConfig,
  settingOf,
  toJson,
  type ResolvedConfig,
} from "../config/index.ts";
import { ConfigError, FathomError } from "../core/errors.ts";
import { checkLayout, configuredLayout, modelShape, worldSize } from "../planner/index.ts";
import { userDevice } from "./hardware-file.ts";
import { assignments, collect } from "./options.ts";
import { print, printJson } from "./output.ts";
import { editOnDisk, openConfig, readRunFile } from "./run-files.ts";

interface ConfigOptions {
  readonly set?: string[];
  readonly json?: boolean;
  readonly all?: boolean;
}

const SET = ["--set <key=value>", "another setting; may be given several times"] as const;
const JSON_FLAG = ["--json", "one JSON document on stdout"] as const;

export function configCommand(): Command {
  return new Command("config")
    .description("run files (YAML or JSON) and presets: show, check, compare, edit")
    .addCommand(
      new Command("show")
        .description("the settings that a run file or preset comes to, each with its reason")
        .argument("<file>", "a run file or a preset")
        .option(...SET, collect)
        .option("--all", "also the settings at their defaults")
        .option(...JSON_FLAG)
        .action(show),
    )
    .addCommand(
      new Command("check")
        .description("check a run file: settings, layout, and whether train and generate can run it")
        .argument("<file>", "a run file or a preset")
        .option(...SET, collect)
        .option(...JSON_FLAG)
        .action(check),
    )
    .addCommand(
      new Command("diff")
        .description("the settings in which two run files or presets differ")
        .argument("<a>", "a run file or a preset")
        .argument("<b>", "another")
        .option(...JSON_FLAG)
        .action(diff),
    )
    .addCommand(
      new Command("set")
        .description("change settings in a run file; comments and everything else stay")
        .argument("<file>", "a run file")
        .argument("<key=value...>", "settings in any spelling")
        .option(...JSON_FLAG)
        .action(set),
    );
}

async function show(file: string, options: ConfigOptions): Promise<void> {
  const config = await openConfig(file, assignments(options.set ?? []));
  if (options.json === true) return printJson({ hash: configHash(config), ...(JSON.parse(toJson(config)) as object) });
  if (options.all === true) process.stdout.write(printConfig(config));
  else printChanged(config);
  print(`hash ${configHash(config)}`);
}

/** What differs from the defaults, and what was given all the same. */
function printChanged(config: ResolvedConfig): void {
  const differing = new Set(changedSettings(config).map(pathOf));
  const changed = listParameters()
    .map((parameter) => ({ path: pathOf(parameter), parameter }))
    .filter(({ path }) => differing.has(path) || config.why[path]!.startsWith("given as "));
  const width = Math.max(0, ...changed.map(({ path }) => path.length));
  for (const { path, parameter } of changed) {
    const value = JSON.stringify(settingOf(config, parameter)).padEnd(12);
    print(`${path.padEnd(width)}  ${value}  ${config.why[path]!}${differing.has(path) ? "" : " (the default)"}`);
  }
}

/** What there is to say against a configuration beyond what is wrong with it. */
async function check(file: string, options: ConfigOptions): Promise<void> {
  const overrides = assignments(options.set ?? []);
  const run = presetNames().includes(file) ? undefined : await readRunFile(file);
  if (run !== undefined) checkSettings(file, run.problems(), options.json === true);
  const config = run === undefined ? resolveConfig(file, overrides) : run.resolve({ overrides });
  await userDevice(config.hardware.device);
  const layout = configuredLayout(config);
  checkLayout(layout, modelShape(config.model), worldSize(layout));
  const train = refusal(config, "train");
  const generate = refusal(config, "generate");
  const unused = idleSettings(config, "train");
  const hash = configHash(config);
  if (options.json === true) return printJson({ file, hash, train, generate, unused, not_checked: NOT_CHECKED });
  print(`${file}: every setting is known and legal, and they fit together; hash ${hash}`);
  if (run?.isEmpty === true) print("note: the file is empty, so every setting is at its default");
  for (const { path, value, reason } of unused) print(`note: ${path} = ${JSON.stringify(value)}: ${reason}`);
  print(train === null ? "fathom train can run it" : `fathom train cannot run it: ${train}`);
  if (generate !== null) print(`fathom generate cannot run it: ${generate}`);
  for (const what of NOT_CHECKED) print(`not checked: ${what}`);
}

const NOT_CHECKED = [
  "memory and speed: see fathom plan",
  "data, tokenizer and checkpoint files: opened when they are used",
];

/** @throws ConfigError when several settings are wrong, after all of them are printed; one alone is found later. */
function checkSettings(file: string, problems: readonly ConfigError[], json: boolean): void {
  if (problems.length <= 1) return;
  if (json) printJson({ file, errors: problems.map(({ message }) => message) });
  else for (const { message } of problems) print(message);
  throw new ConfigError(file, "must have no wrong setting", problems.length, "correct those above");
}

function refusal(config: ResolvedConfig, verb: "train" | "generate"): string | null {
  try {
    checkRuns(config, verb);
    return null;
  } catch (error) {
    if (error instanceof FathomError) return error.message;
    throw error;
  }
}

async function diff(a: string, b: string, { json = false }: ConfigOptions): Promise<void> {
  const [before, after] = [await openConfig(a), await openConfig(b)];
  const changes = diffConfigs(before, after);
  if (json) return printJson({ a: configHash(before), b: configHash(after), changes });
  if (changes.length === 0) return print("no setting differs");
  const width = Math.max(...changes.map(({ path }) => path.length));
  for (const change of changes) {
    print(`${change.path.padEnd(width)}  ${JSON.stringify(change.before)} → ${JSON.stringify(change.after)}`);
  }
}

async function set(path: string, pairs: readonly string[], { json = false }: ConfigOptions): Promise<void> {
  const settings = assignments(pairs, `config set ${path}`);
  await editOnDisk(path, settings);
  if (json) printJson({ file: path, set: settings });
}
