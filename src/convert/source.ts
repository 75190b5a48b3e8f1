/** What is converted: a checkpoint of any kind that is read, with its tokenizer, and an adapter if there is one. */

import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { blueprint as blueprintOf, type Blueprint } from "../blueprint/index.ts";
import { openModel, readModel } from "../blueprint/node.ts";
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

/** @throws ConfigError, FormatError, UnsupportedError, IoError when there is no such checkpoint, or a part of it is bad. */
export async function openSource(options: SourceOptions): Promise<Source> {
  const base = await openBase(options);
  if (options.adapter === undefined) return base;
  try {
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
  if (ranks.length > 0) {
    // The demo's converter leaves MTP layers out.
    const { model } = await readModel(config ?? path);
    const plan = blueprintOf({ ...model, nMtpLayers: 0 });
    const weights = await openDemo(ranks, plan);
    return { name: basename(path), blueprint: plan, weights, tokenizer: await readTokenizer(path), files: ranks };
  }
  const opened = await openModel(path);
  const weights = await openWeights(opened);
  const { name, blueprint, source } = opened;
  const tensors = "tensors" in source ? [...source.tensors.values()] : [];
  const files = [...new Set(tensors.map(({ file }) => file))];
  const tokenizer = await readTokenizer("path" in source ? source.path : path);
  return { name, blueprint, weights, tokenizer, files };
}
