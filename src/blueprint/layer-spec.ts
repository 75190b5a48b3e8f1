/**
 * A layer described in one word, `attention:dim=512,heads=8`, and counted by its formula. LoRA, DoRA and adapters can
 * also be laid over a model: `lora:rank=16,on=attention`.
 */

import { ConfigError, nearest } from "../core/errors.ts";
import type { Blueprint } from "./blueprint.ts";
import type { ModuleCount } from "./counts.ts";
import * as formulas from "./formulas.ts";
import { countElements } from "./parameter.ts";
import { countAdapters, countLowRank, findMatrices, type AddedCount } from "./tuned-parts.ts";

export interface LayerCount extends ModuleCount {
  readonly kind: string;
  /** The tensors that were added up; `elements` counts all `times` of them. */
  readonly terms: readonly {
    readonly name: string;
    readonly shape: readonly number[];
    readonly times: number;
    readonly elements: number;
  }[];
  /** Of a mask: what is used, what is stored, and what says where it belongs. */
  readonly mask?: formulas.MaskCount;
  /** Of an addition to a model: how many matrices or places carry it. */
  readonly modules?: number;
}

/** The sizes of one layer by name, read with a check. */
class Sizes {
  readonly #kind: string;
  readonly #given: Map<string, string>;
  readonly #known: readonly string[];

  constructor(kind: string, given: Map<string, string>, known: readonly string[]) {
    this.#kind = kind;
    this.#given = given;
    this.#known = known;
  }

  /** A whole number; without a default it must be given. */
  whole(name: string, byDefault?: number, { min = 1, max = Number.MAX_SAFE_INTEGER } = {}): number {
    const text = this.#given.get(name);
    if (text === undefined && byDefault !== undefined) return byDefault;
    const value = numberOf(text);
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    const bounds = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw this.#wrong(name, `must be a whole number ${bounds}`, text);
  }

  share(name: string): number {
    const text = this.#given.get(name);
    const value = numberOf(text);
    if (value >= 0 && value <= 1) return value;
    throw this.#wrong(name, "must be a number from 0 to 1", text);
  }

  flag(name: string, byDefault: boolean): boolean {
    return this.choice(name, ["true", "false"] as const, byDefault ? "true" : "false") === "true";
  }

  choice<T extends string>(name: string, choices: readonly T[], byDefault: T): T {
    const text = this.#given.get(name) ?? byDefault;
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw this.#wrong(name, `must be ${choices.join(" or ")}`, text);
  }

