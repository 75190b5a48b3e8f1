/** Checks one value against its row. */

import { ConfigError } from "../core/errors.ts";
import { isRule, type Row, type Value } from "./row.ts";

/**
 * The value as the row wants it, foreign spellings translated.
 * @throws ConfigError when the type is wrong or the value is out of range.
 */
export function checkValue(spelling: string, row: Row, given: unknown): Value {
  const value = translate(row, given);
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
    case "text":
      if (typeof value === "string" && value.trim() !== "") return value;
      throw new ConfigError(spelling, "must be a text that is not empty", given, defaultHint(row));
    case "numbers":
      if (Array.isArray(value)) return value.map((item) => checkNumber(spelling, row, item));
      throw new ConfigError(spelling, "must be a list of numbers", given, defaultHint(row));
    case "texts":
      if (isTexts(value)) return [...value];
      throw new ConfigError(spelling, "must be a list of texts, none empty", given, defaultHint(row));
    case "weights":
      return checkWeights(spelling, row, value);
    default:
      return row.type satisfies never;
  }
}

/** The house's word for a foreign one; choices are known in any case of letters. */
function translate(row: Row, given: unknown): unknown {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given;
  const word = String(given);
  if (row.values !== undefined && Object.hasOwn(row.values, word)) return row.values[word];
  if (row.type !== "choice" || typeof given !== "string") return given;
  return row.choices!.find((choice) => choice.toLowerCase() === given.toLowerCase()) ?? given;
}

function checkWeights(spelling: string, row: Row, value: unknown): Readonly<Record<string, number>> {
  const rule = "must give each name a number above 0";
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigError(spelling, rule, value, defaultHint(row));
  }
  for (const [name, weight] of Object.entries(value)) {
    if (typeof weight === "number" && Number.isFinite(weight) && weight > 0) continue;
    throw new ConfigError(
      `${spelling}.${name}`,
      "must be a number above 0",
      weight,
      "leave out what shall not be used",
    );
  }
  return { ...value };
}

function checkNumber(spelling: string, row: Row, value: unknown): number {
  const rule = `must be ${numberRule(row)}`;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new ConfigError(spelling, rule, value, defaultHint(row));
  }
  if (!isInRange(row, value) || (row.type === "integer" && !Number.isSafeInteger(value))) {
    throw new ConfigError(spelling, rule, value, defaultHint(row));
  }
  return value;
}

/** Whether a number is within the bounds of a row. */
export function isInRange({ min = -Infinity, max = Infinity, above = -Infinity }: Row, value: number): boolean {
  return value >= min && value <= max && value > above;
}

function defaultHint({ default: byDefault }: Row): string {
  return `the default is ${isRule(byDefault) ? byDefault.rule : JSON.stringify(byDefault)}`;
}

function choiceRule(row: Row): string {
  const choices = row.choices!.join(", ");
  return row.nullable ? `null or one of ${choices}` : `one of ${choices}`;
}

/** What a number must be, in words: `a whole number of at least 1`. */
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

/** The legal values of a row in words. */
export function rangeText(row: Row): string {
  const words: Readonly<Record<Row["type"], () => string>> = {
    integer: () => numberRule(row),
    number: () => numberRule(row),
    boolean: () => "true or false",
    choice: () => choiceRule(row),
    text: () => "a text",
    numbers: () => `a list of numbers, each ${numberRule({ ...row, type: "number" })}`,
    texts: () => "a list of texts",
    weights: () => "names with numbers above 0",
  };
  return row.nullable && row.type !== "choice" ? `null or ${words[row.type]()}` : words[row.type]();
}
