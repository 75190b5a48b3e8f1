/** What a run tells of itself: the lines that `fathom train --json` prints, and samples of its text. */

import { FormatError } from "../core/errors.ts";

export interface RunMetrics {
  /** Mean loss of the first and of the last tenth of the steps, nats per token. */
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Lowest validation loss and the last one; undefined without an evaluation. */
  readonly bestValLoss: number | undefined;
  readonly lastValLoss: number | undefined;
  /** Median; undefined where no line tells it. */
  readonly tokensPerSec: number | undefined;
  /** Largest load of an expert over the mean, of the last evaluation; undefined without routed experts. */
  readonly maxLoad: number | undefined;
}

interface Line {
  readonly loss?: number;
  readonly val_loss?: number;
  readonly tokens_per_sec?: number;
  readonly routing?: readonly { readonly max_load: number }[];
}

/** @throws FormatError when a line is not one of `fathom train --json`, or no line is of a step. */
export function parseMetrics(text: string, file: string): RunMetrics {
  const lines = text.split("\n").flatMap((line, i) => (line.trim() === "" ? [] : [parseLine(line, i + 1, file)]));
  const losses = lines.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
  if (losses.length === 0) {
    throw new FormatError(file, "must hold the lines of fathom train --json", {
      got: `${lines.length} without a loss`,
    });
  }
  const validation = lines.flatMap(({ val_loss }) => (val_loss === undefined ? [] : [val_loss]));
  const speeds = lines.flatMap(({ tokens_per_sec }) => (tokens_per_sec === undefined ? [] : [tokens_per_sec]));
  const routing = lines.findLast((line) => line.routing !== undefined)?.routing ?? [];
  const tenth = Math.max(1, Math.floor(losses.length / 10));
  return {
    firstLoss: mean(losses.slice(0, tenth)),
    lastLoss: mean(losses.slice(-tenth)),
    bestValLoss: validation.length === 0 ? undefined : Math.min(...validation),
    lastValLoss: validation.at(-1),
    tokensPerSec: speeds.toSorted((a, b) => a - b)[Math.floor(speeds.length / 2)],
    maxLoad: routing.length === 0 ? undefined : Math.max(...routing.map(({ max_load }) => max_load)),
  };
}

const NUMBERS = ["loss", "val_loss", "tokens_per_sec"] as const;

function parseLine(text: string, number: number, file: string): Line {
  const refuse = (rule: string, got: unknown): never => {
    throw new FormatError(file, `line ${number} must ${rule}`, { got });
  };
  const line = tryParse(text) ?? refuse("be JSON", text.slice(0, 60));
  const { value } = line;
  if (!isRecord(value)) return refuse("be a JSON object", text.slice(0, 60));
  for (const name of NUMBERS) {
    if (value[name] !== undefined && !Number.isFinite(value[name])) refuse(`have a number as ${name}`, value[name]);
  }
  if (value["routing"] !== undefined && !isRouting(value["routing"])) {
    refuse("have a list with a max_load for each layer as routing", value["routing"]);
  }
  return value;
}

function tryParse(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isRouting(value: unknown): boolean {
  return Array.isArray(value) && value.every((layer) => isRecord(layer) && Number.isFinite(layer["max_load"]));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Shortest phrase that counts as a loop when a text repeats it, in words. */
const PHRASE = 4;

/** Share of the runs of four words in a text that stood there before: about 0.1 in prose, near 1 in a loop. */
export function repeatedShare(text: string): number {
  const words = text.split(/\s+/).filter((word) => word !== "");
  const phrases = words.slice(PHRASE - 1).map((_, i) => words.slice(i, i + PHRASE).join(" "));
  return phrases.length === 0 ? 0 : 1 - new Set(phrases).size / phrases.length;
}
