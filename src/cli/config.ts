/** `fathom config`: run files and presets shown, checked, compared and edited. */

import { Command } from "commander";
import {
  changedSettings,
  checkRuns,
  configHash,
  diffConfigs,
  idleSettings,
  pathOf,
  printConfig,
  settingOf,
  toJson,
  type ResolvedConfig,
} from "../config/index.ts";
import { blueprint } from "../blueprint/index.ts";
import { FathomError } from "../core/errors.ts";
import { checkLayout, configuredLayout, modelShape, worldSize } from "../planner/index.ts";
import { assignments, collect } from "./options.ts";
import { print, printJson } from "./output.ts";
import { editOnDisk, openConfig } from "./run-files.ts";

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

function printChanged(config: ResolvedConfig): void {
  const changed = changedSettings(config).map((parameter) => ({ path: pathOf(parameter), parameter }));
  const width = Math.max(0, ...changed.map(({ path }) => path.length));
  for (const { path, parameter } of changed) {
    print(`${path.padEnd(width)}  ${JSON.stringify(settingOf(config, parameter)).padEnd(12)}  ${config.why[path]!}`);
  }
}

/** What there is to say against a configuration beyond what is wrong with it. */
async function check(file: string, options: ConfigOptions): Promise<void> {
  const config = await openConfig(file, assignments(options.set ?? []));
  const layout = configuredLayout(config);
  checkLayout(layout, modelShape(blueprint(config.model)), worldSize(layout));
  const train = refusal(config, "train");
  const generate = refusal(config, "generate");
  const unused = idleSettings(config, "train");
  const hash = configHash(config);
  if (options.json === true) return printJson({ file, hash, train, generate, unused });
  print(`${file}: every setting is known and legal, and they fit together; hash ${hash}`);
  for (const { path, value, reason } of unused) print(`note: ${path} = ${JSON.stringify(value)}: ${reason}`);
  print(train === null ? "fathom train can run it" : `fathom train cannot run it: ${train}`);
  if (generate !== null) print(`fathom generate cannot run it: ${generate}`);
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

async function set(path: string, pairs: readonly string[]): Promise<void> {
  await editOnDisk(path, assignments(pairs));
}
