/** `fathom params`: the exact parameters of a model by module, of one layer by its formula, and what is often claimed. */

import { Command, Option } from "commander";
import {
  blueprint,
  compareWithArticle,
  countHeaders,
  countLayer,
  layerHelp,
  outline,
  reportParameters,
  type LayerCount,
  type ModuleReport,
  type ParameterReport,
  type ReportDepth,
  type StorageCounts,
} from "../blueprint/index.ts";
import { idleSettings, presetNames, resolveConfig, type ModelConfig } from "../config/index.ts";
import { ConfigError } from "../core/errors.ts";
import { assignments, collect, integer } from "./options.ts";
import { bytes as largeBytes, digits, print, printJson } from "./output.ts";
import { formatTable, type Table, type TableFormat } from "./table.ts";

interface ParamsOptions {
  readonly depth: ReportDepth;
  readonly format: TableFormat;
  readonly set?: string[];
  readonly layer?: string;
  readonly compare?: "article";
  readonly json?: boolean;
}

export function paramsCommand(): Command {
  return new Command("params")
    .description("count the parameters of a model, exactly and without its weights")
    .argument("[model]", "a preset, a run file (.yaml), a config.json, a checkpoint folder or a .gguf file")
    .option("--depth <n>", "1 lists modules, 2 their parts, 3 every parameter", integer("--depth", 1, 3), 1)
    .addOption(
      new Option("--format <format>", "table as plain text or Markdown").choices(["text", "md"]).default("text"),
    )
    .option("--set <key=value>", "change a setting of a preset; may be given several times", collect)
    .option(
      "--layer <spec>",
      `count one layer, kind:size=n,size=n (${layerHelp().join("; ")}); lora, dora and adapter also over a model`,
    )
    .addOption(
      new Option("--compare <with>", "an often quoted table of the 671B model beside the truth").choices(["article"]),
    )
    .option("--json", "one JSON document on stdout")
    .action(params);
}

async function params(model: string | undefined, options: ParamsOptions): Promise<void> {
  if (options.layer !== undefined) return showLayer(options.layer, model, options);
  if (model === undefined) {
    throw new ConfigError("model", "must be given", undefined, "for example fathom params deepseek-v3");
  }
  const opened = await open(model, options);
  if (options.compare !== undefined) return showComparison(opened, options);
  const { depth } = options;
  const needsEveryParameter = depth === 3 || opened.stored !== undefined;
  const report = reportParameters(needsEveryParameter ? blueprint(opened.model) : outline(opened.model), {
    depth,
    ...opened.stored,
  });
  if (options.json === true) printJson({ name: opened.name, ...reportJson(report) });
  else printReport(opened.name, report, options.format);
}

interface Opened {
  readonly name: string;
  readonly model: ModelConfig;
  /** What the files hold, where there are some. */
  readonly stored?: { readonly stored: StorageCounts };
}

/** A preset needs no file; what reads checkpoints is loaded only when one is named. */
async function open(model: string, { set }: ParamsOptions): Promise<Opened> {
  if (presetNames().includes(model)) {
    const config = resolveConfig(model, assignments(set ?? []));
    for (const { path, value, reason } of idleSettings(config, "params")) {
      process.stderr.write(`warning: ${path} = ${JSON.stringify(value)} changes nothing: ${reason}\n`);
    }
    return { name: model, model: config.model };
  }
  if (/\.ya?ml$/.test(model)) return { name: model, model: await runFileModel(model, set) };
  if (set !== undefined) {
    throw new ConfigError("--set", "must change a preset or a run file", model, "edit the config.json instead");
  }
  const { openModel } = await import("../blueprint/node.ts");
  const { source, isReleased, ...opened } = await openModel(model);
  if (isReleased || (source.kind !== "folder" && source.kind !== "gguf")) return opened;
  const { name, blueprint: plan } = opened;
  const format = source.kind === "gguf" ? "gguf" : "safetensors";
  return { name, model: opened.model, stored: { stored: countHeaders(plan, source.tensors, format) } };
}

async function runFileModel(path: string, set: readonly string[] = []): Promise<ModelConfig> {
  const { openConfig } = await import("./run-files.ts");
  return (await openConfig(path, assignments(set))).model;
}

async function showLayer(spec: string, model: string | undefined, options: ParamsOptions): Promise<void> {
  const opened = model === undefined ? undefined : await open(model, options);
  const count = countLayer(spec, opened === undefined ? undefined : blueprint(opened.model));
  if (options.json === true) return printJson({ name: opened?.name ?? null, ...layerJson(count) });
  const rows = count.terms.map(({ name, shape, times, elements }) => [
    name,
    times === 1 ? "" : `${times} ×`,
    `[${shape.join(", ")}]`,
    digits(elements),
  ]);
  if (rows.length > 0)
    print(formatTable({ head: ["tensor", "", "shape", "elements"], rows, left: [0] }, options.format));
  print(layerSummary(count, opened));
}

function layerSummary({ kind, total, activated, mask, modules }: LayerCount, opened: Opened | undefined): string {
  if (mask !== undefined) {
    return `mask: ${digits(mask.effective)} effective, ${digits(mask.stored)} stored, ${digits(mask.indexBytes)} bytes of index`;
  }
  if (opened !== undefined && modules !== undefined) {
    const share = percent(total / reportParameters(outline(opened.model)).total);
    return `${kind} on ${opened.name}: ${digits(total)} trainable parameters in ${digits(modules)} places, ${share} of the model`;
  }
  const active = activated === total ? "" : `, ${digits(activated)} activated`;
  return `${kind}: ${digits(total)} parameters${active}`;
}

