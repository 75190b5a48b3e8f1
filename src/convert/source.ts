/** What is converted: a checkpoint of any kind that is read, with its tokenizer, and an adapter if there is one. */

import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { blueprint as blueprintOf, type Blueprint } from "../blueprint/index.ts";
import { openModel, readModel } from "../blueprint/node.ts";
import { ConfigError, IoError } from "../core/errors.ts";
import { nodeFiles } from "../formats/node.ts";
import { mergeAdapter } from "./adapter.ts";
import { demoFiles, openDemo } from "./demo-weights.ts";
import type { ModelWeights } from "./model-weights.ts";
import { openWeights } from "./open-weights.ts";
import { readTokenizer, type SourceTokenizer } from "./source-tokenizer.ts";

export interface Source {
  readonly name: string;
  readonly blueprint: Blueprint;
  readonly weights: ModelWeights;
  readonly tokenizer: SourceTokenizer;
  /** All files with weights. */
  readonly files: readonly string[];
}

export interface SourceOptions {
  /** A checkpoint folder or a `.gguf` file. */
  readonly source: string;
  /** Folder of a PEFT adapter to merge. */
  readonly adapter?: string;
  /** The model of a folder that DeepSeek's demo runs from: a preset or a config.json. Default: the folder's own. */
  readonly config?: string;
}

/**
 * Opens and checks: every parameter has its tensors, of a type that is read, with its scales. No weight is read.
 * @throws ConfigError, FormatError, UnsupportedError, IoError when there is no such checkpoint, or a part of it is bad.
 */
export async function openSource(options: SourceOptions): Promise<Source> {
  const base = await openBase(options);
  try {
    for (const { name } of base.blueprint.parameters) base.weights.of(name);
    if (options.adapter === undefined) return base;
    const { weights, files } = await mergeAdapter(base.weights, options.adapter, base.blueprint);
    return { ...base, weights, files: [...base.files, ...files] };
  } catch (error) {
    await base.weights.close();
    throw error;
  }
}

async function openBase({ source: path, config }: SourceOptions): Promise<Source> {
  const found = await stat(path).catch(() => undefined);
  const ranks = found?.isDirectory() === true ? await demoFiles(path) : [];
  if (found === undefined) {
    throw new ConfigError("source", "must be the path of a checkpoint folder or a .gguf file", path, "check the path");
  }
  if (ranks.length > 0) return openRanks(path, ranks, config);
  if (config !== undefined) {
    const rule = "acts only with a folder model{rank}-mp{world}.safetensors of DeepSeek's demo";
    throw new ConfigError("--config", rule, config, "leave it out");
  }
  const opened = await openModel(path);
  const weights = await openWeights(opened);
  const { name, blueprint, source } = opened;
  const tensors = "tensors" in source ? [...source.tensors.values()] : [];
  const files = [...new Set(tensors.map(({ file }) => file))];
  const tokenizer = await readTokenizer("path" in source ? source.path : path);
  return { name, blueprint, weights, tokenizer, files };
}

/** The demo's own converter leaves MTP layers out. */
async function openRanks(path: string, ranks: readonly string[], config: string | undefined): Promise<Source> {
  if (config === undefined && !(await nodeFiles.isFile(join(path, "config.json")))) {
    const cure = "name its model: --config deepseek-v3, or the path of a config.json";
    throw new IoError(path, "must hold a config.json, which folders of DeepSeek's demo have not", { cure });
  }
  const { model } = await readModel(config ?? path);
  const plan = blueprintOf({ ...model, nMtpLayers: 0 });
  const weights = await openDemo(ranks, plan);
  return { name: basename(path), blueprint: plan, weights, tokenizer: await readTokenizer(path), files: ranks };
}
