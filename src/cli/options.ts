/** Options that several verbs share, and what is read from the surroundings: only here. */

import { availableParallelism, homedir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { ConfigError } from "../core/errors.ts";
import { createNativeBackend, type NativeBackend } from "../kernels/node.ts";

/** Folder for what is kept between runs: $FATHOM_CACHE, else fathom/ in the user's cache folder. */
export function cacheDir(): string {
  const { FATHOM_CACHE, XDG_CACHE_HOME } = process.env;
  if (FATHOM_CACHE !== undefined && FATHOM_CACHE !== "") return FATHOM_CACHE;
  return join(
    XDG_CACHE_HOME !== undefined && XDG_CACHE_HOME !== "" ? XDG_CACHE_HOME : join(homedir(), ".cache"),
    "fathom",
  );
}

const LEAVE_OUT = "correct it, or leave it out for its default";

/** For options that are whole numbers. @throws ConfigError outside [min, max]. */
export function integer(name: string, min: number, max: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || text.trim() === "" || value < min || value > max) {
      const rule = max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `from ${min} to ${max}`;
      throw new ConfigError(name, `must be a whole number ${rule}`, text, LEAVE_OUT);
    }
    return value;
  };
}

/** For options that are numbers. */
export function number(name: string, min: number, max = Infinity): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isFinite(value) || text.trim() === "" || value < min || value > max) {
      const rule = `must be a number from ${min}${max === Infinity ? "" : ` to ${max}`}`;
      throw new ConfigError(name, rule, text, LEAVE_OUT);
    }
    return value;
  };
}

/** Collects an option that may be given several times. */
export function collect(text: string, before: string[] = []): string[] {
  return [...before, text];
}

/** `key=value` pairs; values are JSON where they parse as such, else text. */
export function assignments(pairs: readonly string[], place = "--set"): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at <= 0) throw new ConfigError(place, "must be key=value", pair, `for example ${place} lr=1e-3`);
      const value = parseValue(pair.slice(at + 1));
      if (typeof value === "object" && value !== null && !Array.isArray(value)) {
        throw new ConfigError(place, "must give one value or a list", pair, `for example ${place} training.lr=1e-3`);
      }
      return [pair.slice(0, at), value];
    }),
  );
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** Whether the command line itself gives an option, named as commander does (`lossChunks`); a default does not count. */
export function isGiven(command: Command, option: string): boolean {
  return command.getOptionValueSource(option) === "cli";
}

/** How an option is written: `lossChunks` → `--loss-chunks`. */
export function flagOf(command: Command, option: string): string {
  return command.options.find((known) => known.attributeName() === option)?.long ?? `--${option}`;
}

/**
 * Refuses options that would be passed over.
 *
 * @param partners - options that act only with another one: `{ stage: "ledger" }`.
 * @throws ConfigError for the first that stands alone.
 */
export function checkPartners(command: Command, partners: Readonly<Record<string, string>>): void {
  for (const [option, partner] of Object.entries(partners)) {
    if (!isGiven(command, option) || isGiven(command, partner)) continue;
    throw new ConfigError(flagOf(command, option), `acts only with ${flagOf(command, partner)}`);
  }
}

/** More threads than cores only take turns; a few are allowed so that a run can be repeated from a larger machine. */
const MIN_MOST_THREADS = 16;

/** @throws ConfigError for more threads than this machine can use. */
export function checkThreads(threads: number): void {
  const most = Math.max(MIN_MOST_THREADS, availableParallelism());
  if (threads <= most) return;
  const rule = `must be at most ${most} on this machine`;
  throw new ConfigError("threads", rule, threads, "leave it out to use every core");
}

/** The native backend with the threads and instruction set that a run configuration asks for. */
export function openBackend(runtime: { threads?: number | null; isa?: string | null }): NativeBackend {
  const { threads, isa } = runtime;
  if (typeof threads === "number") checkThreads(threads);
  return createNativeBackend({
    ...(threads === undefined || threads === null || threads === 0 ? {} : { threads }),
    ...(isa === undefined || isa === null || isa === "auto" ? {} : { isa }),
  });
}
