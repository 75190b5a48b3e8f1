/**
 * Checkpoints: a run folder holds one Hugging Face model folder per saved step, with `trainer/` for what only training
 * needs, and `latest`, which names the newest. A checkpoint appears under its name only when all of it is on the disk;
 * then `latest` is replaced; then old ones go.
 */

import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import {
  configHash,
  diffConfigs,
  isHashOf,
  hfConfigText,
  toJson,
  type GenerationConfig,
  type ResolvedConfig,
  type RunConfig,
} from "../config/index.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import { readText, writeSafetensors, writeWhole, type FilePort, type TensorSource } from "../formats/index.ts";
import { nodeFiles, openSafetensors } from "../formats/node.ts";
import { loadWeights, readTensor, tensorSource, weightSources } from "../model/index.ts";
import { LATEST, readModelConfig, resolveModelFolder } from "../model/node.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import { loadTokenizer } from "../tokenizer/node.ts";
import type { Trainer, TrainerState } from "./trainer.ts";

/** What a run was trained on, so that it can be opened again. */
export type DataReference =
  | { readonly kind: "corpus"; readonly name: string }
  | { readonly kind: "files"; readonly patterns: readonly string[]; readonly cwd: string };

export interface RunDescription {
  readonly config: RunConfig;
  readonly data: DataReference;
  /** Hash of the tokens trained on. */
  readonly dataset: string;
  readonly tokenizer: Tokenizer;
}

interface StateFile extends TrainerState {
  readonly version: 1;
  readonly config: string;
  readonly data: DataReference;
  readonly dataset: string;
}

const STATE = "trainer/state.json";
const MOMENTS = "trainer/optimizer.safetensors";

