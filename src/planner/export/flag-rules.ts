/** Which flags may be written: those of an engine's list, and never those that make a run worthless. */

import { ConfigError, invariant, nearest } from "../../core/errors.ts";
import type { Phrase, Word } from "./shell.ts";

/** Settings that benchmarks carry and that spoil real runs, with what they do. */
export const FORBIDDEN: Readonly<Record<string, string>> = {
  "--moe-router-force-load-balancing": "routes tokens at random, for benchmarks only",
  "--no-save-optim": "makes checkpoints from which training cannot go on",
  "--no-load-optim": "starts the optimizer anew after every interruption",
  "--no-load-rng": "draws other random numbers after every interruption",
  "--no-check-for-nan-in-loss-and-grad": "lets NaN into the weights",
  "--exit-duration-in-mins": "ends the run after the time of a benchmark",
  "--debug.moe_force_load_balance": "routes tokens at random, for benchmarks only",
  "--model.backend.fake_balanced_gate": "routes tokens at random, for benchmarks only",
  fake_balanced_gate: "routes tokens at random, for benchmarks only",
  "--quantization": "quantises again a checkpoint that says itself how it is quantised",
  CUDA_LAUNCH_BLOCKING: "waits for every kernel; it is for debugging",
};

/** Flags that rule each other out, with the reason. */
const CONFLICTS: readonly (readonly [flag: string, other: string, reason: string])[] = [
  ["--deterministic-mode", "--cross-entropy-loss-fusion", "the fused loss is not deterministic"],
];

/** A template writes only what its list has; anything else is a mistake in the template. */
export function checkListed(engine: string, names: readonly string[], list: readonly string[]): void {
  const strange = names.find((name) => !list.includes(name));
  invariant(strange === undefined, `the list of ${engine} has ${strange ?? ""}`);
}

/** Dotted paths of the leaves of a configuration; what `_target_` names is a leaf, since its arguments are its own. */
export function keyPaths(value: Readonly<Record<string, unknown>>, prefix = ""): string[] {
  return Object.entries(value).flatMap(([key, child]) => {
    const isLeaf = typeof child !== "object" || child === null || Array.isArray(child) || "_target_" in child;
    return isLeaf ? [prefix + key] : keyPaths(child as Readonly<Record<string, unknown>>, `${prefix}${key}.`);
  });
}

/** The names of flags in a command, in order. */
export function flagNames(phrases: readonly Phrase[]): string[] {
  return phrases.flat().filter((word): word is string => typeof word === "string" && /^--?[a-z]/i.test(word));
}

/**
 * Flags that the user adds, as `--name`, `--name value` or `--name=value`.
 *
 * @throws ConfigError for a flag that is forbidden, not in the list, or already written.
 */
export function extraFlags(
  engine: string,
  allowed: readonly string[],
  given: readonly string[],
  written: readonly Phrase[],
): Phrase[] {
  const present = new Set(flagNames(written));
  return given.map((text) => {
    const [name = "", ...values] = text.trim().split(/[\s=]+/);
    checkForbidden(engine, name);
    checkAllowed(engine, allowed, name);
    if (present.has(name))
      throw new ConfigError(`${engine} ${name}`, "must not be given twice", text, "the plan writes it");
    const clash = CONFLICTS.find(([flag, other]) => flag === name && present.has(other));
    if (clash !== undefined)
      throw new ConfigError(`${engine} ${name}`, `cannot go with ${clash[1]}: ${clash[2]}`, text);
    return [name, ...values];
  });
}

function checkAllowed(engine: string, allowed: readonly string[], name: string): void {
  if (allowed.includes(name)) return;
  const near = nearest(name, [...allowed]);
  const cure = near === undefined ? undefined : `did you mean ${near}?`;
  throw new ConfigError(`${engine} flag`, "must be in the list of this engine's flags", name, cure);
}

/** Variables of the environment that the user adds, as `NAME=value`. @throws ConfigError for a forbidden or malformed one. */
export function extraEnvironment(engine: string, given: readonly string[]): Record<string, Word> {
  return Object.fromEntries(
    given.map((pair) => {
      const [, name, value] = /^([A-Z_][A-Z0-9_]*)=(.*)$/s.exec(pair) ?? [];
      if (name === undefined || value === undefined) {
        throw new ConfigError("--env", "must be NAME=value", pair, "for example --env NCCL_DEBUG=INFO");
      }
      checkForbidden(engine, name);
      return [name, value];
    }),
  );
}

function checkForbidden(engine: string, name: string): void {
  if (!Object.hasOwn(FORBIDDEN, name)) return;
  throw new ConfigError(`${engine} ${name}`, "must not be used", undefined, `it ${FORBIDDEN[name]!}`);
}
