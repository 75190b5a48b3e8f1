/** A checkpoint in one format to another, in slabs of rows: planned first, then written so that it can be gone on with. */

import { createHash } from "node:crypto";
import { stat, statfs } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import type { ModelConfig } from "../config/index.ts";
import { byteText, ConfigError, IoError } from "../core/errors.ts";
import type { FilePort } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { GGUF_DTYPES, planGguf, type GgufDType } from "./gguf-output.ts";
import { HF_DTYPES, planHf, type HfDType } from "./hf-output.ts";
import { ggufFirstPart, sumBytes, type OutputPlan } from "./plan.ts";
import { openSource, type Source, type SourceOptions } from "./source.ts";
import { Staging, stagedBytes } from "./staging.ts";

export interface ConvertOptions extends SourceOptions {
  /** A folder that does not exist yet, or a `.gguf` file. */
  readonly target: string;
  /** The type of matrices; see HF_DTYPES and GGUF_DTYPES. */
  readonly dtype: string;
  /** Bytes of tensors in one file. */
  readonly maxShardBytes?: number;
  /** Whether a folder holds the experts of a layer as two tensors. Default false. */
  readonly fusedExperts?: boolean;
}

export interface ConversionProgress {
  readonly file: string;
  /** Bytes written since the start, and those that are to be written. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** The surroundings; tests hand in their own. */
export interface ConvertPort {
  readonly files: FilePort;
  /** Bytes that can be written on the disk of a folder that exists. */
  readonly freeBytes: (folder: string) => Promise<number>;
}

const localDisk: ConvertPort = {
  files: nodeFiles,
  freeBytes: async (folder) => {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  },
};

/** Hugging Face's own default for safetensors. */
const HF_SHARD_BYTES = 5e9;

/**
 * @param written - a target like the conversion's own, in the folder in which the files stand for now.
 * @param digests - SHA-256 of every file by its name.
 */
export type CheckResult = (written: string, digests: ReadonlyMap<string, string>) => Promise<void>;

/** A conversion that is checked and ready; ends with `close`. */
export interface Conversion {
  readonly model: ModelConfig;
  readonly plan: OutputPlan;
  readonly bytes: number;
  /** Bytes of it that an unfinished conversion has written. */
  readonly doneBytes: number;
  readonly freeBytes: number;
  /**
   * Writes what is not there yet and gives the SHA-256 of every file.
   * @param check - called before the result gets its name, which it does not when this fails.
   * @throws IoError when the disk is too small, before anything is written, or refuses.
   */
  run(onProgress?: (progress: ConversionProgress) => void, check?: CheckResult): Promise<ReadonlyMap<string, string>>;
  close(): Promise<void>;
}

/**
 * Reads headers and decides what is written; no weight is read and nothing is written.
 * @throws ConfigError, FormatError, UnsupportedError, IoError when source and target do not fit each other.
 */
export async function planConversion(options: ConvertOptions, port = localDisk): Promise<Conversion> {
  checkDType(options);
  await checkTarget(options.target);
  const source = await openSource(options);
  try {
    const plan = await planOutput(options, source);
    const names = plan.files.map(({ name }) => name);
    await checkTarget(ggufFirstPart(options.target, names));
    const key = await keyOf(options, source);
    return {
      model: source.blueprint.model,
      plan,
      bytes: sumBytes(plan.files),
      doneBytes: await stagedBytes(port.files, options.target, key),
      freeBytes: await port.freeBytes(await existingFolder(options.target)),
      run: (onProgress, check) => runConversion(plan, { port, target: options.target, key, onProgress, check }),
      close: () => source.weights.close(),
    };
  } catch (error) {
    await source.weights.close();
    throw error;
  }
}

function isGguf({ target }: ConvertOptions): boolean {
  return target.endsWith(".gguf");
}

function checkDType(options: ConvertOptions): void {
  const known: readonly string[] = isGguf(options) ? GGUF_DTYPES : HF_DTYPES;
  if (known.includes(options.dtype)) return;
  const kind = isGguf(options) ? "a .gguf file" : "a folder";
  throw new ConfigError("--dtype", `must be one of ${known.join(", ")} for ${kind}`, options.dtype);
}

async function checkTarget(target: string): Promise<void> {
  const found = await stat(target).catch(() => undefined);
  if (found === undefined) return;
  throw new IoError(target, "must not exist yet", { cure: "choose another path, or remove it" });
}

async function planOutput(options: ConvertOptions, source: Source): Promise<OutputPlan> {
  const { blueprint, weights, tokenizer } = source;
  const { dtype, target, maxShardBytes, fusedExperts: fused = false } = options;
  if (!isGguf(options)) {
    const hf = { dtype: dtype as HfDType, maxShardBytes: maxShardBytes ?? HF_SHARD_BYTES, fused };
    return planHf(blueprint, weights, tokenizer, hf);
  }
  const [title, name] = [source.name, basename(target, ".gguf")];
  const gguf = { dtype: dtype as GgufDType, title, name, maxPartBytes: maxShardBytes ?? Infinity };
  return planGguf(blueprint, weights, tokenizer, gguf);
}

/** Changes when the source's weights, its model or the wishes do. */
async function keyOf(options: ConvertOptions, { files, blueprint }: Source): Promise<string> {
  const states = await Promise.all(files.map(async (file) => [resolve(file), ...(await sizeAndTime(file))]));
  const { dtype, maxShardBytes, fusedExperts, config } = options;
  const wishes = [dtype, maxShardBytes ?? null, fusedExperts ?? false, config ?? null];
  return createHash("sha256")
    .update(JSON.stringify([wishes, states, blueprint.model]))
    .digest("hex");
}

async function sizeAndTime(file: string): Promise<[number, number]> {
  const { size, mtimeMs } = await stat(file);
  return [size, mtimeMs];
}

/** The folder in which the target will stand, or the nearest above it that exists. */
async function existingFolder(target: string): Promise<string> {
  const parent = dirname(resolve(target));
  const found = await stat(parent).catch(() => undefined);
  return found?.isDirectory() === true || parent === dirname(parent) ? parent : existingFolder(parent);
}

interface Running {
  readonly port: ConvertPort;
  readonly target: string;
  readonly key: string;
  readonly onProgress: ((progress: ConversionProgress) => void) | undefined;
  readonly check: CheckResult | undefined;
}

async function runConversion(plan: OutputPlan, running: Running): Promise<ReadonlyMap<string, string>> {
  const { port, target, key, onProgress, check } = running;
  await checkSpace(plan, running);
  const staging = await Staging.open(port.files, target, key);
  const left = [];
  for (const file of plan.files) if (!(await staging.has(file.name))) left.push(file);
  const totalBytes = sumBytes(left);
  let doneBytes = 0;
  for (const file of left) {
    await staging.write(file, (bytes) => {
      doneBytes += bytes;
      onProgress?.({ file: file.name, doneBytes, totalBytes });
    });
  }
  const { digests } = staging;
  await check?.(staging.written, digests);
  await staging.finish();
  return digests;
}

/** Headers and the rounding of file systems come on top of the tensors. */
const SPARE_BYTES = 2 ** 24;

async function checkSpace(plan: OutputPlan, { port, target, key }: Running): Promise<void> {
  const needed = sumBytes(plan.files) - (await stagedBytes(port.files, target, key)) + SPARE_BYTES;
  const folder = await existingFolder(target);
  const free = await port.freeBytes(folder);
  if (free >= needed) return;
  const cure = "free some disk space, choose another disk or a smaller --dtype";
  const rule = `must have ${byteText(needed)} free, of which ${byteText(SPARE_BYTES)} are for headers and the file system, not ${byteText(free)}`;
  throw new IoError(folder, rule, { cure });
}
