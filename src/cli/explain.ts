/** `fathom explain`: all parameters by layer, or one of them with what it moves. */

import { Command } from "commander";
import {
  describeParameter,
  findParameter,
  isInRange,
  modelSettings,
  parametersByLayer,
  presetNames,
  rowOf,
  toSnakeCase,
  type ConfigInput,
  type ParameterFacts,
  type ParameterName,
  type Value,
} from "../config/index.ts";
import { parameterInfluence, type Costs, type Influence, type Trial } from "../planner/index.ts";
import { digits, print, printJson, short, size, snake } from "./output.ts";

interface ExplainOptions {
  readonly model: string;
  readonly json?: boolean;
}

export function explainCommand(): Command {
  return (
    new Command("explain")
      .description("what a parameter is, and what moves with it; without a name, all parameters by layer")
      .argument(
        "[parameter]",
        "a parameter in any spelling: dim, hidden_size, --tensor-model-parallel-size, quant_bits",
      )
      // Megatron's spellings begin with dashes, too.
      .allowUnknownOption()
      .option("--model <model>", "model on which its influence is computed", "deepseek-v3")
      .option("--json", "one JSON document on stdout")
      .action(explain)
  );
}

async function explain(spelling: string | undefined, { model, json = false }: ExplainOptions): Promise<void> {
  if (spelling === undefined) return json ? printJson(snake(listing())) : printListing();
  const parameter = findParameter(spelling);
  const facts = describeParameter(parameter);
  const { now, trials } = parameterInfluence(await baseOf(model), parameter);
  const bounds = rowOf(parameter);
  const isTried = ({ value }: Trial): boolean => typeof value !== "number" || isInRange(bounds, value);
  const influence = { now, trials: trials.filter(isTried) };
  if (json) printJson(snake({ ...facts, influence: { model, ...influence } }));
  else printParameter(facts, influence, model);
}

/** A preset with its training, or the model of a file or folder with default training. */
async function baseOf(model: string): Promise<string | ConfigInput> {
  if (presetNames().includes(model)) return model;
  // Reading checkpoints is loaded only when one is named.
  const { openModel } = await import("../blueprint/node.ts");
  return { model: modelSettings((await openModel(model)).model) };
}

function listing(): object {
  return Object.fromEntries([...parametersByLayer()].map(([layer, parameters]) => [layer, parameters.map(summary)]));
}

function summary(parameter: ParameterName): object {
  const { default: byDefault, meaning, unit = null, realIn } = rowOf(parameter);
  const { section, name } = parameter;
  return { name: toSnakeCase(name), section, default: byDefault, unit, meaning, realIn };
}

function printListing(): void {
  for (const [layer, parameters] of parametersByLayer()) {
    print(`${layer} (${parameters.length})`);
    for (const parameter of parameters) {
      const name = `${parameter.section}.${toSnakeCase(parameter.name)}`;
      print(`  ${name.padEnd(36)} ${rowOf(parameter).meaning}`);
    }
    print("");
  }
  print("fathom explain NAME says more of one, with what it moves on a model (--model, default deepseek-v3)");
}

const HOMES: Readonly<Record<ParameterFacts["realIn"], string>> = {
  ModelArgs: "a field of DeepSeek's ModelArgs",
  global: "a global of DeepSeek's model.py, not a field of ModelArgs",
  "config.json": "a key of DeepSeek's configuration files",
  paper: "in DeepSeek's papers",
  field: "in other models and tools, not in DeepSeek's",
  article: "in articles about DeepSeek only",
  Fathom: "Fathom's own",
};

const ALIAS_HOMES = {
  demo: "DeepSeek demo",
  hf: "Hugging Face",
  gguf: "GGUF",
  megatron: "Megatron",
  articles: "articles",
  other: "other tools",
} as const;

function printParameter(facts: ParameterFacts, influence: Influence, model: string): void {
  print(`${facts.path}  (${facts.layer})`);
  print(facts.meaning);
  print("");
  const line = (name: string, text: string): void => print(`${name.padEnd(10)} ${text}`);
  line("values", facts.unit === null ? facts.range : `${facts.range} (${facts.unit})`);
  line("default", `${defaultText(facts.default)}: ${facts.why}`);
  const moves = Object.entries(facts.moves).map(([what, how]) => `${MOVED[what as keyof typeof MOVED]} ${how}`);
  if (moves.length > 0) line("moves", moves.join("; "));
  line("real", `${HOMES[facts.realIn]}; ${facts.source}`);
  if (facts.truth !== null) line("truth", facts.truth);
  line("spellings", spellingsText(facts));
  line("used by", usedBy(facts));
  line("presets", presetsText(facts.presets));
  print("");
  printInfluence(influence, model);
}

