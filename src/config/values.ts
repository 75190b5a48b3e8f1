/** Checks one value against its row. */

import { ConfigError } from "../core/errors.ts";
import type { Row, Value } from "./row.ts";

/**
 * The value as the row wants it, foreign spellings translated.
 * @throws ConfigError when the type is wrong or the value is out of range.
 */
export function checkValue(spelling: string, row: Row, given: unknown): Value {
  const value =
    row.values !== undefined && Object.hasOwn(row.values, String(given)) ? row.values[String(given)]! : given;
  if (value === null && row.nullable) return null;
  switch (row.type) {
    case "integer":
    case "number":
      return checkNumber(spelling, row, value);
    case "boolean":
      if (typeof value === "boolean") return value;
      throw new ConfigError(spelling, "must be true or false", given, defaultHint(row));
    case "choice":
      if (typeof value === "string" && row.choices!.includes(value)) return value;
      throw new ConfigError(spelling, `must be ${choiceRule(row)}`, given, defaultHint(row));
    case "numbers":
      if (Array.isArray(value)) return value.map((item) => checkNumber(spelling, row, item));
      throw new ConfigError(spelling, "must be a list of numbers", given, defaultHint(row));
    case "texts":
      if (isTexts(value)) return [...value];
      throw new ConfigError(spelling, "must be a list of texts, none empty", given, defaultHint(row));
    default:
      return row.type satisfies never;
  }
}

function checkNumber(spelling: string, row: Row, value: unknown): number {
  const rule = `must be ${numberRule(row)}`;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new ConfigError(spelling, rule, value, defaultHint(row));
  }
  const inRange = value >= (row.min ?? -Infinity) && value <= (row.max ?? Infinity) && value > (row.above ?? -Infinity);
  if (!inRange || (row.type === "integer" && !Number.isSafeInteger(value))) {
    throw new ConfigError(spelling, rule, value, defaultHint(row));
  }
  return value;
}

function defaultHint({ default: byDefault }: Row): string {
  const isRule = typeof byDefault === "object" && byDefault !== null && "rule" in byDefault;
  return `the default is ${isRule ? byDefault.rule : JSON.stringify(byDefault)}`;
}

function choiceRule(row: Row): string {
  const choices = row.choices!.join(", ");
  return row.nullable ? `null or one of ${choices}` : `one of ${choices}`;
}

function numberRule(row: Row): string {
  const kind = row.type === "integer" ? "a whole number" : "a number";
  const bounds = [
    row.above === undefined ? undefined : `above ${row.above}`,
    row.min === undefined ? undefined : `of at least ${row.min}`,
    row.max === undefined ? undefined : `of at most ${row.max}`,
  ].filter((bound) => bound !== undefined);
  return [kind, bounds.join(" and ")].filter(Boolean).join(" ");
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string" && item !== "");
}