/** Names of checkpoints sort by step. */
function nameOf(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The checkpoints of one run. */
export class CheckpointFolder {
  readonly path: string;
  readonly #keepLast: number;
  readonly #port: FilePort;

  constructor(path: string, keepLast: number, port: FilePort = nodeFiles) {
    this.path = path;
    this.#keepLast = keepLast;
    this.#port = port;
  }

  /** Makes the run folder, so that a path that can not be one is refused before any training. @throws IoError */
  async create(): Promise<void> {
    await this.#port.makeFolder(this.path);
  }

  /**
   * Writes the trainer's present state.
   *
   * @returns the checkpoint's path.
   * @throws IoError when the disk refuses, NumericError when a weight or moment is not finite; earlier checkpoints and
   * `latest` are as before.
   */
  async save(trainer: Trainer, run: RunDescription): Promise<string> {
    await trainer.checkFinite();
    const name = nameOf(trainer.state.step);
    const target = join(this.path, name);
    // A name of its own, so that what another process writes never mixes with it.
    const mark = `.tmp-${randomBytes(4).toString("hex")}`;
    const unfinished = target + mark;
    const port = this.#port;
    await this.create();
    await this.#removeUnfinished();
    try {
      await writeCheckpoint(port, unfinished, trainer, run);
      await port.remove(target);
      await port.rename(unfinished, target);
      await port.syncFolder(this.path);
    } catch (error) {
      await port.remove(unfinished).catch(() => undefined);
      throw error;
    }
    await writeWhole(port, join(this.path, LATEST), [text(`${name}\n`)], mark);
    await this.#removeOld(name);
    return target;
  }

  /** Deletes what a killed run left: a run folder has one writer at a time. */
  async #removeUnfinished(): Promise<void> {
    const names = await this.#port.list(this.path);
    const unfinished = names.filter((name) => /^(step-\d+|latest)\.tmp-[0-9a-f]+$/.test(name));
    for (const name of unfinished) await this.#port.remove(join(this.path, name));
  }

  /** Deletes checkpoints beyond the newest keepLast. */
  async #removeOld(newest: string): Promise<void> {
    const names = (await this.#port.list(this.path)).filter((name) => /^step-\d+$/.test(name) && name <= newest);
    for (const name of names.slice(0, -this.#keepLast)) await this.#port.remove(join(this.path, name));
  }
}

async function writeCheckpoint(port: FilePort, folder: string, trainer: Trainer, run: RunDescription): Promise<void> {
  const { model, optimizer } = trainer;
  const { tokenizer, config } = run;
  await port.makeFolder(join(folder, "trainer"));
  const tokens = { bos: tokenizer.bosId, eos: tokenizer.eosId };
  const state: StateFile = {
    version: 1,
    ...trainer.state,
    config: configHash(config),
    data: run.data,
    dataset: run.dataset,
  };
  const files: [string, string][] = [
    // The weights are stored as they are trained.
    ["config.json", hfConfigText({ ...config.model, dtype: "f32", scaleFmt: null }, tokens)],
    ["generation_config.json", pretty(hfGeneration(config.generation, tokens))],
    ["tokenizer.json", tokenizer.toJson()],
    ["tokenizer_config.json", tokenizer.toConfigJson()],
    ["fathom.json", toJson(config)],
    [STATE, pretty(state)],
  ];
  for (const [name, content] of files) await writeWhole(port, join(folder, name), [text(content)]);
  await writeSafetensors(port, join(folder, "model.safetensors"), weightSources(config.model, model.parameters));
  const moments: TensorSource[] = optimizer.moments.flatMap(({ name, m, v }) => [
    tensorSource(`m.${name}`, m),
    tensorSource(`v.${name}`, v),
  ]);
  await writeSafetensors(port, join(folder, MOMENTS), moments);
  await port.syncFolder(folder);
}

/** The object that `generation_config.json` holds; transformers wants no temperature where nothing is drawn. */
function hfGeneration(settings: GenerationConfig, tokens: { bos: number; eos: number }): Record<string, unknown> {
  const { maxTokens, temperature, topK, topP, repetitionPenalty } = settings;
  return {
    bos_token_id: tokens.bos,
    eos_token_id: tokens.eos,
    max_new_tokens: maxTokens,
    repetition_penalty: repetitionPenalty,
    ...(temperature === 0 ? { do_sample: false } : { do_sample: true, temperature, top_k: topK, top_p: topP }),
  };
}

function pretty(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

/** Settings that may differ when a run goes on: they change neither the numbers of a step nor their order. */
const MAY_CHANGE = new Set([
  "training.steps",
  "training.eval_every",
  "training.checkpoint_every",
  "training.keep_last",
  "runtime.threads",
]);

/** A checkpoint to go on from. */
export class SavedRun {
  readonly path: string;
  readonly config: ResolvedConfig;
  readonly state: TrainerState;
  readonly data: DataReference;
  readonly #dataset: string;

  private constructor(path: string, config: ResolvedConfig, state: StateFile) {
    this.path = path;
    this.config = config;
    this.state = state;
    this.data = state.data;
    this.#dataset = state.dataset;
  }

  /** @throws IoError or FormatError when the folder is not a whole checkpoint of a training run. */
  static async open(path: string): Promise<SavedRun> {
    const folder = await resolveModelFolder(path);
    const file = join(folder, STATE);
    if (!(await nodeFiles.isFile(file))) {
      throw new FormatError(folder, `must hold ${STATE}`, {
        cure: "only a folder that fathom train wrote can be resumed",
      });
    }
    const config = await readModelConfig(folder);
    const state = parseState(await readText(nodeFiles, file), file);
    const own = join(folder, "fathom.json");
    if (!isHashOf(state.config, config, await readText(nodeFiles, own))) {
      throw new FormatError(own, "must be the configuration that the run was saved with", {
        got: configHash(config),
        cure: "restore the file; settings change on the command line",
      });
    }
    return new SavedRun(folder, config, state);
  }

  /** The folder that holds this checkpoint and its neighbours. */
  get runFolder(): string {
    return dirname(this.path);
  }

  tokenizer(): Promise<Tokenizer> {
    return loadTokenizer(this.path);
  }

  /** @throws ConfigError when a setting differs that would make another run of this one. */
  checkConfig(config: RunConfig): void {
    const change = diffConfigs(this.config, config).find(({ path }) => !MAY_CHANGE.has(path));
    if (change === undefined) return;
    const rule = `must stay ${JSON.stringify(change.before)} when a run is resumed`;
    throw new ConfigError(change.path, rule, change.after, `only ${[...MAY_CHANGE].join(", ")} may change`);
  }

  /** @throws ConfigError when the text or the tokenizer is not the one that the run began with. */
  checkData(dataset: string): void {
    if (dataset === this.#dataset) return;
    const cure = "restore the text files, or start a new run";
    throw new ConfigError("data", `must be the text that the run began with (${this.#dataset})`, dataset, cure);
  }

  /** Loads weights, moments and place into a trainer of this configuration. */
  async restore(trainer: Trainer): Promise<void> {
    const weights = await openSafetensors(join(this.path, "model.safetensors"));
    try {
      await loadWeights(this.config.model, trainer.model.parameters, weights, this.path);
    } finally {
      await weights.close();
    }
    const file = join(this.path, MOMENTS);
    const moments = await openSafetensors(file);
    try {
      for (const { name, m, v } of trainer.optimizer.moments) {
        for (const [key, tensor] of [
          [`m.${name}`, m],
          [`v.${name}`, v],
        ] as const) {
          const found = moments.tensors.get(key);
          if (found === undefined || found.bytes !== tensor.bytes || found.dtype !== "F32") {
            const got = found === undefined ? "none" : `${found.dtype} [${found.shape.join(", ")}]`;
            throw new FormatError(file, `must hold ${key} as F32 [${tensor.shape.join(", ")}]`, { got });
          }
          await readTensor(moments, key, tensor);
        }
      }
    } finally {
      await moments.close();
    }
    trainer.restore(this.state);
  }
}

function parseState(content: string, file: string): StateFile {
  const state = parseJson(content, file) as Partial<StateFile> | null;
  const valid =
    state?.version === 1 &&
    Number.isSafeInteger(state.step) &&
    Number.isSafeInteger(state.tokens) &&
    Number.isSafeInteger(state.position?.epoch) &&
    Number.isSafeInteger(state.position?.index) &&
    typeof state.config === "string" &&
    typeof state.dataset === "string" &&
    (state.data?.kind === "corpus" || state.data?.kind === "files");
  if (!valid)
    throw new FormatError(file, "must be a trainer state of version 1", { got: state?.version ?? "another file" });
  return state as StateFile;
}

function parseJson(content: string, file: string): unknown {
  try {
    return JSON.parse(content);
  } catch (error) {
    throw new FormatError(file, "must be JSON", {
      got: (error as Error).message,
      cure: "resume from an earlier checkpoint",
    });
  }
}