const MOVED = {
  parameters: "parameters",
  memory: "memory",
  kvCache: "KV cache",
  flops: "FLOPs",
  speed: "speed",
  quality: "quality",
} as const;

function defaultText(value: ParameterFacts["default"]): string {
  const isRule = typeof value === "object" && value !== null && !Array.isArray(value) && "rule" in value;
  return isRule ? String(value.rule) : show(value as Value);
}

function show(value: Value): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function spellingsText({ name, aliases }: ParameterFacts): string {
  const homes = (Object.keys(ALIAS_HOMES) as (keyof typeof ALIAS_HOMES)[]).flatMap((home) => {
    const spellings = [aliases[home] ?? []].flat();
    return spellings.length === 0 ? [] : [`${ALIAS_HOMES[home]} ${spellings.join(", ")}`];
  });
  return [name, ...homes].join("; ");
}

function usedBy({ readBy, runs }: ParameterFacts): string {
  const verbs = readBy.length === 0 ? "no command yet" : readBy.map((verb) => `fathom ${verb}`).join(", ");
  return runs === null ? verbs : `${verbs}; training and generation here run ${runs.map(show).join(" or ")} only`;
}

/** Presets by value: `64: deepseek-v2, deepseek-v3; 16: nano`. */
function presetsText(presets: ParameterFacts["presets"]): string {
  const byValue = new Map<string, string[]>();
  for (const [name, value] of Object.entries(presets)) {
    byValue.set(show(value), [...(byValue.get(show(value)) ?? []), name]);
  }
  if (byValue.size === 1) return `${[...byValue.keys()][0]!} in all`;
  return [...byValue].map(([value, names]) => `${value}: ${names.join(", ")}`).join("; ");
}

const COLUMNS: readonly (readonly [keyof Costs, string, (value: number) => string])[] = [
  ["total", "parameters", digits],
  ["activated", "active", digits],
  ["trainingBytes", "training", size],
  ["kvBytesPerToken", "KV/token", (value) => `${digits(value)} B`],
  ["flopsPerToken", "training FLOPs/token", short],
];

function printInfluence({ now, trials }: Influence, model: string): void {
  if ("refused" in now) return print(`on ${model}: ${now.refused}`);
  const base = now.costs;
  const legal = trials.filter((trial) => "costs" in trial);
  const isIdle = legal.length > 0 && legal.every(({ costs }) => JSON.stringify(costs) === JSON.stringify(base));
  if (trials.length === 0 || isIdle) {
    const what = "parameters, training memory, KV cache and FLOPs";
    return print(
      trials.length === 0
        ? `on ${model} it is ${show(now.value)}, which cannot be halved or doubled`
        : `on ${model} it moves none of ${what}`,
    );
  }
  print(`on ${model} (one sequence a pass, bf16 states, all on one device unless the layout says otherwise)`);
  const cells = [["value", ...COLUMNS.map(([, title]) => title)], ...[now, ...trials].map((trial) => row(trial, base))];
  printTable(cells);
}

/** Columns as wide as their widest cell; a row with another number of cells is a remark. */
function printTable([head = [], ...rows]: readonly string[][]): void {
  const full = [head, ...rows].filter((cells) => cells.length === head.length);
  const widths = head.map((_, i) => Math.max(...full.map((cells) => cells[i]!.length)));
  for (const cells of [head, ...rows])
    print(
      cells
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    );
}

function row(trial: Trial, base: Costs): string[] {
  const value = show(trial.value);
  if ("refused" in trial) return [value, `not legal: ${trial.refused}`];
  return [
    value,
    ...COLUMNS.map(([key, , format]) => {
      const change = trial.costs[key] / base[key] - 1;
      const text = format(trial.costs[key]);
      return change === 0 || !Number.isFinite(change)
        ? text
        : `${text} (${change > 0 ? "+" : "−"}${percent(Math.abs(change))})`;
    }),
  ];
}

function percent(change: number): string {
  const value = 100 * change;
  return `${value >= 99.5 ? value.toFixed(0) : value.toPrecision(2)} %`;
}