  /** Names joined by `+`. */
  names(name: string, byDefault: string): string[] {
    return (this.#given.get(name) ?? byDefault).split("+");
  }

  #wrong(name: string, rule: string, got = "nothing"): ConfigError {
    return new ConfigError(`--layer ${this.#kind} ${name}`, rule, got, sizesText(this.#kind, this.#known));
  }
}

/** Hears which sizes a layer asks for. */
class SizeNames extends Sizes {
  readonly asked: string[] = [];

  constructor() {
    super("", new Map(), []);
  }

  override whole(name: string): number {
    return this.#hear(name, 1);
  }

  override share(name: string): number {
    return this.#hear(name, 1);
  }

  override flag(name: string, byDefault: boolean): boolean {
    return this.#hear(name, byDefault);
  }

  override choice<T extends string>(name: string, _choices: readonly T[], byDefault: T): T {
    return this.#hear(name, byDefault);
  }

  override names(name: string, byDefault: string): string[] {
    return this.#hear(name, byDefault.split("+"));
  }

  #hear<T>(name: string, value: T): T {
    this.asked.push(name);
    return value;
  }
}

/** The names of the sizes that a layer reads. */
function sizeNames(read: (sizes: Sizes) => unknown): string[] {
  const names = new SizeNames();
  read(names);
  return names.asked;
}

function sizesText(kind: string, names: readonly string[]): string {
  return `${kind} takes ${names.join(", ")}`;
}

function numberOf(text: string | undefined): number {
  return text === undefined || text.trim() === "" ? Number.NaN : Number(text);
}

/** Layers of an encoder are listed one by one. */
const MAX_LAYERS = 10_000;

/** Every layer that can be counted on its own, by name. */
const LAYERS: Readonly<Record<string, (sizes: Sizes) => formulas.Term[]>> = {
  dense: (s) => formulas.dense({ in: s.whole("in"), out: s.whole("out"), bias: s.flag("bias", true) }),
  conv: (s) =>
    formulas.convolution({
      height: s.whole("height", 3),
      width: s.whole("width", 3),
      in: s.whole("in"),
      out: s.whole("out"),
      bias: s.flag("bias", true),
    }),
  attention: (s) => {
    const dim = s.whole("dim");
    const heads = s.whole("heads");
    const headDim = s.whole("head_dim", dim % heads === 0 ? dim / heads : undefined);
    const kvHeads = s.whole("kv_heads", heads);
    if (heads % kvHeads !== 0) throw new ConfigError("--layer kv_heads", `must divide heads (${heads})`, kvHeads);
    return formulas.attention({ dim, heads, kvHeads, headDim, bias: s.flag("bias", false) });
  },
  mla: (s) =>
    formulas.latentAttention({
      dim: s.whole("dim"),
      heads: s.whole("heads"),
      qLoraRank: s.whole("q_lora_rank", 0, { min: 0 }),
      kvLoraRank: s.whole("kv_lora_rank", 512),
      qkNopeHeadDim: s.whole("qk_nope_head_dim", 128),
      qkRopeHeadDim: s.whole("qk_rope_head_dim", 64),
      vHeadDim: s.whole("v_head_dim", 128),
    }),
  swiglu: (s) => formulas.gatedFeedForward({ dim: s.whole("dim"), hidden: s.whole("hidden") }),
  mlp: (s) => formulas.feedForward({ dim: s.whole("dim"), hidden: s.whole("hidden"), bias: s.flag("bias", true) }),
  moe: (s) => {
    const experts = s.whole("experts");
    const activated = s.whole("activated");
    if (activated > experts)
      throw new ConfigError("--layer activated", `must be at most experts (${experts})`, activated);
    return formulas.mixtureOfExperts({
      dim: s.whole("dim"),
      hidden: s.whole("hidden"),
      experts,
      activated,
      shared: s.whole("shared", 0, { min: 0 }),
      bias: s.flag("bias", false),
    });
  },
  embedding: (s) =>
    formulas.embedding({
      vocab: s.whole("vocab"),
      dim: s.whole("dim"),
      tied: s.flag("tied", false),
      positions: s.whole("positions", 0, { min: 0 }),
    }),
  encoder: (s) => {
    const dim = s.whole("dim");
    const heads = s.whole("heads");
    if (dim % heads !== 0) throw new ConfigError("--layer heads", `must divide dim (${dim})`, heads);
    const layers = s.whole("layers", 1, { max: MAX_LAYERS });
    return formulas.encoderLayers({ dim, heads, hidden: s.whole("hidden"), layers, shared: s.flag("shared", false) });
  },
  vit: (s) =>
    formulas.visionTransformer({
      width: s.whole("width"),
      layers: s.whole("layers"),
      hidden: s.whole("hidden"),
      patch: s.whole("patch"),
      image: s.whole("image"),
      pooling: s.flag("pooling", false),
    }),
  projector: (s) => formulas.visionProjector({ in: s.whole("in"), dim: s.whole("dim") }),
  lora: (s) => formulas.lora({ in: s.whole("in"), out: s.whole("out"), rank: s.whole("rank") }),
  dora: (s) => formulas.dora({ in: s.whole("in"), out: s.whole("out"), rank: s.whole("rank") }),
  adapter: (s) =>
    formulas.adapter({ dim: s.whole("dim"), bottleneck: s.whole("bottleneck"), bias: s.flag("bias", true) }),
};

/** What can be laid over a model. */
const ADDITIONS: Readonly<Record<string, (sizes: Sizes, blueprint: Blueprint) => AddedCount>> = {
  lora: (s, blueprint) => lowRank(s, blueprint, "lora"),
  dora: (s, blueprint) => lowRank(s, blueprint, "dora"),
  adapter: (s, blueprint) =>
    countAdapters(blueprint, { bottleneck: s.whole("bottleneck"), bias: s.flag("bias", true) }),
};

function lowRank(sizes: Sizes, blueprint: Blueprint, kind: "lora" | "dora"): AddedCount {
  const matrices = findMatrices(blueprint, sizes.names("on", "attention"));
  return countLowRank(matrices, { rank: sizes.whole("rank"), kind });
}

function layerKinds(): string[] {
  return [...Object.keys(LAYERS), "mask"];
}

/** Every kind with its sizes: `dense: in, out, bias`. */
export function layerHelp(): string[] {
  return Object.entries({ ...LAYERS, mask: maskSizes }).map(([kind, read]) => `${kind}: ${sizeNames(read).join(", ")}`);
}

/**
 * The parameters of a layer.
 *
 * @param spec - kind, then sizes: `dense:in=768,out=3072`. A flag alone is true.
 * @param blueprint - a model that carries a lora, dora or adapter.
 * @throws ConfigError for an unknown layer or size, or a size out of range.
 */
export function countLayer(spec: string, blueprint?: Blueprint): LayerCount {
  const [kind = "", text = ""] = splitOnce(spec, ":");
  if (blueprint !== undefined) return countAddition(kind, text, blueprint);
  if (kind === "mask") return countMask(readSizes(kind, text, maskSizes));
  if (!Object.hasOwn(LAYERS, kind)) throw unknownLayer(kind, layerKinds());
  const terms = readSizes(kind, text, LAYERS[kind]!);
  return { kind, ...formulas.countTerms(terms), terms: listTerms(terms) };
}

/** What a layer makes of its sizes. @throws ConfigError for a size that the layer does not have. */
function readSizes<T>(kind: string, text: string, read: (sizes: Sizes) => T): T {
  const known = sizeNames(read);
  const given = parseSizes(kind, text, known);
  return read(new Sizes(kind, given, known));
}

function countAddition(kind: string, text: string, blueprint: Blueprint): LayerCount {
  if (!Object.hasOwn(ADDITIONS, kind)) throw unknownAddition(kind);
  const { total, modules } = readSizes(kind, text, (sizes) => ADDITIONS[kind]!(sizes, blueprint));
  return { kind, total, activated: total, terms: [], modules };
}

type MaskSizes = Parameters<typeof formulas.maskedMatrix>[0];

function maskSizes(sizes: Sizes): MaskSizes {
  return {
    in: sizes.whole("in"),
    out: sizes.whole("out"),
    density: sizes.share("density"),
    format: sizes.choice("format", ["dense", "csr", "2:4"], "dense"),
  };
}

function countMask(sizes: MaskSizes): LayerCount {
  const mask = formulas.maskedMatrix(sizes);
  return { kind: "mask", total: mask.stored, activated: mask.effective, terms: [], mask };
}

/** Any other layer is counted from its sizes alone. */
function unknownAddition(kind: string): ConfigError {
  const known = Object.keys(ADDITIONS);
  if (!layerKinds().includes(kind)) return unknownLayer(kind, known);
  const rule = `must be one of ${known.join(", ")} where a model is named`;
  return new ConfigError("--layer", rule, kind, `leave the model out: ${kind} is counted from its own sizes`);
}

function unknownLayer(kind: string, known: readonly string[]): ConfigError {
  const near = nearest(kind, known);
  const cure = near === undefined ? `choose one of ${known.join(", ")}` : `did you mean ${near}?`;
  return new ConfigError("--layer", "must be a known layer", kind, cure);
}

function parseSizes(kind: string, text: string, known: readonly string[]): Map<string, string> {
  const sizes = new Map<string, string>();
  const items = text === "" ? [] : text.split(",");
  for (const item of items) {
    const [name = "", value = "true"] = splitOnce(item, "=");
    checkSize(kind, name, value, { items, known });
    if (sizes.has(name)) throw new ConfigError(`--layer ${kind} ${name}`, "must be given once", value);
    sizes.set(name, value);
  }
  return sizes;
}

interface Spec {
  readonly items: readonly string[];
  readonly known: readonly string[];
}

function checkSize(kind: string, name: string, value: string, { items, known }: Spec): void {
  if (known.includes(name)) return;
  if (Number.isFinite(numberOf(name))) {
    const named = known.slice(0, items.length).map((size, i) => `${size}=${splitOnce(items[i]!, "=").at(-1)!}`);
    throw new ConfigError(`--layer ${kind}`, "must name its sizes", name, `for example ${kind}:${named.join(",")}`);
  }
  const near = nearest(name, known);
  const cure = [near === undefined ? [] : `did you mean ${near}?`, sizesText(kind, known)].flat().join(" ");
  throw new ConfigError(`--layer ${kind} ${name}`, "must be a size of this layer", value, cure);
}

function splitOnce(text: string, mark: string): string[] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** Equal terms in one line. */
function listTerms(terms: readonly formulas.Term[]): LayerCount["terms"] {
  const lines = new Map<string, LayerCount["terms"][number]>();
  for (const { name, shape, times = 1 } of new Set(terms)) {
    const key = `${name} ${shape.join()}`;
    const all = (lines.get(key)?.times ?? 0) + times;
    lines.set(key, { name, shape, times: all, elements: countElements(shape, all) });
  }
  return [...lines.values()];
}
