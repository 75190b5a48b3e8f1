/** What a parameter row says, and the TypeScript type of a section that a list of rows describes. */

export const SECTIONS = ["model", "training", "generation", "runtime"] as const;
export type Section = (typeof SECTIONS)[number];

/** The five groups in which `explain` shows the parameters. */
export type Layer = "base architecture" | "compute" | "training control" | "inference" | "hardware";

export type Value = number | boolean | string | null | readonly number[] | readonly string[];

/** What a parameter moves: `+` grows with it, `−` falls, then the order of growth. */
export type Moves = Partial<Record<"parameters" | "memory" | "kvCache" | "flops" | "speed" | "quality", string>>;

/** Other spellings that are accepted on input, in the notation of their home. */
export interface Aliases {
  readonly hf?: string;
  readonly gguf?: string;
  readonly megatron?: string;
  readonly other?: readonly string[];
}

export interface Row {
  readonly layer: Layer;
  readonly type: "integer" | "number" | "boolean" | "choice" | "numbers" | "texts";
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
  /** Where DeepSeek has it: a field of ModelArgs, a global of model.py, a config.json key, a paper; or ours alone. */
  readonly realIn: "ModelArgs" | "global" | "config.json" | "paper" | "Fathom";
  readonly source: string;
  readonly aliases?: Aliases;
  /** Foreign spellings of a value, by `String(value)`. */
  readonly values?: Readonly<Record<string, Value>>;
}

export type Rows = Readonly<Record<string, Row>>;

type Plain<R> = R extends { type: "integer" | "number" }
  ? number
  : R extends { type: "boolean" }
    ? boolean
    : R extends { type: "choice"; choices: readonly (infer C)[] }
      ? C
      : R extends { type: "numbers" }
        ? readonly number[]
        : readonly string[];

/** The values of a section, typed by its rows. */
export type Settings<T extends Rows> = {
  readonly [K in keyof T]: T[K] extends { nullable: true } ? Plain<T[K]> | null : Plain<T[K]>;
};