function layerJson({ kind, total, activated, terms, mask, modules }: LayerCount): object {
  return {
    layer: kind,
    total,
    activated,
    terms,
    ...(modules === undefined ? {} : { modules }),
    ...(mask === undefined ? {} : { effective: mask.effective, stored: mask.stored, index_bytes: mask.indexBytes }),
  };
}

function showComparison({ name, model }: Opened, { format, json = false }: ParamsOptions): void {
  const claims = compareWithArticle(blueprint(model));
  if (json) {
    return printJson({
      name,
      rows: claims.map((row) => ({
        name: row.name,
        claimed: row.claimed,
        claimed_share: row.claimedShare,
        counted: row.counted,
        counted_share: row.countedShare,
        truth: row.truth,
      })),
    });
  }
  const rows = claims.map((row) => [
    row.name,
    `${row.claimed / 1e9} B`,
    `${(row.claimedShare * 100).toFixed(2)} %`,
    digits(row.counted),
    percent(row.countedShare),
    row.truth,
  ]);
  const head = ["module", "claimed", "share", name, "share", "truth"];
  print(formatTable({ head, rows, left: [0, 5] }, format));
}

function reportJson(report: ParameterReport): object {
  return {
    total: report.total,
    activated: report.activated,
    activated_without_embedding: report.activatedWithoutEmbedding,
    trainable: report.trainable,
    buffers: report.buffers,
    mtp: report.mtp,
    duplicates: report.duplicates,
    scales: report.scales,
    tables: report.tables,
    stored: {
      elements: report.stored.elements,
      bytes: report.stored.bytes,
      tensors: report.stored.tensors,
      by_dtype: report.stored.byDtype,
    },
    modules: report.modules.map(moduleJson),
  };
}

function moduleJson({ activeShare, modules, ...module }: ModuleReport): object {
  return {
    ...module,
    active_share: activeShare,
    ...(modules === undefined ? {} : { modules: modules.map(moduleJson) }),
  };
}

function printReport(name: string, report: ParameterReport, format: TableFormat): void {
  const { total, activated, activatedWithoutEmbedding } = report;
  const without = `${digits(activatedWithoutEmbedding)} without the embedding`;
  print(`${name}: ${digits(total)} parameters, ${digits(activated)} activated per token (${without})\n`);
  print(formatTable(moduleTable(report, format === "md" ? "· " : "  "), format));
  print("");
  print(formatTable({ head: ["beside them", "", ""], rows: besideRows(report), left: [0, 2] }, format));
}

/** @param step - what sets a part off from its module. */
function moduleTable({ modules, ...report }: ParameterReport, step: string): Table {
  const lines = (module: ModuleReport, level: number): string[][] => [
    [
      `${step.repeat(level)}${module.name}`,
      digits(module.total),
      percent(module.share),
      digits(module.activated),
      percent(module.activeShare),
      digits(module.trainable),
      digits(module.buffers),
      bytes(module.bytes),
    ],
    ...(module.modules ?? []).flatMap((part) => lines(part, level + 1)),
  ];
  const sum = modules.reduce((all, module) => all + module.bytes, 0);
  const rows = modules.flatMap((module) => lines(module, 0));
  const counts = [digits(report.trainable), digits(report.buffers), bytes(sum)];
  const total = ["total", digits(report.total), "100 %", digits(report.activated), "100 %", ...counts];
  return {
    head: ["module", "parameters", "share", "activated", "share", "trainable", "buffers", "stored"],
    rows: [...rows, total],
  };
}

function besideRows({ stored, ...report }: ParameterReport): string[][] {
  const types = Object.entries(stored.byDtype).map(([dtype, elements]) => `${dtype} ${digits(elements)}`);
  const rows: [string, number, string][] = [
    ["trainable", report.trainable, "reached by gradient"],
    ["buffers", report.buffers, "selection biases of the routers, in the total"],
    ["mtp", report.mtp, "of the MTP layers alone, not in the total"],
    ["duplicates", report.duplicates, "copies of embedding and head in the file"],
    ["scales", report.scales, "of quantised weights"],
    ["tables", report.tables, "integers that route by token id"],
    ["stored elements", stored.elements, types.join(", ")],
    [
      "stored bytes",
      stored.bytes,
      `${(stored.bytes / 1e9).toFixed(2)} GB, ${bytes(stored.bytes)}, ${digits(stored.tensors)} tensors`,
    ],
  ];
  return rows.filter(([, count]) => count > 0).map(([name, count, what]) => [name, digits(count), what]);
}

/** Bytes with a unit that leaves digits to read. */
function bytes(count: number): string {
  if (count >= 2 ** 20) return largeBytes(count);
  return count >= 2 ** 10 ? `${(count / 2 ** 10).toFixed(1)} KiB` : `${count} B`;
}

/** Four significant digits, so that small shares can be read. */
function percent(share: number): string {
  if (share === 0) return "0 %";
  const hundredths = share * 100;
  return `${hundredths < 1e-6 ? hundredths.toExponential(2) : Number(hundredths.toPrecision(4)).toString()} %`;
}
