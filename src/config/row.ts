/** What a parameter row says, and the TypeScript type of a section that a list of rows describes. */

export const SECTIONS = [
  "model",
  "training",
  "data",
  "adapter",
  "distillation",
  "alignment",
  "quantization",
  "parallel",
  "generation",
  "serving",
  "runtime",
  "hardware",
  "tuning",
] as const;
export type Section = (typeof SECTIONS)[number];

/** The five groups in which `explain` shows the parameters. */
export const LAYERS = ["base architecture", "compute", "training control", "inference", "hardware"] as const;
export type Layer = (typeof LAYERS)[number];

/** What acts on settings. A setting that is given to a verb which does not read it is named in a warning. */
export type Verb = "params" | "plan" | "advise" | "train" | "generate";

export type Value =
  | number
  | boolean
  | string
  | null
  | readonly number[]
  | readonly string[]
  | Readonly<Record<string, number>>;

/** What a parameter moves: `+` grows with it, `−` falls, then the order of growth. */
export type Moves = Partial<Record<"parameters" | "memory" | "kvCache" | "flops" | "speed" | "quality", string>>;

/** Other spellings that are accepted on input, in the notation of their home. */
export interface Aliases {
  /** DeepSeek's inference code, where it differs from the parameter's own name. */
  readonly demo?: string;
  readonly hf?: string;
  readonly gguf?: string;
  readonly megatron?: string;
  /** Tutorials and articles about DeepSeek models. */
  readonly articles?: readonly string[];
  /** Other trainers and engines. */
  readonly other?: readonly string[];
}

export interface Row {
  readonly layer: Layer;
  readonly type: "integer" | "number" | "boolean" | "choice" | "text" | "numbers" | "texts" | "weights";
  readonly choices?: readonly string[];
  readonly nullable?: true;
  readonly unit?: string;
  /** Smallest and largest legal value; `above` is a bound that is itself illegal. */
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  /** A value, or the rule (a sentence) of a default that follows from other settings; `defaults.ts` carries it out. */
  readonly default: Value | { readonly rule: string };
  /** Why the default is what it is. */
  readonly why: string;
  readonly meaning: string;
  readonly moves: Moves;
  /**
   * Where it is real: a field of ModelArgs, a global of model.py, a config.json key, a DeepSeek paper; elsewhere in the
   * field but not in DeepSeek; only in articles; or Fathom's alone.
   */
  readonly realIn: "ModelArgs" | "global" | "config.json" | "paper" | "field" | "article" | "Fathom";
  readonly source: string;
  /** What is often said of it and not so. */
  readonly truth?: string;
  readonly aliases?: Aliases;
  /** Foreign spellings of a value, by `String(value)`. */
  readonly values?: Readonly<Record<string, Value>>;
  /** The verbs that act on it; by default those of its section. */
  readonly readBy?: readonly Verb[];
  /**
   * The values that this engine trains and generates with, where it cannot carry out all legal ones; the others are
   * for counting, planning and export.
   */
  readonly runs?: readonly Value[];
}

export type Rows = Readonly<Record<string, Row>>;

type Plain<R> = R extends { type: "integer" | "number" }
  ? number
  : R extends { type: "boolean" }
    ? boolean
    : R extends { type: "choice"; choices: readonly (infer C)[] }
      ? C
      : R extends { type: "text" }
        ? string
        : R extends { type: "numbers" }
          ? readonly number[]
          : R extends { type: "weights" }
            ? Readonly<Record<string, number>>
            : readonly string[];

/** The values of a section, typed by its rows. */
export type Settings<T extends Rows> = {
  readonly [K in keyof T]: T[K] extends { nullable: true } ? Plain<T[K]> | null : Plain<T[K]>;
};

/** Whether a default is a rule over other settings. */
export function isRule(value: Row["default"]): value is { readonly rule: string } {
  return typeof value === "object" && value !== null && "rule" in value && typeof value.rule === "string";
}
