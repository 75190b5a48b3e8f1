/**
 * The model's settings from the metadata of a GGUF file. Plain keys come from the rows' aliases; what the architectures
 * of llama.cpp imply, and what only the tensors tell, is here.
 *
 * **Source:** ggml-org/llama.cpp conversion/deepseek.py (writer) and src/models/deepseek*.cpp (loaders).
 */

import { ConfigError } from "../core/errors.ts";
import { FAMILY_ROWS } from "./family-rows.ts";
import { MODEL_ROWS } from "./model-rows.ts";
import type { Row } from "./row.ts";
import type { ModelSettings } from "./rows.ts";

/** What is read of a file: metadata as plain values, lists of one value for each layer included, and tensors' shapes. */
export interface GgufFacts {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, unknown>;
  /** Shape of a tensor, outermost axis first; undefined when the file has none of this name. */
  readonly shapeOf: (name: string) => readonly number[] | undefined;
}

type Settings = Record<string, unknown>;

/** What each architecture of llama.cpp implies. */
const ARCHITECTURES: Readonly<Record<string, Partial<ModelSettings>>> = {
  llama: { attention: "gqa", ropeInterleave: false, scoreFunc: "softmax", nDenseLayers: 0 },
  deepseek: { attention: "gqa", ropeInterleave: false, scoreFunc: "softmax", normTopkProb: false },
  deepseek2: { attention: "mla" },
  deepseek32: { attention: "mla" },
  deepseek4: { attention: "csa", nDenseLayers: 0, mscale: 0, mscaleAllDim: 0 },
};

/** Numbers of `expert_gating_func`. **Source:** ggml-org/llama.cpp src/llama-hparams.h. */
export const GGUF_GATING = { softmax: 1, sigmoid: 2, sqrtsoftplus: 4 } as const;

/** Settings with a key of their own, as [name, key]. */
const KEYS: readonly (readonly [name: string, key: string])[] = Object.entries<Row>({ ...MODEL_ROWS, ...FAMILY_ROWS })
  .map(([name, row]) => [name, row.aliases?.gguf] as const)
  .filter((pair): pair is readonly [string, string] => pair[1] !== undefined);

/** Keys without which a model cannot be known, for every architecture. */
const REQUIRED: readonly (keyof ModelSettings)[] = ["dim", "nLayers", "nHeads", "maxSeqLen"];

const YARN_KEYS = ["originalSeqLen", "betaFast", "betaSlow"];

/**
 * Settings ready for `resolveConfig({ model })`.
 * @throws ConfigError when the file is of another architecture, or lacks a key.
 */
export function fromGguf(facts: GgufFacts): Partial<ModelSettings> {
  const arch = architectureOf(facts);
  const implied = ARCHITECTURES[arch]!;
  const settings: Settings = { ...implied, ...plainSettings(facts, arch) };
  for (const name of REQUIRED) {
    if (settings[name] === undefined) throw absent(facts, `${arch}.${KEYS.find(([own]) => own === name)![1]}`);
  }
  setVocabulary(settings, facts);
  setRouting(settings, facts, arch);
  setHeads(settings, facts, arch, implied.attention!);
  setRope(settings, facts, arch);
  setMtp(settings, facts, arch);
  return settings;
}

function architectureOf({ file, metadata }: GgufFacts): string {
  const arch = metadata.get("general.architecture");
  if (typeof arch === "string" && Object.hasOwn(ARCHITECTURES, arch)) return arch;
  const known = Object.keys(ARCHITECTURES).join(", ");
  throw new ConfigError(`${file} general.architecture`, `must be one of ${known}`, arch ?? "none");
}

function absent({ file }: GgufFacts, key: string): ConfigError {
  return new ConfigError(`${file} ${key}`, "must be given", undefined, "convert the model to GGUF again");
}

function plainSettings({ file, metadata }: GgufFacts, arch: string): Settings {
  const settings: Settings = {};
  for (const [name, key] of KEYS) {
    const value = metadata.get(`${arch}.${key}`);
    if (value === undefined) continue;
    settings[name] = name === "compressRatios" ? value : plainValue(value, `${file} ${arch}.${key}`);
  }
  return settings;
}

/** One value; a list says it for each layer, and all must agree. */
function plainValue(value: unknown, place: string): unknown {
  if (!Array.isArray(value)) return typeof value === "number" ? shortDecimal(value) : value;
  if (value.some((item) => item !== value[0])) {
    throw new ConfigError(
      place,
      "must be the same in every layer",
      value,
      "models with layers of several kinds are not known",
    );
  }
  return plainValue(value[0], place);
}

