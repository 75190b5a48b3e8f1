/** What an engine can do, as data, and the refusal of what it cannot. */

import { ConfigError } from "../../core/errors.ts";
import type { Recompute, Schedule, ZeroStage } from "../layout.ts";
import type { SearchGrid } from "../search.ts";
import type { TrainingLaunch } from "./launch.ts";

type Degree = "tp" | "pp" | "vp" | "cp" | "ep" | "etp";

/** The layouts of a training engine. */
export interface TrainingLimits {
  /** Degrees that the engine does not have: they must be 1. */
  readonly without: readonly Degree[];
  readonly zero: readonly ZeroStage[];
  readonly schedules: readonly Schedule[];
  /** Names of precision recipes. */
  readonly precisions: readonly string[];
  readonly recompute: readonly ("none" | "selective" | "full" | "first-N")[];
}

/** @throws ConfigError for what the engine cannot do, with what it can. */
export function checkLimits(engine: string, limits: TrainingLimits, { layout, precision }: TrainingLaunch): void {
  for (const degree of limits.without) {
    if (layout[degree] === 1) continue;
    throw new ConfigError(`${engine} ${degree}`, "must be 1, which is all this engine has", layout[degree]);
  }
  checkAmong(engine, "zero", limits.zero, layout.zero);
  checkAmong(engine, "schedule", limits.schedules, layout.schedule);
  checkAmong(engine, "precision", limits.precisions, precision.name);
  checkAmong(engine, "recompute", limits.recompute, kindOfRecompute(layout.recompute));
}

/** The part of a search grid that the engine can lay out. */
export function limitGrid(limits: TrainingLimits, grid: SearchGrid): SearchGrid {
  const without = Object.fromEntries(limits.without.map((degree) => [degree, [1]]));
  return {
    ...grid,
    ...(limits.schedules.includes("interleaved") ? {} : { vp: [1] }),
    ...without,
    zero: grid.zero.filter((stage) => limits.zero.includes(stage)),
    recompute: grid.recompute.filter((name) => limits.recompute.includes(kindOfRecompute(name))),
  };
}

function kindOfRecompute(recompute: Recompute): TrainingLimits["recompute"][number] {
  return recompute === "none" || recompute === "selective" || recompute === "full" ? recompute : "first-N";
}

/** @throws ConfigError that lists what is possible. */
function checkAmong<T extends string | number>(engine: string, what: string, possible: readonly T[], got: T): void {
  if (possible.includes(got)) return;
  throw new ConfigError(
    `${engine} ${what}`,
    `must be one of ${possible.join(", ")}`,
    got,
    `choose one of them for ${engine}`,
  );
}
