/** Numbers of a plan by the words beside which it prints them. */

import { ConfigError } from "../core/errors.ts";
import { findLabelled } from "../planner/index.ts";

/** Rows by words. */
export type Labels = Readonly<Record<string, string>>;

/** What plans of training and of serving both print. */
export const COMMON_LABELS: Labels = {
  total: "memory.total",
  limit: "memory.limit",
  "$ a million tokens": "bill.cost_per_million",
};

/**
 * The one of `names` that is printed under `wanted`, or has its words.
 * @throws ConfigError when there is none.
 */
export function numberNamed(names: readonly string[], labels: Labels, wanted: string): string {
  const found = findLabelled(names, labels, wanted);
  if (found !== undefined && names.includes(found)) return found;
  throw new ConfigError("--why", "must be a number of the plan", wanted, `one of ${names.join(", ")}`);
}