/** GGUF has numbers in f32: 1e-6 stands there as 9.99999997e-7. The shortest decimal that is the same f32. */
function shortDecimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const candidate = Number(value.toPrecision(digits));
    if (Math.fround(candidate) === value) return candidate;
  }
  return value;
}

/** Rows of the embedding count, not tokens: files may hold fewer tokens than rows. */
function setVocabulary(settings: Settings, facts: GgufFacts): void {
  const rows = facts.shapeOf("token_embd.weight")?.[0];
  if (rows === undefined) throw absent(facts, "token_embd.weight");
  settings.vocabSize = rows;
  settings.tieEmbeddings = facts.shapeOf("output.weight") === undefined;
}

function setRouting(settings: Settings, { file, metadata }: GgufFacts, arch: string): void {
  const experts = settings.nRoutedExperts;
  if (arch === "llama" && experts !== undefined && experts !== 0) {
    const withExperts = Object.keys(ARCHITECTURES).filter((name) => name !== "llama");
    throw new ConfigError(
      `${file} llama.expert_count`,
      "must be 0: experts of other families are not known",
      experts,
      `take a model with experts of ${withExperts.join(", ")}`,
    );
  }
  if (settings.nRoutedExperts === undefined || settings.nRoutedExperts === 0) {
    Object.assign(settings, { nRoutedExperts: 0, nActivatedExperts: 0, nSharedExperts: 0 });
    settings.nDenseLayers = settings.nLayers;
  }
  // What the loader of llama.cpp takes where a file is silent.
  settings.nSharedExperts ??= 0;
  settings.nDenseLayers ??= 0;
  settings.routeScale ??= 1;
  if (arch === "deepseek") {
    // Softmax without normalisation whatever the keys say, as its loader has it.
    Object.assign(settings, ARCHITECTURES.deepseek);
    return;
  }
  const gating = metadata.get(`${arch}.${MODEL_ROWS.scoreFunc.aliases.gguf}`);
  const scoreFunc = Object.entries(GGUF_GATING).find(([, number]) => number === gating)?.[0];
  settings.scoreFunc = gating === undefined ? "softmax" : (scoreFunc ?? gating);
  settings.normTopkProb ??= false;
}

function setHeads(settings: Settings, facts: GgufFacts, arch: string, attention: ModelSettings["attention"]): void {
  const number = (key: string): number | undefined =>
    facts.metadata.get(`${arch}.attention.${key}`) as number | undefined;
  if (attention === "mla") {
    delete settings.headDim;
    delete settings.nKvHeads;
    settings.qLoraRank ??= 0;
    const [key, value] = [
      number("key_length_mla") ?? number("key_length"),
      number("value_length_mla") ?? number("value_length"),
    ];
    if (key === undefined) throw absent(facts, `${arch}.attention.key_length_mla`);
    settings.qkNopeHeadDim = key - (settings.qkRopeHeadDim as number);
    settings.vHeadDim = value;
  } else if (attention === "gqa") {
    // Whole heads are rotated, and the defaults follow from head_dim.
    delete settings.qkRopeHeadDim;
  }
}

/** YaRN with `yarn_log_multiplier` = 0.1 · mscale_all_dim; without it only cos and sin are scaled. */
function setRope(settings: Settings, { file, metadata }: GgufFacts, arch: string): void {
  const type = metadata.get(`${arch}.rope.scaling.type`) ?? "none";
  if (type !== "yarn") {
    if (type !== "none") throw new ConfigError(`${file} ${arch}.rope.scaling.type`, "must be yarn or none", type);
    settings.ropeFactor = 1;
    for (const key of YARN_KEYS) delete settings[key];
    return;
  }
  if (settings.mscale !== undefined) return;
  const multiplier = metadata.get(`${arch}.rope.scaling.yarn_log_multiplier`) as number | undefined;
  settings.mscaleAllDim = multiplier === undefined ? 0 : Number((10 * shortDecimal(multiplier)).toPrecision(7));
  settings.mscale = settings.mscaleAllDim === 0 ? 1 : settings.mscaleAllDim;
}

/** `block_count` counts MTP layers, and a file may leave their tensors out. */
function setMtp(settings: Settings, { shapeOf }: GgufFacts, arch: string): void {
  const mtp = (settings.nMtpLayers as number | undefined) ?? 0;
  settings.nLayers = (settings.nLayers as number) - mtp;
  settings.nMtpLayers = shapeOf(`blk.${String(settings.nLayers)}.nextn.eh_proj.weight`) === undefined ? 0 : mtp;
  if (arch !== "deepseek4") return;
  const layers = (settings.nLayers as number) + (settings.nMtpLayers as number);
  if (Array.isArray(settings.compressRatios)) settings.compressRatios = settings.compressRatios.slice(0, layers);
}
